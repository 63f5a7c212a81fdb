"""What holds for every plan: bounds change no winner, a fit is one, more devices are not slower."""

import pytest

from ftwiz.engine.errors import Refused
from ftwiz.engine.hardware.written import parse_machine
from ftwiz.engine.models import catalogue
from ftwiz.engine.plan import fitted, recommend
from ftwiz.engine.plan.search import NEAR, Option, Ranking, search
from ftwiz.engine.specs.job import Job
from ftwiz.engine.specs.model import ModelSpec
from ftwiz.engine.specs.plan import Plan

pytestmark = pytest.mark.timeout(240)
MODELS = ("Qwen/Qwen3-0.6B", "meta-llama/Llama-3.1-8B", "Qwen/Qwen3-32B", "Qwen/Qwen3-30B-A3B")
MACHINES = (
    "1x3060+32GB",
    "2x4090+128GB",
    "4xA10G+192GB",
    "8xA100-40GB+1100GB",
    "2 nodes x 8xH100+2TB",
    "8xA100-40GB",
    "16cpu+64GB",
)
FASTER = 1.05
"""A box with more devices may be predicted as much slower: the global batch splits less well over them."""


def model(name: str) -> ModelSpec:
    found = catalogue.find(name)
    assert found
    return catalogue.spec(found)


def job(kind: str, batch: int = 32, length: int = 2048, **pins: object) -> Job:
    return Job.model_validate(
        {
            "model": {"name_or_path": "m"},
            "data": {"path": "d.jsonl"},
            "method": {"kind": kind},
            "train": {"max_length": length, "global_batch_size": batch},
            "plan": pins,
        }
    )


