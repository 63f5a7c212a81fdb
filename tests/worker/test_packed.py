"""QLoRA for real: bitsandbytes packs a tiny model's weights on the CPU, and adapters learn beside them."""

from typing import Any

import pytest

from ftwiz.engine.checkpoints import newest_whole
from ftwiz.engine.memory import estimate
from ftwiz.engine.memory.tensors import holdings
from ftwiz.engine.memory.workload import workload_of
from ftwiz.engine.specs.events import EndEvent, RankEvent, StepEvent
from ftwiz.engine.specs.job import Job
from ftwiz.engine.worker.settings import read_settings

pytestmark = [pytest.mark.train, pytest.mark.timeout(300)]
pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")

NF4, INT8 = {"quantization": "nf4"}, {"quantization": "int8"}
LORA = {"kind": "lora", "r": 4}

BASE_BITS = """
import hashlib, json, sys
import torch
from pathlib import Path
from ftwiz.engine.rundir import RunFolder
from ftwiz.engine.worker import packed
from ftwiz.engine.worker.loading import load_model
from ftwiz.engine.worker.settings import read_settings

run = RunFolder(Path(sys.argv[1]))
settings = read_settings(run)
model = load_model(settings.model, settings.model["name_or_path"],
                   packed=packed.loading_arguments(settings.model, settings.strategy))
packed.after_loading(model, settings.strategy)

def digest():
    bits = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if "lora_" not in name:
            bits.update(parameter.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return bits.hexdigest()
"""

ADAPTER_ON_PACKED = """
from peft import PeftModel

before = digest()
tokens = torch.arange(20, 40)[None]
with torch.no_grad():
    plain = model(tokens).logits
    tuned = PeftModel.from_pretrained(model, run.final_model)
    logits = tuned(tokens).logits
    with tuned.disable_adapter():
        again = tuned(tokens).logits
assert torch.equal(plain, again)
assert not torch.allclose(plain, logits, atol=1e-4)
trained = [weight for name, weight in tuned.named_parameters() if "lora_B" in name]
assert trained and all(weight.abs().sum() > 0 for weight in trained)
print(type(model.model.layers[0].mlp.up_proj.weight).__name__, digest() == before)
"""


def planned_bytes(lab: Any, run: Any) -> tuple[int, int]:
    """Return the packed weights of the estimate: how many, and a rank's bytes of them without rounding."""
    strategy = read_settings(run).strategy
    job = Job.model_validate(
        {"model": {"name_or_path": "m"}, "data": {"path": "d"}, "method": LORA, "train": {"max_length": 64}}
    )
    work = workload_of(job, lab.spec, strategy)
    parts = holdings(work.model, "lora", work.adapter, quantization=work.quantization).packed
    number = sum(part.total for part in parts)
    shards = strategy.num_shards if strategy.splits_weights else 1
    (line,) = (term for term in estimate(work).terms if term.name.startswith("packed weights"))
    num_bytes = number * (0.5 if strategy.quantization == "nf4" else 1) / shards
    assert line.num_bytes >= num_bytes  # the allocator of a GPU rounds; the CPU's does not
    return number, int(num_bytes)


def check_packed(lab: Any, run: Any, adapters: str = "bfloat16") -> list[RankEvent]:
    """Every rank holds what the estimate says, in bits that bitsandbytes made."""
    ranks: list[RankEvent] = lab.events(run, RankEvent)
    number, num_bytes = planned_bytes(lab, run)
    for event in ranks:
        assert event.packing == read_settings(run).strategy.quantization
        assert (event.num_packed_parameters, event.packed_bytes) == (number, num_bytes)
        assert adapters in event.parameter_bytes
    return ranks


