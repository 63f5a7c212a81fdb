"""A prediction learns from what comparable steps took on the same devices."""

from dataclasses import replace

import pytest

from ftwiz.engine.calibration import Calibration, past_steps
from ftwiz.engine.hardware.written import parse_machine
from ftwiz.engine.models import catalogue
from ftwiz.engine.plan import recommend
from ftwiz.engine.specs.job import Job
from ftwiz.engine.specs.speed import PastStep, Speed, TimePart
from ftwiz.engine.speed import alike, corrected


def speed(seconds: float) -> Speed:
    part = TimePart(name="matrix products", seconds=seconds, formula="", source="")
    return Speed(parts=(part,), tokens_per_step=1000, uncertainty=1.6, basis="")


def past(ratio: float, *, backend: str = "ddp", predicted: float = 1.0) -> PastStep:
    return PastStep(backend=backend, predicted_seconds=predicted, measured_seconds=predicted * ratio)


def test_the_median_counts_so_that_one_disturbed_run_does_not() -> None:
    found = corrected(speed(2.0), "ddp", [past(1.5), past(1.4), past(40.0)])
    assert found.correction
    assert (found.correction.factor, found.correction.num_runs) == (1.5, 3)
    assert found.step_seconds == 3.0
    assert found.uncorrected_seconds == 2.0
    assert found.tokens_per_second == pytest.approx(1000 / 3)
    assert found.slowest_share == 1.0


def test_runs_of_the_same_engine_count_before_those_of_others() -> None:
    both = [past(1.5), past(3.0, backend="fsdp")]
    assert corrected(speed(1.0), "fsdp", both).step_seconds == 3.0
    assert corrected(speed(1.0), "zero", both).step_seconds == 2.25, "an engine that never ran gets no bonus"


def test_nothing_is_learnt_from_nothing_nor_from_what_cannot_be() -> None:
    assert corrected(speed(1.0), "ddp", []).correction is None
    assert corrected(speed(1.0), "ddp", [past(1e6)]).step_seconds == 20.0


def test_a_toy_says_nothing_about_a_large_model() -> None:
    small, large = past(9.0, predicted=0.01), past(1.2, predicted=3.0)
    assert alike([small, large], 1.0) == (large,)


def row(**changed: object) -> Calibration:
    usual = {
        "t": 1.0, "source": "run", "outcome": "finished", "ftwiz": "0", "device_kind": "cuda",
        "device_name": "NVIDIA A100-SXM4-40GB", "device_bytes": None, "strategy": {"backend": "ddp"},
        "num_ranks": 8, "sequence_tokens": 2048, "micro_batch_size": 1, "num_steps": 20,
        "step_seconds": 3.0, "predicted_step_seconds": 2.0,
    }  # fmt: skip
    return Calibration(**(usual | changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "other",
    [
        {"outcome": "failed"},
        {"num_steps": 2},
        {"device_name": "NVIDIA H100 80GB HBM3"},
        {"device_kind": "cpu"},
        {"device_bytes": 80 << 30},
        {"predicted_step_seconds": None},
        {"step_seconds": 0.0},
    ],
)
def test_only_whole_runs_on_such_devices_are_taken(other: dict[str, object]) -> None:
    box = parse_machine("8xA100-40GB")
    assert past_steps([row(**other)], box, "cuda") == ()
    assert past_steps([row()], box, "cuda") == (
        PastStep(backend="ddp", predicted_seconds=2.0, measured_seconds=3.0),
    )


def test_a_plan_says_by_how_many_runs_it_is_corrected_and_keeps_its_winner() -> None:
    job = Job.model_validate(
        {
            "model": {"name_or_path": "m"},
            "data": {"path": "d"},
            "train": {"max_length": 2048, "global_batch_size": 32},
        }
    )
    found = catalogue.find("meta-llama/Llama-3.1-8B")
    assert found
    spec, box = catalogue.spec(found), parse_machine("8xA100-40GB+1TB")
    plain = recommend(job, spec, box)
    assert plain.speed
    steps = tuple(past(1.4, predicted=plain.speed.step_seconds * size) for size in (0.5, 1.0, 2.0))
    learnt = recommend(job, spec, box, past=steps)
    assert learnt.strategy == plain.strategy
    assert learnt.speed
    assert learnt.speed.step_seconds == pytest.approx(1.4 * plain.speed.step_seconds)
    told = next(reason.text for reason in learnt.reasons if reason.about == "speed")
    assert "corrected by 3 runs here, which took 1.40 times what was predicted" in told
    other = replace(steps[0], predicted_seconds=1e4)
    assert recommend(job, spec, box, past=(other,)).speed == plain.speed
