"""Decisions of the planner on machines written down here."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftwiz.engine.errors import BadInput, Refused
from ftwiz.engine.plan import MICRO_BATCH_TOKENS, recommend
from ftwiz.engine.specs.job import Job
from ftwiz.engine.specs.machine import Device, Host, Machine
from ftwiz.engine.specs.model import ModelSpec
from ftwiz.engine.specs.plan import Plan

HOST = Host(name="box", num_cpus=8)
LAPTOP = Machine(host=HOST)


def gpus(count: int, *, bf16: bool | None = True) -> Machine:
    devices = tuple(Device(kind="cuda", index=i, name="A100", supports_bf16=bf16) for i in range(count))
    return Machine(host=HOST, devices=devices)


def job(**sections: object) -> Job:
    return Job.model_validate({"model": {"name_or_path": "m"}, "data": {"path": "d.jsonl"}, **sections})


def about(plan: Plan, field: str) -> str:
    return next(reason.text for reason in plan.reasons if reason.about == field)


def test_a_box_without_accelerators_trains_in_one_process_in_float32() -> None:
    plan = recommend(job(), None, LAPTOP)
    strategy = plan.strategy
    assert (strategy.backend, strategy.device_kind, strategy.num_processes) == ("single", "cpu", 1)
    assert (strategy.mixed_precision, strategy.gradient_checkpointing) == ("no", False)


def test_four_gpus_train_data_parallel_and_the_loser_has_its_reason() -> None:
    plan = recommend(job(), None, gpus(4))
    assert (plan.strategy.backend, plan.strategy.num_processes) == ("ddp", 4)
    assert plan.strategy.mixed_precision == "bf16"
    assert [(rejected.choice, rejected.text) for rejected in plan.rejected] == [
        ("single", "would use 1 of 4 devices")
    ]


def test_one_gpu_rejects_ddp_with_a_source() -> None:
    plan = recommend(job(), None, gpus(1))
    assert plan.strategy.backend == "single"
    assert [rejected.choice for rejected in plan.rejected] == ["ddp"]
    assert plan.rejected[0].source


def test_devices_that_cannot_do_bfloat16_train_in_float16() -> None:
    assert recommend(job(), None, gpus(2, bf16=False)).strategy.mixed_precision == "fp16"


def test_an_unknown_capability_is_not_guessed() -> None:
    plan = recommend(job(), None, gpus(2, bf16=None))
    assert plan.strategy.mixed_precision == "no"
    assert "does not say" in about(plan, "mixed_precision")


def test_fewer_ranks_are_used_when_the_global_batch_does_not_split() -> None:
    plan = recommend(job(train={"global_batch_size": 6}), None, gpus(4))
    assert plan.strategy.num_processes == 3
    assert "3 of 4 devices" in about(plan, "num_processes")


def test_a_long_sequence_gets_a_small_micro_batch_and_the_same_global_batch() -> None:
    strategy = recommend(job(train={"global_batch_size": 32, "max_length": 4096}), None, gpus(1)).strategy
    assert (strategy.micro_batch_size, strategy.gradient_accumulation_steps) == (2, 16)


def test_a_sequence_longer_than_the_model_is_said() -> None:
    model = ModelSpec(model_type="llama", max_position_embeddings=512)
    assert "512" in about(recommend(job(), model, LAPTOP), "max_length")


@given(
    batch=st.integers(1, 4096),
    length=st.integers(8, 200_000),
    count=st.integers(0, 16),
)
def test_the_global_batch_is_always_the_users(batch: int, length: int, count: int) -> None:
    wanted = job(train={"global_batch_size": batch, "max_length": length})
    plan = recommend(wanted, None, gpus(count))
    strategy = plan.strategy
    assert strategy.global_batch_size == batch
    assert strategy.num_processes <= max(1, count)
    assert strategy.micro_batch_size == 1 or strategy.micro_batch_size * length <= MICRO_BATCH_TOKENS
    assert {"backend", "num_processes", "micro_batch_size"} <= {reason.about for reason in plan.reasons}


@pytest.mark.parametrize(
    ("pins", "machine", "part"),
    [
        ({"backend": "single", "num_processes": 2}, LAPTOP, "single is one process"),
        ({"backend": "ddp", "num_processes": 1}, LAPTOP, "two ranks or more"),
        ({"backend": "ddp"}, gpus(1), "a device per rank"),
        ({"num_processes": 3}, LAPTOP, "cannot be split over 3 ranks"),
        ({"micro_batch_size": 5}, LAPTOP, "does not divide"),
        ({"mixed_precision": "fp16"}, LAPTOP, "fp16"),
    ],
)
def test_pins_that_cannot_be_combined_are_bad_input(
    pins: dict[str, object], machine: Machine, part: str
) -> None:
    with pytest.raises(BadInput, match=part) as caught:
        recommend(job(plan=pins), None, machine)
    assert caught.value.hint


@pytest.mark.parametrize("pins", [{"device": "cuda"}, {"device": "npu"}])
def test_a_device_that_is_not_there_is_refused(pins: dict[str, object]) -> None:
    with pytest.raises(Refused, match="no such device"):
        recommend(job(plan=pins), None, LAPTOP)


def test_more_ranks_than_devices_are_refused() -> None:
    with pytest.raises(Refused, match="there are 2 devices"):
        recommend(job(plan={"num_processes": 4}), None, gpus(2))


def test_the_cpu_can_be_pinned_on_a_gpu_box_and_gloo_ranks_on_a_laptop() -> None:
    assert recommend(job(plan={"device": "cpu"}), None, gpus(2)).strategy.device_kind == "cpu"
    strategy = recommend(job(plan={"backend": "ddp"}), None, LAPTOP).strategy
    assert (strategy.backend, strategy.num_processes, strategy.micro_batch_size) == ("ddp", 2, 8)


def test_lost_cards_and_cards_in_slices_are_left_out() -> None:
    split = Device(kind="cuda", index=0, name="A100", partitioned=True, supports_bf16=True)
    slices = tuple(
        Device(kind="cuda", index=i, name="A100", partition="1g.10gb", supports_bf16=True) for i in range(2)
    )
    plan = recommend(job(), None, Machine(host=HOST, devices=(split, *slices)))
    assert plan.strategy.backend == "single"
    assert "slice" in plan.rejected[0].text
    lost = Device(kind="cuda", index=0, name="A100", is_lost=True)
    assert (
        recommend(job(), None, Machine(host=HOST, devices=(lost, *gpus(3).devices))).strategy.num_processes
        == 2
    )
    with pytest.raises(Refused, match="none of the cuda devices"):
        recommend(job(), None, Machine(host=HOST, devices=(lost,)))


def test_fewer_ranks_than_cards_take_those_with_the_most_free_memory() -> None:
    free = (10, 70, 60, 80)
    cards = tuple(
        Device(kind="cuda", vendor="nvidia", index=i, uuid=f"GPU-{i}", name="A100", free_bytes=room)
        for i, room in enumerate(free)
    )
    machine = Machine(host=HOST, devices=cards)
    plan = recommend(job(plan={"num_processes": 2}), None, machine)
    assert plan.device_indices == (1, 3)
    assert plan.environment["CUDA_VISIBLE_DEVICES"] == "GPU-1,GPU-3"
    assert "most free memory" in about(plan, "devices")
    one = recommend(job(plan={"backend": "single"}), None, machine)
    assert one.environment["CUDA_VISIBLE_DEVICES"] == "GPU-3"
    assert recommend(job(), None, machine).device_indices == (0, 1, 2, 3)


def test_devices_that_cannot_be_shown_alone_are_taken_in_order() -> None:
    cards = tuple(
        Device(kind="xpu", vendor="intel", index=i, name="Max 1550", free_bytes=i) for i in range(3)
    )
    plan = recommend(job(plan={"backend": "single"}), None, Machine(host=HOST, devices=cards))
    assert (plan.device_indices, plan.environment) == ((0,), {})
    assert about(plan, "devices") == "the first 1 of 3"
