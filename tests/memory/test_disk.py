"""Files of a run, against files that the real libraries write."""

from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine.memory.disk import (
    RANK_BYTES,
    SMALL_FILES_BYTES,
    checkpoint_bytes,
    disk_terms,
    save_seconds,
)
from ftwiz.engine.memory.host import DataVolume
from ftwiz.engine.models import Adapter
from ftwiz.engine.specs.model import ModelSpec
from ftwiz.engine.specs.workload import Quantization, Workload

from .conftest import LLAMA, fsdp, full, known, lora, qlora, small_llama, zero

pytestmark = pytest.mark.timeout(120)
SHAPE = LLAMA | {"hidden_size": 256, "intermediate_size": 512, "vocab_size": 2048}


def sizes(workload: Workload, **options: Any) -> dict[str, int]:
    return {term.name: term.num_bytes for term in disk_terms(workload, **options)}


def written(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_checkpoint_is_as_large_as_the_real_one(tmp_path: Path, method: str) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    config = transformers.LlamaConfig(**{key: value for key, value in SHAPE.items() if key != "model_type"})
    model = transformers.LlamaForCausalLM(config)
    spec = small_llama(**SHAPE)
    workload = full(spec, weights="fp32", trainable="fp32")
    if method == "lora":
        model = peft.get_peft_model(model, peft.LoraConfig(r=16, target_modules="all-linear"))
        workload = lora(spec, adapter=Adapter(rank=16))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    model.save_pretrained(tmp_path)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    found = checkpoint_bytes(workload) - SMALL_FILES_BYTES - RANK_BYTES
    # Beside tensors: headers, and about 1 KB for every tensor in optimizer.pt.
    assert 0 <= written(tmp_path) - found < 2048 * 3 * len(trained) + 20_000


def test_a_checkpoint_of_full_training_has_weights_and_states(llama8b: ModelSpec) -> None:
    small = SMALL_FILES_BYTES + RANK_BYTES
    assert checkpoint_bytes(full(llama8b)) == 8_030_261_248 * (2 + 4) + small
    formats = {"weights": "fp32", "trainable": "fp32"}
    assert checkpoint_bytes(full(llama8b, **formats)) == 8_030_261_248 * 12 + small


def test_deepspeed_writes_both_copies_and_joined_weights(llama8b: ModelSpec) -> None:
    """Stage 3 writes 16-bit weights once, the others twice: DeepSpeed's own and the joined ones."""
    small = SMALL_FILES_BYTES + 8 * RANK_BYTES
    for stage, size in ((1, 16), (2, 16), (3, 14)):
        assert checkpoint_bytes(full(llama8b, sharding=zero(stage))) == 8_030_261_248 * size + small


@pytest.mark.parametrize(("stage", "recorded"), [(1, 513_061 + 2 * 1_508_485), (3, 2 * (20_769 + 1_506_949))])
def test_deepspeed_s_own_files_are_those_that_it_wrote(stage: int, recorded: int) -> None:
    """Recorded from deepspeed 0.19.8 on two gloo ranks, 250,304 parameters in bf16 with AdamW."""
    workload = full(small_llama(vocab_size=511), optimizer="adamw_torch", sharding=zero(stage, 2))
    joined = 250_304 * 2 + SMALL_FILES_BYTES + 2 * RANK_BYTES
    assert checkpoint_bytes(workload) - joined == pytest.approx(recorded, rel=0.02)


def test_fsdp_writes_a_tied_output_layer_too() -> None:
    model = known("meta-llama/Llama-3.2-1B")
    formats = {"weights": "fp32", "trainable": "fp32"}
    extra = checkpoint_bytes(full(model, **formats, sharding=fsdp(2))) - checkpoint_bytes(
        full(model, **formats)
    )
    assert extra == 128256 * 2048 * 4 + RANK_BYTES


def test_adapters_alone_are_saved(llama8b: ModelSpec) -> None:
    found = sizes(qlora(llama8b))
    assert found["final model"] == 41_943_040 * 2 + SMALL_FILES_BYTES
    one = 41_943_040 * (2 + 4) + SMALL_FILES_BYTES + RANK_BYTES
    assert found["2 checkpoints"] == 2 * one
    assert found["2 checkpoints, and the one that is written"] == 3 * one
    assert sizes(qlora(llama8b), kept=5)["5 checkpoints"] == 5 * one


def test_the_download_is_in_16_bits_unless_it_is_packed_already(llama8b: ModelSpec) -> None:
    assert sizes(qlora(llama8b))["download of the model"] == 2 * 8_030_261_248
    how = Quantization(kind="gptq", block_size=128)
    packed = sizes(qlora(llama8b, quantization=how))["download of the model"]
    linear = 32 * (4096 * 4096 * 2 + 4096 * 1024 * 2 + 4096 * 14336 * 3)
    assert packed == pytest.approx(linear * 4.16 / 8 + (8_030_261_248 - linear) * 2, rel=1e-3)


def test_swapped_states_and_cached_tokens_lie_on_the_disk(llama8b: ModelSpec) -> None:
    sharding = zero(3, 4, offload_optimizer="nvme")
    found = sizes(full(llama8b, sharding=sharding), data=DataVolume(num_tokens=1_000_000))
    assert found["optimizer states, swapped"] == pytest.approx(8 * 8_030_261_248, rel=1e-5)
    assert found["tokenised data"] == 5_000_000


def test_saving_70b_takes_minutes(llama8b: ModelSpec) -> None:
    model = known("meta-llama/Llama-2-70b-hf")
    workload = full(model, weights="fp32", trainable="fp32", sharding=fsdp(16))
    assert checkpoint_bytes(workload) == pytest.approx(68_976_648_192 * 12, rel=1e-3)
    assert save_seconds(workload, 2e9) == pytest.approx(414, rel=0.01)
