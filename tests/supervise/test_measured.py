"""What a run leaves in calibration.jsonl: from a written folder, and from real runs that end in every way."""

import json
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine.calibration import Usage, read_calibrations
from ftwiz.engine.hardware.written import parse_machine
from ftwiz.engine.job import model_spec
from ftwiz.engine.memory import estimate
from ftwiz.engine.plan import recommend
from ftwiz.engine.rundir import RunFolder, create, list_runs
from ftwiz.engine.specs.events import Event, PeakEvent, StateEvent, StepEvent
from ftwiz.engine.specs.job import Job
from ftwiz.engine.specs.machine import Device, Host, Machine
from ftwiz.engine.specs.plan import Strategy
from ftwiz.engine.specs.run import Diagnosis, RunRecord, RunState
from ftwiz.engine.stack import installed_stack
from ftwiz.engine.supervise import process
from ftwiz.engine.supervise.measured import calibration_of, driver_version, remember, workload_here
from ftwiz.engine.telemetry import EventLog

GIB = 1 << 30
STRATEGY = Strategy(
    backend="ddp",
    device_kind="cuda",
    num_processes=2,
    micro_batch_size=2,
    gradient_accumulation_steps=1,
    gradient_checkpointing=True,
    mixed_precision="bf16",
)
CARDS = tuple(
    Device(
        kind="cuda",
        index=index,
        name="card",
        total_bytes=100 * GIB,
        free_bytes=free * GIB,
        reserved_bytes=GIB,
    )
    for index, free in enumerate((90, 99, 49))
)
RECORD = RunRecord(id="x", name="x", state=RunState.FINISHED, created_at=1.0, host="here", ftwiz_version="0")


def peak(rank: int, moment: str, allocated: int, outside: int = 2, host: int = 5) -> PeakEvent:
    return PeakEvent(
        t=1.0,
        rank=rank,
        moment=moment,
        step=0,
        allocated_bytes=allocated * GIB,
        reserved_bytes=(allocated + 1) * GIB,
        outside_bytes=outside * GIB,
        host_bytes=host * GIB,
        batch_tokens=777,
    )


@pytest.fixture
def written(tmp_path: Path, tiny_model: Path, qa_rows: Path) -> Callable[..., RunFolder]:
    """``written(*events)``: the folder of a run on the second and third card that is over."""

    def make(*events: Event, host: str | None = None) -> RunFolder:
        job = {"model": {"name_or_path": str(tiny_model)}, "data": {"path": str(qa_rows)}}
        machine = Machine(host=Host(name=host or socket.gethostname(), num_cpus=1), devices=CARDS)
        plan = {"strategy": asdict(STRATEGY), "device_indices": [1, 2], "machine": asdict(machine)}
        run = create(
            tmp_path / "runs", "x", files={"job.yaml": json.dumps(job), "plan.json": json.dumps(plan)}
        )
        log = EventLog(run.events_file)
        for event in events:
            log.append(event)
        log.close()
        return run

    return make


def test_a_row_holds_the_largest_of_all_ranks_by_phase(written: Callable[..., RunFolder]) -> None:
    run = written(
        peak(0, "load", 3),
        peak(1, "load", 4),
        peak(0, "first steps", 8),
        peak(1, "training", 9, host=7),
        peak(1, "save", 11),
        StepEvent(t=1, step=1, max_steps=9, tokens_per_second=1.0, step_seconds=50.0),
        *(
            StepEvent(t=1, step=step, max_steps=9, tokens_per_second=100.0 * step, step_seconds=1.0 / step)
            for step in (2, 3, 4, 5)
        ),
    )
    row = calibration_of(run, RECORD)
    assert row is not None
    assert row.measured is not None
    assert row.load is not None
    assert row.steps is not None
    assert [one.allocated_bytes for one in (row.load, row.steps, row.measured)] == [
        4 * GIB,
        9 * GIB,
        11 * GIB,
    ]
    assert [one.allocated_bytes for one in row.ranks] == [8 * GIB, 11 * GIB]
    assert row.steps.host_bytes == 7 * GIB
    assert (row.tokens_per_second, row.step_seconds, row.num_steps) == (400.0, 0.25, 5)
    assert (row.device_name, row.device_bytes, row.tokens) == ("card", 100 * GIB, 777)
    assert (row.source, row.outcome, row.cause) == ("run", "finished", None)
    assert row.key is not None


