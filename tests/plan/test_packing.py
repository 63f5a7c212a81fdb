"""Plans with packed weights: taken where they are needed or clearly faster, refused where they cannot be."""

import json
from dataclasses import asdict, replace

import pytest

from ftwiz.engine.backends import backend
from ftwiz.engine.errors import BadInput, Refused
from ftwiz.engine.hardware.written import parse_machine
from ftwiz.engine.job import load_preset, model_spec
from ftwiz.engine.memory import estimate
from ftwiz.engine.memory.workload import workload_of
from ftwiz.engine.models import catalogue
from ftwiz.engine.plan import recommend
from ftwiz.engine.specs.job import Job
from ftwiz.engine.specs.machine import Machine
from ftwiz.engine.specs.model import ModelSpec
from ftwiz.engine.specs.plan import Plan, Strategy

pytestmark = pytest.mark.timeout(120)
GIB = 1 << 30


def model(name: str = "meta-llama/Llama-3.1-8B") -> ModelSpec:
    found = catalogue.find(name)
    assert found
    return catalogue.spec(found)


def job(kind: str = "lora", **pins: object) -> Job:
    train = {"max_length": 2048, "global_batch_size": 32}
    return Job.model_validate(
        {
            "model": {"name_or_path": "m"},
            "data": {"path": "d.jsonl"},
            "method": {"kind": kind},
            "train": train,
            "plan": pins,
        }
    )


def about(plan: Plan, field: str) -> str:
    return next(reason.text for reason in plan.reasons if reason.about == field)


def against(plan: Plan, start: str) -> str:
    return next(one.text for one in plan.rejected if one.choice.startswith(start))


def of_kind(kind: str) -> Machine:
    box = parse_machine("2x4090")
    return replace(box, devices=tuple(replace(one, kind=kind) for one in box.devices))


def test_large_cards_train_unpacked_and_the_plan_says_why_packing_was_not_looked_at() -> None:
    plan = recommend(job(), model(), parse_machine("8xA100-80GB"))
    assert plan.strategy.quantization == "none"
    assert "nothing is recomputed, split or moved" in against(plan, "nf4")


def test_packing_that_is_clearly_faster_is_taken_with_what_it_saves() -> None:
    plan = recommend(job(), model(), parse_machine("2x4090"))
    whole = recommend(job(quantization="none"), model(), parse_machine("2x4090"))
    assert (plan.strategy.quantization, whole.strategy.quantization) == ("nf4", "none")
    assert plan.speed
    assert whole.speed
    ratio = plan.speed.tokens_per_second / whole.speed.tokens_per_second
    assert ratio > 1.05
    assert f"3.4 GiB in place of 13.0 GiB; {ratio:.2f} times as fast" in about(plan, "quantization")
    assert about(plan, "not packed").startswith("2.0 GiB stay as they are: embeddings")


def test_packing_that_is_no_faster_is_told_of_and_not_taken() -> None:
    plan = recommend(job(), model("Qwen/Qwen3-32B"), parse_machine("8xA100-40GB+1TB"))
    assert plan.strategy.quantization == "none"
    assert against(plan, "nf4 (").startswith("not needed: ")


@pytest.mark.parametrize("name", ["Qwen/Qwen3-32B", "meta-llama/Llama-2-70b-hf"])
@pytest.mark.parametrize("memory", ["", "+128GB", "+1TB"])
def test_two_gaming_cards_split_packed_weights_before_they_move_whole_ones_over_the_bus(
    name: str, memory: str
) -> None:
    """Answer.AI trains 34B and 70B on two RTX 4090 so, the larger with its packed weights on the host."""
    plan = recommend(job(), model(name), parse_machine(f"2x4090{memory}"))
    strategy = plan.strategy
    assert (strategy.backend, strategy.quantization) == ("fsdp", "nf4")
    assert strategy.gradient_checkpointing
    assert strategy.num_offloads == (0 if "32B" in name else 2)
    assert plan.verdict
    assert plan.verdict.word == ("fits" if memory or "32B" in name else "unknown")


def test_what_fits_only_packed_is_packed() -> None:
    pins = {"backend": "single", "gradient_checkpointing": True}
    plan = recommend(job(**pins), model("Qwen/Qwen2.5-14B"), parse_machine("1x4090"))
    assert plan.strategy.quantization == "nf4"
    assert about(plan, "quantization").endswith("; unpacked, nothing fits")
    with pytest.raises(Refused, match="nothing fits") as refusal:
        recommend(job(**pins, quantization="none"), model("Qwen/Qwen2.5-14B"), parse_machine("1x4090"))
    assert "plan.quantization auto" in (refusal.value.hint or "")