@pytest.mark.parametrize(("packing", "weight"), [(NF4, "Params4bit"), (INT8, "Int8Params")])
def test_adapters_learn_while_the_packed_base_stays_as_it_was(
    lab: Any, packing: dict[str, str], weight: str
) -> None:
    train = {"max_steps": 12, "learning_rate": 1e-2}
    run = lab.train(strategy=packing, method=LORA, train=train, run={"num_samples": 2})
    losses = lab.losses(run)
    assert losses[-1] < 0.94 * losses[0]  # a frozen base of random weights lets adapters learn so much
    (event,) = check_packed(lab, run)
    assert event.parameter_bytes["uint8" if packing is NF4 else "int8"] == event.packed_bytes
    assert event.parameter_bytes["bfloat16"] == 2 * event.num_trainable_parameters
    assert {path.name for path in run.final_model.glob("*.safetensors")} == {"adapter_model.safetensors"}
    done = lab.python("-c", BASE_BITS + ADAPTER_ON_PACKED, str(run.path), cwd=run.path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [weight, "True"]


@pytest.fixture(scope="module")
def packed_whole(tmp_path_factory: pytest.TempPathFactory, lab_of: Any) -> list[float]:
    """Six losses of one rank on packed weights, for engines that share the work to be held against."""
    lab = lab_of(tmp_path_factory.mktemp("packed"))
    losses: list[float] = lab.losses(lab.train(strategy=NF4, method=LORA))
    return losses


SHARED: dict[str, tuple[str, dict[str, Any]]] = {
    "ddp": ("ddp", NF4),
    "zero-2": ("zero", NF4 | {"zero_stage": 2}),
    "zero-3": ("zero", NF4 | {"zero_stage": 3}),
    "fsdp": ("fsdp", NF4 | {"gradient_checkpointing": True}),
    "fsdp, on the host": ("fsdp", NF4 | {"offload_parameters": "cpu", "offload_optimizer": "cpu"}),
}


@pytest.mark.parametrize("how", SHARED)
def test_two_ranks_learn_what_one_learns_and_split_what_is_packed(
    lab: Any, packed_whole: list[float], how: str
) -> None:
    backend, strategy = SHARED[how]
    if backend == "zero":
        pytest.importorskip("deepspeed", reason="deepspeed is not installed")
    run = lab.make(backend, strategy=strategy, method=LORA, run={"num_samples": 2})
    done = lab.work(run, ranks=2)
    assert done.returncode == 0, done.stderr + run.rank_log(0).read_text()
    assert lab.losses(run) == pytest.approx(packed_whole, rel=1e-4)
    ranks = check_packed(lab, run)
    assert [event.rank for event in ranks] == [0, 1]


@pytest.mark.parametrize("backend", ["single", "fsdp"])
def test_stopped_and_resumed_goes_on_as_if_never_stopped(
    lab: Any, packed_whole: list[float], backend: str
) -> None:
    ranks = 2 if backend == "fsdp" else 1
    run = lab.make(backend, strategy=NF4, method=LORA)
    run.stop_request.touch()
    assert lab.work(run, ranks=ranks).returncode == 0, run.rank_log(0).read_text()
    assert lab.events(run, EndEvent)[-1].status == "stopped"
    checkpoint = newest_whole(run.checkpoints)
    assert checkpoint is not None
    assert not list(checkpoint.glob("model*.safetensors"))
    run.stop_request.unlink()
    done = lab.work(run, ranks=ranks, resume_from=checkpoint.name)
    assert done.returncode == 0, run.rank_log(0).read_text()
    assert [event.step for event in lab.events(run, StepEvent)] == [1, 2, 3, 4, 5, 6]
    assert lab.losses(run) == pytest.approx(packed_whole, rel=1e-5 if ranks == 1 else 5e-5)
    # peft reads adapters back as float32
    assert len({event.parameter_bytes["bfloat16"] for event in lab.events(run, RankEvent)}) == 1


def test_bits_that_fsdp_would_not_split_are_refused(lab: Any) -> None:
    run = lab.make("fsdp", strategy=NF4, method=LORA)
    text = run.train_file.read_text()
    run.train_file.write_text(text.replace("quant_storage: float32", "quant_storage: uint8"))
    assert run.train_file.read_text() != text
    assert lab.work(run, ranks=2).returncode == 1
    assert "bytes of packed weights, and 2 ranks share them" in lab.exit_record(run)["error"]
    assert lab.events(run, StepEvent) == []


def test_weights_that_nobody_packed_are_refused(lab: Any) -> None:
    run = lab.make(strategy=NF4, method=LORA)
    lines = run.train_file.read_text().splitlines(keepends=True)
    kept = [line for line in lines if "bnb_4bit" not in line and "load_in" not in line]
    run.train_file.write_text("".join(kept).replace("  quantization:\n", ""))
    assert lab.work(run).returncode == 1
    assert "packed as nothing, and nf4 is planned" in lab.exit_record(run)["error"]


def test_without_bitsandbytes_nothing_is_loaded(lab: Any) -> None:
    run = lab.make(strategy=NF4, method=LORA, model={"name_or_path": str(lab.folder / "nowhere")})
    script = "import sys; sys.modules['bitsandbytes'] = None; sys.argv[0] = 'worker'\n"
    script += "from ftwiz.engine.worker.__main__ import main; main()"
    done = lab.python("-c", script, str(run.path), cwd=run.path)
    assert done.returncode != 0
    error = lab.exit_record(run)["error"]
    assert "needs bitsandbytes" in error
    assert "ftwiz[quant]" in error