def test_what_others_held_on_a_device_is_not_counted(written: Callable[..., RunFolder]) -> None:
    """The second card was free but for the driver's own GiB; on the third one others held 50 GiB."""
    row = calibration_of(written(peak(0, "end", 3, outside=2), peak(1, "end", 3, outside=52)), RECORD)
    assert row is not None
    assert [one.process_bytes for one in row.ranks] == [(3 + 1 + 2) * GIB, (3 + 1 + 2) * GIB]


def test_of_another_hosts_devices_nothing_is_said(written: Callable[..., RunFolder]) -> None:
    row = calibration_of(written(peak(0, "end", 3), host="elsewhere"), RECORD)
    assert row is not None
    assert (row.device_name, row.ranks[0].process_bytes) == (None, None)
    assert row.ranks[0].allocated_bytes == 3 * GIB


def test_only_the_newest_attempt_counts(written: Callable[..., RunFolder]) -> None:
    run = written(peak(0, "end", 50), StateEvent(t=1, state="launching", attempt=2), peak(0, "end", 3))
    row = calibration_of(run, RECORD)
    assert row is not None
    assert row.measured is not None
    assert row.measured.allocated_bytes == 3 * GIB


def test_a_failure_keeps_its_cause_and_what_the_exit_records_add(written: Callable[..., RunFolder]) -> None:
    run = written(peak(0, "start", 0, host=2), peak(0, "load", 3))
    record = {"rank": 0, "peaks": {"allocated_bytes": 70 * GIB, "host_bytes": 9 * GIB, "colour": "red"}}
    run.exit_file(0).write_text(json.dumps(record))
    run.exit_file(1).write_text('{"rank": 1, "peaks": [')
    oom = replace(RECORD, state=RunState.FAILED, diagnosis=Diagnosis(cause="device_oom", message="full"))
    row = calibration_of(run, oom)
    assert row is not None
    assert (row.outcome, row.cause, row.steps) == ("failed", "device_oom", None)
    assert row.measured is not None
    assert row.measured.allocated_bytes == 70 * GIB
    assert row.measured.grown_bytes == 7 * GIB


def test_a_run_that_nobody_measured_leaves_no_row(written: Callable[..., RunFolder]) -> None:
    assert calibration_of(written(), RECORD) is None


