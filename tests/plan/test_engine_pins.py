"""What a user may pin of ZeRO and FSDP, what the plan makes of it, and what is refused in one line."""

import pytest

from ftwiz.engine.backends import BACKENDS
from ftwiz.engine.errors import BadInput
from ftwiz.engine.plan import recommend
from ftwiz.engine.specs.job import Job
from ftwiz.engine.specs.machine import Device, Host, Machine
from ftwiz.engine.specs.plan import Plan

HOST = Host(name="box", num_cpus=8)
LAPTOP = Machine(host=HOST)


def gpus(count: int, **facts: object) -> Machine:
    fields: dict[str, object] = {"kind": "cuda", "name": "A100", "supports_bf16": True} | facts
    devices = tuple(Device(index=i, **fields) for i in range(count))  # type: ignore[arg-type]
    return Machine(host=HOST, devices=devices)


def planned(machine: Machine, **pins: object) -> Plan:
    sections = {"model": {"name_or_path": "m"}, "data": {"path": "d.jsonl"}, "plan": pins}
    return recommend(Job.model_validate(sections), None, machine)


def sharding(plan: Plan) -> str:
    return next(reason.text for reason in plan.reasons if reason.about == "sharding")


def test_zero_without_a_stage_takes_the_one_that_splits_most_and_says_so() -> None:
    plan = planned(gpus(4), backend="zero")
    assert (plan.strategy.backend, plan.strategy.zero_stage, plan.strategy.num_shards) == ("zero", 3, 4)
    assert (plan.strategy.offload_optimizer, plan.strategy.offload_parameters) == ("none", "none")
    assert "careful" in sharding(plan)
    assert "ZeRO-3 splits optimizer states, gradients and weights" in sharding(plan)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_pinned_stage_is_taken(stage: int) -> None:
    strategy = planned(gpus(4), backend="zero", zero_stage=stage).strategy
    assert strategy.zero_stage == stage
    assert strategy.num_shards == (1 if stage == 0 else 4)


def test_one_card_can_offload_with_zero() -> None:
    pins = {"offload_optimizer": "cpu", "offload_parameters": "cpu"}
    plan = planned(gpus(1), backend="zero", **pins)
    assert (plan.strategy.num_processes, plan.strategy.zero_stage) == (1, 3)
    assert "offloaded to cpu" in sharding(plan)


def test_nvme_goes_where_the_user_says() -> None:
    strategy = planned(gpus(2), backend="zero", offload_optimizer="nvme", nvme_path="/mnt/a").strategy
    assert (strategy.zero_stage, strategy.offload_optimizer, strategy.nvme_path) == (3, "nvme", "/mnt/a")


def test_fsdp_drops_what_it_gathered_unless_told_otherwise() -> None:
    assert planned(gpus(4), backend="fsdp").strategy.reshard_after_forward
    kept = planned(gpus(4), backend="fsdp", reshard_after_forward=False)
    assert not kept.strategy.reshard_after_forward
    assert "kept for the backward" in sharding(kept)


def test_fsdp_can_keep_a_copy_on_every_group() -> None:
    strategy = planned(gpus(8), backend="fsdp", shard_size=4).strategy
    assert (strategy.num_processes, strategy.shard_size, strategy.num_shards) == (8, 4, 4)


def test_fsdp_offloads_weights_and_optimizer_together() -> None:
    strategy = planned(gpus(2), backend="fsdp", offload_parameters="cpu").strategy
    assert (strategy.offload_parameters, strategy.offload_optimizer) == ("cpu", "cpu")


@pytest.mark.parametrize("name", ["zero", "fsdp"])
def test_ranks_on_the_cpu_split_too(name: str) -> None:
    strategy = planned(LAPTOP, backend=name).strategy
    assert (strategy.device_kind, strategy.num_processes, strategy.mixed_precision) == ("cpu", 2, "no")