def test_fused_experts_stay_unpacked_and_their_bytes_are_named() -> None:
    plan = recommend(job(quantization="nf4"), model("Qwen/Qwen3-30B-A3B"), parse_machine("1xA100-80GB"))
    assert "54.0 GiB of it experts that are fused into one tensor" in about(plan, "not packed")


@pytest.mark.parametrize(
    ("machine", "changed", "words"),
    [
        ("2x4090", {"kind": "full", "quantization": "nf4"}, "packed weights cannot be trained"),
        ("npu", {"quantization": "nf4"}, "no kernels for Ascend"),
        ("mps", {"quantization": "int8"}, "stay on the CPU"),
        ("mlu", {"quantization": "nf4"}, "no kernels for these devices"),
        ("2x4090", {"quantization": "int8", "backend": "fsdp"}, "8-bit weights cannot be split"),
        ("2x4090", {"quantization": "int8", "backend": "zero", "zero_stage": 3}, "8-bit weights cannot"),
    ],
)
def test_what_cannot_be_packed_is_refused_with_the_reason(
    machine: str, changed: dict[str, str], words: str
) -> None:
    box = parse_machine(machine) if machine[0].isdigit() else of_kind(machine)
    for spec in (model(), None):  # also where the shape is not known
        with pytest.raises(BadInput, match=words) as refusal:
            recommend(job(**changed), spec, box)
        assert refusal.value.hint


def test_where_bitsandbytes_has_no_kernels_it_is_not_looked_at_and_the_reason_stands() -> None:
    plan = recommend(job(), model(), of_kind("npu"))
    assert plan.strategy.quantization == "none"
    assert "Ascend" in against(plan, "nf4")


def test_eight_bits_are_never_split() -> None:
    plan = recommend(job(quantization="int8"), model(), parse_machine("2x4090"))
    assert plan.strategy.quantization == "int8"
    assert not plan.strategy.splits_weights
    base = plan.strategy
    assert {way.zero_stage for way in backend("zero").strategies(base, job().plan)} == {1, 2}


def test_a_model_of_unknown_shape_is_packed_only_when_that_is_pinned() -> None:
    box = parse_machine("2x4090")
    assert recommend(job(), None, box).strategy.quantization == "none"
    plan = recommend(job(quantization="nf4"), None, box)
    assert plan.strategy.quantization == "nf4"
    assert about(plan, "quantization") == "pinned in the job"


def test_a_strategy_written_before_packing_existed_still_loads() -> None:
    plan = recommend(job(), model(), parse_machine("2x4090"))
    old = {name: value for name, value in asdict(plan.strategy).items() if name != "quantization"}
    assert Strategy(**json.loads(json.dumps(old))).quantization == "none"


@pytest.mark.parametrize(
    ("backend_name", "changed"), [("zero", {"zero_stage": 3}), ("fsdp", {}), ("ddp", {})]
)
def test_a_packed_model_is_whole_where_it_is_loaded(backend_name: str, changed: dict[str, object]) -> None:
    strategy = Strategy(
        backend=backend_name,  # type: ignore[arg-type]
        device_kind="cuda",
        num_processes=4,
        micro_batch_size=1,
        gradient_accumulation_steps=8,
        gradient_checkpointing=True,
        mixed_precision="bf16",
        quantization="nf4",
        **changed,  # type: ignore[arg-type]
    )
    found = estimate(workload_of(job(), model(), strategy))
    device = sum(t.num_bytes for t in found.terms if t.place == "device" and "load" in t.phases)
    host = sum(t.num_bytes for t in found.terms if t.place == "host" and "load" in t.phases)
    packed, rest = 3.4 * GIB, 2.0 * GIB
    if backend_name == "fsdp":  # every rank packs it in host memory, and devices get their parts
        assert device < packed
        assert host > 4 * (packed + rest)
    else:
        assert device > packed + rest
        assert host < 4 * (packed + rest)


@pytest.mark.parametrize("name", ["qlora-single", "qlora-fsdp"])
def test_the_presets_plan_on_two_small_cards(name: str) -> None:
    loaded = load_preset(name)
    plan = recommend(loaded.job, model_spec(loaded.job), parse_machine("2x4090"))
    assert plan.strategy.backend == name.partition("-")[2]
    assert plan.strategy.quantization == "nf4"
    assert plan.verdict
    assert plan.verdict.word == "fits"
