"""Plans of models whose shape is known: what fits is taken, with the numbers that say why."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftwiz.engine.errors import BadInput, Refused
from ftwiz.engine.hardware.written import parse_machine
from ftwiz.engine.models import catalogue
from ftwiz.engine.plan import recommend
from ftwiz.engine.specs.job import Job
from ftwiz.engine.specs.machine import Machine
from ftwiz.engine.specs.model import ModelSpec
from ftwiz.engine.specs.plan import Plan

pytestmark = pytest.mark.timeout(120)


def model(name: str = "meta-llama/Llama-3.1-8B") -> ModelSpec:
    found = catalogue.find(name)
    assert found
    return catalogue.spec(found)


def job(**sections: object) -> Job:
    return Job.model_validate({"model": {"name_or_path": "m"}, "data": {"path": "d.jsonl"}, **sections})


def about(plan: Plan, field: str) -> str:
    return next(reason.text for reason in plan.reasons if reason.about == field)


def against(plan: Plan, name: str) -> str:
    return next(one.text for one in plan.rejected if name in one.choice.split("; "))


FULL = {"method": {"kind": "full"}, "train": {"max_length": 2048, "global_batch_size": 32}}
LORA = {"train": {"max_length": 2048, "global_batch_size": 32}}


def test_a_small_adapter_on_large_cards_needs_no_sharding_and_no_checkpointing() -> None:
    plan = recommend(job(**LORA), model(), parse_machine("8xA100-80GB"))
    assert (plan.strategy.backend, plan.strategy.num_processes) == ("ddp", 8)
    assert not plan.strategy.gradient_checkpointing
    assert plan.verdict
    assert plan.verdict.word == "fits"
    assert "times slower" in against(plan, "single")
    assert "as fast" in against(plan, "fsdp")


def test_full_training_is_sharded_because_a_copy_does_not_fit() -> None:
    plan = recommend(job(**FULL), model(), parse_machine("8xA100-80GB"))
    assert plan.strategy.backend in {"zero", "fsdp"}
    assert plan.strategy.num_shards == 8
    assert "does not fit" in against(plan, "ddp")
    assert "GiB" in about(plan, "memory")
    assert plan.speed
    assert f"{plan.speed.tokens_per_second:,.0f}" in about(plan, "speed")


def test_one_small_card_gets_offload_and_the_host_s_share_is_told() -> None:
    plan = recommend(job(**FULL), model(), parse_machine("1x4090"))
    assert plan.strategy.backend == "zero"
    assert plan.strategy.offload_optimizer == "cpu"
    assert "GiB" in about(plan, "host memory")


def test_what_is_pinned_stays() -> None:
    pins = {"backend": "fsdp", "micro_batch_size": 2, "gradient_checkpointing": True, "num_processes": 4}
    plan = recommend(job(**LORA, plan=pins), model(), parse_machine("8xA100-80GB"))
    strategy = plan.strategy
    assert (strategy.backend, strategy.num_processes, strategy.micro_batch_size) == ("fsdp", 4, 2)
    assert strategy.gradient_checkpointing
    assert about(plan, "micro_batch_size").endswith("pinned in the job")


def test_nothing_fits_is_one_line_with_what_would() -> None:
    big = model("meta-llama/Llama-2-70b-hf")
    with pytest.raises(Refused, match=r"nothing fits: .* GiB") as refusal:
        recommend(job(**FULL, plan={"backend": "ddp"}), big, parse_machine("2x4090+4TB"))
    assert refusal.value.exit_code == 3
    hint = refusal.value.hint or ""
    assert hint.startswith("it would fit with ")
    assert "method.kind lora" not in hint, "70B in bfloat16 does not fit a 24 GB card either"


def test_the_estimate_can_be_overruled_and_the_plan_says_so() -> None:
    pins = {"backend": "single", "ignore_estimate": True}
    plan = recommend(job(**FULL, plan=pins), model(), parse_machine("1x4090"))
    assert plan.verdict
    assert plan.verdict.word == "no"
    assert about(plan, "memory").startswith("does not fit, and is planned all the same")


def test_pins_that_are_in_the_way_are_named() -> None:
    with pytest.raises(Refused) as refusal:
        recommend(job(**FULL, plan={"backend": "single"}), model(), parse_machine("8xA100-80GB"))
    assert "plan.backend auto" in (refusal.value.hint or "")


def test_a_micro_batch_that_divides_nothing_is_refused() -> None:
    with pytest.raises(BadInput, match="does not divide"):
        recommend(job(**LORA, plan={"micro_batch_size": 5}), model(), parse_machine("1xA100-80GB"))


@pytest.mark.parametrize(
    ("pins", "words"),
    [
        ({"micro_batch_size": 8}, "does not divide the 4 sequences of a rank"),
        ({"backend": "fsdp", "shard_size": 3}, "does not divide the 8 ranks"),
    ],
)
def test_pinned_sizes_that_do_not_come_out_even_are_refused(pins: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        recommend(job(**LORA, plan=pins), model(), parse_machine("8xA100-80GB"))


def test_memory_that_is_in_use_now_counts() -> None:
    from dataclasses import replace

    box = parse_machine("1xA100-80GB")
    busy = replace(box, devices=tuple(replace(device, free_bytes=30 << 30) for device in box.devices))
    free, full = (recommend(job(**LORA), model(), one) for one in (box, busy))
    assert free.strategy.micro_batch_size > full.strategy.micro_batch_size or (
        full.strategy.gradient_checkpointing and not free.strategy.gradient_checkpointing
    )
    assert full.verdict
    assert full.verdict.free_bytes == 30 << 30


@settings(max_examples=40, deadline=None)
@given(
    spec=st.sampled_from(["1x3060+64GB", "2x4090+128GB", "4xA100-40GB+1TB", "8xH100+2TB"]),
    kind=st.sampled_from(["lora", "full"]),
    length=st.sampled_from([256, 2048, 16384]),
    batch=st.sampled_from([1, 6, 8, 64]),
    name=st.sampled_from(["Qwen/Qwen2.5-0.5B", "meta-llama/Llama-3.1-8B", "Qwen/Qwen3-30B-A3B"]),
)
def test_a_plan_keeps_the_global_batch_and_fits_or_says_that_it_may_not(
    spec: str, kind: str, length: int, batch: int, name: str
) -> None:
    wanted = job(method={"kind": kind}, train={"max_length": length, "global_batch_size": batch})
    box: Machine = parse_machine(spec)
    try:
        plan = recommend(wanted, model(name), box)
    except Refused:
        assert kind == "full" or name != "Qwen/Qwen2.5-0.5B" or length > 2048, "a small adapter fits anywhere"
        return
    assert plan.strategy.global_batch_size == batch
    assert plan.verdict
    assert plan.verdict.word in {"fits", "tight"}
    assert plan.estimate
    if plan.verdict.word == "fits":
        assert plan.estimate.process_bytes < (plan.verdict.free_bytes or 0)
    assert all(one.text and one.choice for one in plan.rejected)
    assert len({reason.text for reason in plan.reasons}) == len(plan.reasons)