def test_nothing_that_splits_is_chosen_unasked() -> None:
    for machine in (LAPTOP, gpus(1), gpus(8)):
        plan = planned(machine)
        assert plan.strategy.backend in {"single", "ddp"}
        assert not {"zero", "fsdp"} & {rejected.choice for rejected in plan.rejected}


@pytest.mark.parametrize(
    ("pins", "machine", "part"),
    [
        ({"zero_stage": 2}, gpus(4), "plan.zero_stage is for plan.backend zero, and plan.backend is auto"),
        ({"backend": "ddp", "zero_stage": 2}, gpus(4), "plan.zero_stage is for plan.backend zero"),
        ({"backend": "fsdp", "zero_stage": 2}, gpus(4), "plan.zero_stage is for plan.backend zero"),
        ({"backend": "zero", "reshard_after_forward": True}, gpus(4), "is for plan.backend fsdp"),
        ({"offload_parameters": "cpu"}, gpus(4), "is for plan.backend zero or fsdp"),
        ({"backend": "zero", "zero_stage": 2, "offload_parameters": "cpu"}, gpus(4), "zero_stage 3"),
        ({"backend": "zero", "zero_stage": 0, "offload_optimizer": "cpu"}, gpus(4), "splits nothing"),
        (
            {"backend": "zero", "zero_stage": 2, "offload_optimizer": "nvme"},
            gpus(4),
            "only plan.zero_stage 3",
        ),
        ({"backend": "zero", "offload_optimizer": "nvme"}, gpus(4), "needs plan.nvme_path"),
        ({"backend": "zero", "nvme_path": "/mnt/a"}, gpus(4), "nothing is offloaded"),
        ({"backend": "zero", "mixed_precision": "bf16"}, LAPTOP, "float32 only"),
        ({"backend": "zero"}, gpus(2, partition="1g.10gb"), "whole devices"),
        ({"backend": "zero"}, gpus(1, kind="mps"), "Apple"),
        ({"backend": "fsdp"}, gpus(1, kind="mps"), "Apple"),
        ({"backend": "zero", "offload_optimizer": "cpu"}, gpus(2, unified_memory=True), "share one memory"),
        ({"backend": "fsdp", "offload_parameters": "nvme"}, gpus(4), "host memory only"),
        (
            {"backend": "fsdp", "offload_parameters": "cpu", "offload_optimizer": "none"},
            gpus(4),
            "together",
        ),
        ({"backend": "fsdp", "shard_size": 1}, gpus(4), "splits nothing"),
        ({"backend": "fsdp", "shard_size": 3}, gpus(4), "does not divide the 4 ranks"),
    ],
)
def test_pins_of_engines_that_cannot_be_combined_are_bad_input(
    pins: dict[str, object], machine: Machine, part: str
) -> None:
    with pytest.raises(BadInput, match=part) as caught:
        planned(machine, **pins)
    assert caught.value.hint
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("name", ["zero", "fsdp"])
def test_adafactor_is_refused_where_weights_are_split(name: str) -> None:
    sections = {
        "model": {"name_or_path": "m"},
        "data": {"path": "d.jsonl"},
        "train": {"optim": "adafactor"},
        "plan": {"backend": name},
    }
    with pytest.raises(BadInput, match="adamw_torch"):
        recommend(Job.model_validate(sections), None, gpus(2))


def test_whatever_the_rules_let_through_has_a_way() -> None:
    places = ("auto", "none", "cpu", "nvme")
    for engine in BACKENDS:
        for stage in ("auto", 0, 1, 2, 3):
            for optimizer in places:
                for weights in places:
                    pins = {"backend": engine.NAME, "zero_stage": stage, "offload_optimizer": optimizer}
                    uses_nvme = "nvme" in {optimizer, weights}
                    path = {"nvme_path": "/mnt/a"} if uses_nvme else {}
                    try:
                        plan = planned(gpus(2), offload_parameters=weights, **pins, **path)
                    except BadInput as refused:
                        assert refused.hint  # noqa: PT017 - either is right, and both are looked at
                    else:
                        assert plan.strategy.backend == engine.NAME