def planned(wanted: Job, name: str, machine: str) -> Plan | None:
    try:
        return recommend(wanted, model(name), parse_machine(machine))
    except Refused:
        return None


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_leaving_out_by_bounds_changes_no_winner(
    name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the machines and a short and a long job: 4 x 2 x 7 pairs, of which the half once more, longer."""
    rankings: list[tuple[Ranking, Ranking]] = []

    def both(question: object, ways: object) -> Ranking:
        given = list(ways)  # type: ignore[call-overload]
        short = search(question, given)  # type: ignore[arg-type]
        rankings.append((short, search(question, given, exhaustive=True)))  # type: ignore[arg-type]
        return short

    monkeypatch.setattr(fitted, "search", both)
    monkeypatch.setattr(fitted.advice, "what_would_fit", lambda *_: "")
    for number, machine in enumerate(MACHINES):
        planned(job(kind), name, machine)
        if number % 2:
            planned(job(kind, batch=8, length=8192), name, machine)
    assert len(rankings) >= len(MACHINES)
    for short, long in rankings:
        assert first(short) == first(long)
        seen = [one.strategy for one in (*short.fitting, *short.failing)]
        assert len(seen) + len(short.slower) == len(long.fitting) + len(long.failing)
        assert all(one.estimate.process_bytes > 0 for one in short.failing)


def first(ranking: Ranking) -> object:
    best: Option | None = ranking.fitting[0] if ranking.fitting else None
    if best is not None:
        return best.strategy, best.verdict.word, best.pace
    return [(one.strategy, one.verdict.word) for one in ranking.failing]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_what_fits_leaves_its_margin_free_on_the_device_and_on_the_host(machine: str, kind: str) -> None:
    for name in MODELS:
        plan = planned(job(kind), name, machine)
        if plan is None or plan.verdict is None or plan.estimate is None or plan.verdict.word != "fits":
            continue
        assert plan.strategy.global_batch_size == 32
        margin = 1 + plan.estimate.uncertainty
        assert plan.verdict.free_bytes is not None
        assert plan.estimate.process_bytes * margin <= plan.verdict.free_bytes + 1
        host = parse_machine(machine).host.total_bytes
        if host is not None and plan.strategy.device_kind != "cpu":
            assert plan.estimate.host_bytes * margin <= host


def test_offloading_is_never_said_to_fit_where_the_host_is_not_known() -> None:
    for name in MODELS:
        for machine in ("1x3060", "2x4090", "8xA100-40GB"):
            plan = planned(job("full"), name, machine)
            if plan and plan.verdict and plan.strategy.num_offloads:
                assert plan.verdict.word in {"unknown", "tight"}


def test_ddp_is_taken_where_sharding_brings_next_to_nothing() -> None:
    for machine in ("2x4090+128GB", "4xA10G+192GB", "8xA100-40GB+1100GB"):
        for kind in ("lora", "full"):
            plan = planned(job(kind), "Qwen/Qwen3-0.6B", machine)
            assert plan
            assert plan.strategy.backend == "ddp"


def test_the_winner_is_as_good_as_the_best_within_what_counts_as_equal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Ranking] = []
    monkeypatch.setattr(fitted, "search", lambda *given: seen.append(search(*given)) or seen[-1])
    for name in MODELS:
        planned(job("lora"), name, "8xA100-40GB+1100GB")
    assert len(seen) == len(MODELS)
    for ranking in seen:
        best = max(option.merit for option in ranking.fitting)
        assert ranking.fitting[0].merit >= (1 - NEAR) * best


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize(
    "boxes",
    [
        ("1xH100+1TB", "2xH100+1TB", "4xH100+1TB", "8xH100+1TB", "2 nodes x 8xH100+1TB"),
        ("1x4090+256GB", "2x4090+256GB", "4x4090+256GB", "8x4090+256GB"),
    ],
)
def test_more_devices_never_train_slower(boxes: tuple[str, ...], kind: str) -> None:
    for name in ("Qwen/Qwen3-0.6B", "meta-llama/Llama-3.1-8B"):
        pace = 0.0
        for box in boxes:
            plan = planned(job(kind, batch=64), name, box)
            if plan is None:
                assert pace == 0.0, f"{box} does not fit what a smaller box did"
                continue
            assert plan.speed
            assert plan.speed.tokens_per_second * FASTER >= pace, f"{name} {kind} on {box}"
            pace = plan.speed.tokens_per_second


def test_packing_is_never_planned_for_ascend_nor_unasked_for_a_cpu_that_has_room() -> None:
    for name in MODELS:
        plan = planned(job("lora"), name, "8xAscend 910B3+1500GB")
        assert plan
        assert plan.strategy.quantization == "none"
    plan = planned(job("lora"), "Qwen/Qwen3-0.6B", "16cpu+64GB")
    assert plan
    assert plan.strategy.quantization == "none"


def test_a_host_that_is_too_small_is_told_and_how_large_it_should_be() -> None:
    with pytest.raises(Refused, match="and its host needs") as refusal:
        recommend(job("full"), model("meta-llama/Llama-3.1-70B"), parse_machine("8xA100-40GB+1100GB"))
    assert "2048 GiB of host memory" in (refusal.value.hint or "")


def test_the_other_node_is_left_alone_where_the_network_would_slow_training_down() -> None:
    plan = planned(job("full"), "meta-llama/Llama-3.1-8B", "2 nodes x 8xH100+2TB")
    assert plan
    assert (plan.strategy.num_processes, plan.strategy.num_nodes) == (8, 1)
    reason = next(one.text for one in plan.reasons if one.about == "num_processes")
    assert "times as fast as all of them, which would talk over the network" in reason


def test_every_way_is_told_of_once_with_what_speaks_against_it() -> None:
    plan = planned(job("lora"), "Qwen/Qwen3-32B", "2x4090+128GB")
    assert plan
    told = [name for one in plan.rejected for name in one.choice.split("; ")]
    assert len(told) == len(set(told))
    assert {"single", "ddp", "zero3", "fsdp", "zero3, weights on cpu", "ddp, nf4"} <= set(told)
    assert all(any(word in one.text for word in ("GiB", "times", "fast", "needed")) for one in plan.rejected)


def test_a_plan_that_can_do_without_the_host_does() -> None:
    plan = planned(job("lora"), "meta-llama/Llama-3.1-8B", "1x3060+64GB")
    assert plan
    assert plan.strategy.num_offloads == 0
    assert plan.speed
    assert plan.speed.careful_seconds == pytest.approx(plan.speed.step_seconds)
    offloads = planned(job("full"), "meta-llama/Llama-3.1-8B", "1xH100+256GB")
    assert offloads
    assert offloads.strategy.num_offloads
    assert offloads.speed
    assert offloads.speed.careful_seconds > offloads.speed.step_seconds
