"""What was measured here before stands in place of what is modelled: points, and the doors that ask."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ftwiz.cli.estimate import Options, answer
from ftwiz.cli.estimate import estimate as command
from ftwiz.engine.calibration import Calibration, Usage, append_calibration, workload_key
from ftwiz.engine.known import Known, known_of, point_estimate
from ftwiz.engine.memory import estimate
from ftwiz.engine.models import catalogue
from ftwiz.engine.plan import recommend
from ftwiz.engine.specs.job import Job
from ftwiz.engine.specs.machine import Device, Host, Machine
from ftwiz.engine.specs.model import ModelSpec
from ftwiz.engine.specs.workload import Adapter, Workload

GIB = 1 << 30
HOST = Host(name="box", num_cpus=8, total_bytes=99 * GIB, available_bytes=90 * GIB, cpu_name="cpu")
CARD = Device(
    kind="cuda", index=0, name="NVIDIA H200", vendor="nvidia", total_bytes=140 * GIB, free_bytes=139 * GIB,
    supports_bf16=True,
)  # fmt: skip
BOX = Machine(host=HOST, devices=(CARD,))
MODEL = "Qwen/Qwen3-0.6B"


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    found = catalogue.find(MODEL)
    assert found is not None
    return catalogue.spec(found)


@pytest.fixture
def workload(spec: ModelSpec) -> Workload:
    return Workload(model=spec, sequence_tokens=1024, adapter=Adapter(rank=16), device_name=CARD.name)


def measured(workload: Workload, tokens: int, allocated: int, **changes: Any) -> Calibration:
    """A run on the card whose process took 1 GiB more than its tensors, half of it kept by the allocator."""
    peak = Usage(
        allocated_bytes=allocated, reserved_bytes=allocated + GIB // 2, process_bytes=allocated + GIB
    )
    fields: dict[str, Any] = {
        "t": 1.0, "source": "run", "outcome": "finished", "ftwiz": "0", "device_kind": "cuda",
        "device_name": CARD.name, "device_bytes": CARD.total_bytes, "num_ranks": 1, "steps": peak,
        "key": workload_key(workload), "sequence_tokens": tokens, "micro_batch_size": 1,
        "batch_tokens": tokens,
    }  # fmt: skip
    return Calibration(**fields | changes)


def test_a_run_of_the_same_tokens_is_what_is_said(workload: Workload) -> None:
    modelled = estimate(workload)
    found = point_estimate(workload, [measured(workload, 1024, 7 * GIB)], modelled)
    assert found is not None
    assert found.tier == "probe"
    assert (found.allocated_bytes, found.reserved_bytes) == (7 * GIB, 7 * GIB + GIB // 2)
    assert found.process_bytes == 8 * GIB
    assert found.uncertainty < modelled.uncertainty / 3
    assert found.basis == "a run on NVIDIA H200, 1970-01-01, at 1,024 tokens"
    assert found.host_bytes == modelled.host_bytes


def test_other_tokens_are_counted_on_from_the_nearest_measurement(workload: Workload) -> None:
    """The model says how much more they take; its doubt is of that difference alone."""
    longer = replace(workload, sequence_tokens=3072)
    modelled, there = estimate(longer), estimate(workload)
    rows = [measured(workload, 1024, 7 * GIB), measured(workload, 128, 5 * GIB)]
    found = point_estimate(longer, rows, modelled)
    assert found is not None
    more = modelled.allocated_bytes - there.allocated_bytes
    assert found.allocated_bytes == 7 * GIB + more
    assert 0.025 < found.uncertainty < modelled.uncertainty
    assert "Measured at 1,024 tokens" in found.notes[0]


@pytest.mark.parametrize(
    "changes", [{"outcome": "failed"}, {"steps": None}, {"steps": Usage(host_bytes=5)}, {"steps": Usage()}]
)
def test_what_says_nothing_of_a_peak_is_passed_over(workload: Workload, changes: dict[str, Any]) -> None:
    rows = [measured(workload, 1024, 7 * GIB, **changes)]
    assert point_estimate(workload, rows, estimate(workload)) is None
    on_cpu = replace(workload, device_kind="cpu")
    assert point_estimate(on_cpu, [measured(on_cpu, 1024, GIB)], estimate(on_cpu)) is None


def test_only_the_same_workload_on_the_same_card_counts(workload: Workload, tmp_path: Path) -> None:
    append_calibration(tmp_path / "calibration.jsonl", measured(workload, 1024, 7 * GIB))
    environ = {"FTWIZ_HOME": str(tmp_path)}
    known = known_of(environ, BOX)
    assert known(workload, estimate(workload)) is not None
    other = replace(workload, checkpointing="none")
    assert known(other, estimate(other)) is None
    elsewhere = known_of(environ, replace(BOX, devices=(replace(CARD, name="NVIDIA A100"),)))
    assert elsewhere(workload, estimate(workload)) is None
    assert Known(environ={"FTWIZ_HOME": str(tmp_path / "none")}, device_kind="cuda", device_name=None,
                 device_bytes=None)(workload, estimate(workload)) is None  # fmt: skip


def test_a_plan_goes_by_what_was_measured(spec: ModelSpec, make_plan_job: Job) -> None:
    """A card that the estimate finds large enough is too small, as a run has shown."""
    asked: list[Workload] = []

    def known(workload: Workload, modelled: Any) -> Any:
        asked.append(workload)
        tokens = workload.tokens
        return point_estimate(workload, [measured(workload, tokens, (20 * tokens) << 20)], modelled)

    box = replace(BOX, devices=(replace(CARD, total_bytes=24 * GIB, free_bytes=24 * GIB),))
    plain, informed = recommend(make_plan_job, spec, box), recommend(make_plan_job, spec, box, measured=known)
    assert asked
    assert informed.strategy.micro_batch_size < plain.strategy.micro_batch_size
    assert informed.estimate is not None
    assert informed.estimate.tier == "probe"
    reasons = {reason.about: reason for reason in informed.reasons}
    assert reasons["memory"].source is not None
    assert reasons["memory"].source.startswith("a run on NVIDIA H200")


@pytest.fixture
def make_plan_job() -> Job:
    return Job.model_validate({
        "version": 1, "model": {"name_or_path": MODEL}, "data": {"path": "d.jsonl"},
        "method": {"kind": "lora"}, "train": {"max_length": 1024, "global_batch_size": 16},
    })  # fmt: skip


def test_the_command_says_that_it_was_measured_here(
    tmp_path: Path, home: Path, run_ftwiz: Callable[..., Any]
) -> None:
    machine = tmp_path / "machine.json"
    machine.write_text(run_ftwiz("devices", "--machine", "1xH200+99GB", "--json").stdout, encoding="utf8")
    options = Options(**command.make_context("estimate", [MODEL, "--machine", str(machine)]).params)
    before = answer(options)
    assert before.estimate.tier == "fast"
    target = before.target
    row = measured(before.workload, 1024, 7 * GIB, device_name=target.name, device_bytes=target.total_bytes)
    append_calibration(home / "calibration.jsonl", row)
    done = run_ftwiz("estimate", MODEL, "--machine", machine, "--json")
    assert json.loads(done.stdout)["estimate"]["tier"] == "probe", done.stderr
    shown = run_ftwiz("estimate", MODEL, "--machine", machine).stdout
    assert "measured here, within 3 %" in " ".join(shown.split()) or "within 2 %" in shown