def test_nothing_that_goes_wrong_changes_how_a_run_ended(
    written: Callable[..., RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTWIZ_HOME", str(tmp_path / "home"))
    run = written(peak(0, "end", 3))
    assert remember(run, RECORD) is None
    assert len(read_calibrations(tmp_path / "home" / "calibration.jsonl")) == 1
    run.plan_file.write_text("[]")
    complaint = remember(run, RECORD)
    assert complaint is not None
    assert "nothing was added" in complaint
    (tmp_path / "home" / "calibration.jsonl").unlink()
    (tmp_path / "home" / "calibration.jsonl").mkdir()
    assert remember(written(peak(0, "end", 3)), RECORD) is not None


def test_the_driver_of_an_unknown_vendor_is_not_guessed() -> None:
    assert driver_version("acme") is None
    assert driver_version(None) is None


def test_what_is_remembered_of_a_run_is_what_was_planned_for_it(tiny_model: Path, qa_rows: Path) -> None:
    """On NVIDIA's cards the allocator grows its segments: the plan and the calibration both count so."""
    wanted = Job.model_validate({"model": {"name_or_path": str(tiny_model)}, "data": {"path": str(qa_rows)}})
    box = parse_machine("2xA100-40GB")
    plan = recommend(wanted, model_spec(wanted), box, stack=installed_stack())
    workload = workload_here(wanted, plan.strategy, box.devices)
    assert workload is not None
    assert workload.expandable_segments
    assert plan.estimate == estimate(workload)


@pytest.mark.train
@pytest.mark.timeout(200)
def test_every_real_run_adds_its_own_row_also_when_it_is_stopped_at_once(
    run_ftwiz: Callable[..., Any], home: Path, tmp_path: Path, tiny_model: Path, qa_rows: Path
) -> None:
    job = tmp_path / "job.yaml"
    text = {
        "model": {"name_or_path": str(tiny_model)},
        "data": {"path": str(qa_rows)},
        "run": {"num_samples": 0},
    }
    job.write_text(json.dumps(text | {"train": {"max_steps": 4, "global_batch_size": 4, "max_length": 64}}))
    relative = {"FTWIZ_HOME": "."}
    assert run_ftwiz("run", job, "--no-tui", cwd=home, env=relative, timeout=120).returncode == 0
    (row,) = read_calibrations(home / "calibration.jsonl")
    assert (row.source, row.outcome, row.num_steps, row.num_ranks) == ("run", "finished", 4, 1)
    assert row.batch_tokens is not None
    assert row.batch_tokens <= 4 * 64
    assert row.measured is not None
    assert row.measured.host_bytes is not None
    assert row.measured.host_bytes > 100 << 20
    assert row.versions["torch"]
    endless = ("--set", "train.max_steps=1000000", "--set", "train.save_steps=1000000")
    assert run_ftwiz("run", job, *endless, "--detach", cwd=home, timeout=60).returncode == 0
    run = list_runs(home / "runs")[0]
    wait_for(lambda: '"kind":"step"' in run.events_file.read_text() if run.events_file.exists() else False)
    assert run_ftwiz("stop", run.id, "--now", cwd=home).returncode == 0
    wait_for(lambda: run.read_record().state.is_over)
    stopped = read_calibrations(home / "calibration.jsonl")[-1]
    assert stopped.outcome == "stopped"
    assert stopped.measured is not None
    assert isinstance(stopped.load, Usage)
    supervisor = run.read_record().supervisor
    assert supervisor is not None
    wait_for(lambda: not process.alive(supervisor))


@pytest.mark.train
@pytest.mark.timeout(200)
def test_the_second_plan_predicts_what_the_first_run_measured(
    run_ftwiz: Callable[..., Any], home: Path, tmp_path: Path, tiny_model: Path, qa_rows: Path
) -> None:
    job = tmp_path / "job.yaml"
    text = {
        "model": {"name_or_path": str(tiny_model)},
        "data": {"path": str(qa_rows)},
        "run": {"num_samples": 0},
        "train": {"max_steps": 12, "global_batch_size": 4, "max_length": 16, "assistant_only_loss": False},
    }
    job.write_text(json.dumps(text))
    plain = json.loads(run_ftwiz("plan", job, "--json", cwd=home).stdout)["predicted"]
    done = run_ftwiz("run", job, "--no-tui", cwd=home, timeout=120)
    assert done.returncode == 0, done.stdout
    (row,) = read_calibrations(home / "calibration.jsonl")
    assert row.predicted_step_seconds
    assert row.step_seconds
    assert row.tokens_per_second
    told = json.loads(run_ftwiz("plan", job, "--json", cwd=home).stdout)
    assert 1 / 1.5 < told["predicted"]["tokens_per_second"] / row.tokens_per_second < 1.5
    assert told["predicted"]["step_seconds"] != plain["step_seconds"]
    speed = next(reason["text"] for reason in told["reasons"] if reason["about"] == "speed")
    assert "corrected by 1 run here" in speed
    other = run_ftwiz("plan", job, "--json", "--machine", "8cpu+64GB", cwd=home).stdout
    assert "corrected by" not in other, "what ran here says nothing about another machine"


def wait_for(what: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
