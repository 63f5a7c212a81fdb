"""What an attempt really took, gathered when it is over: from its events, exit records and plan.

The supervisor adds it to ``calibration.jsonl``: it is one process per run, knows how the run ended, and is
still there when every rank has been killed (docs/decisions/0007-the-supervisor-records-peaks.md).
"""

import json
import os
import socket
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce
from pathlib import Path
from typing import Any

from ... import __version__
from ..calibration import (
    MAX_RANKS,
    WARM_UP_STEPS,
    Calibration,
    Usage,
    append_calibration,
    calibration_file,
    usage_of,
    workload_key,
)
from ..errors import BadInput, FtwizError
from ..hardware.machine_file import VERSION, machine_from_json
from ..job import load_job, model_spec
from ..memory import estimate
from ..memory.workload import workload_of
from ..rundir import RunFolder
from ..specs.events import Event, PeakEvent, StateEvent, StepEvent
from ..specs.job import Job
from ..specs.machine import Device, Machine
from ..specs.plan import Strategy
from ..specs.run import RunRecord, RunState
from ..specs.workload import Workload
from ..speed import predict
from ..stack import LIBRARIES, installed_stack, installed_version
from ..telemetry import read_events

STEPS = frozenset({"first steps", "training", "evaluation"})
LOAD = frozenset({"start", "load"})
OUTCOMES = {RunState.FINISHED: "finished", RunState.STOPPED: "stopped"}
_DRIVERS = {"nvidia": "nvidia", "amd": "amdgpu"}
_MODULES = Path("/sys/module")


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """What plan.json and job.yaml say of an attempt."""

    job: Job
    strategy: Strategy
    devices: tuple[Device, ...]
    """Those of the ranks, as they were when it was planned; none on another host."""
    host: Mapping[str, Any]
    """``cpu_name`` and ``total_bytes`` of the host, where they are known."""
    is_trial: bool
    workload: Workload | None
    """``None`` where the model's shape is not known."""
    machine: Machine | None
    """``None`` on another host, or where it cannot be read."""


def remember(run: RunFolder, record: RunRecord) -> str | None:
    """Add what a run that is over took to the calibrations; return what went wrong, in a line."""
    path = calibration_file(os.environ)
    try:
        row = calibration_of(run, record)
        if row is not None:
            append_calibration(path, row)
    except Exception as error:  # noqa: BLE001 - the ending of a run must not hang on its statistics
        return f"{path}: nothing was added: {type(error).__name__}: {error}"
    return None


def calibration_of(run: RunFolder, record: RunRecord) -> Calibration | None:
    """Return what the newest attempt of a run that is over took, or ``None`` when nobody measured.

    Args:
        run: Its folder.
        record: How it ended.

    Raises:
        FtwizError: Plan or job cannot be read.
    """
    planned = read_planned(run)
    events = _of_newest_attempt(read_events(run.events_file))
    peaks = _peaks_by_rank(events, run)
    ranks = {
        rank: _usage(found, _others_bytes(planned.devices, rank)) for rank, found in sorted(peaks.items())
    }
    if not ranks:
        return None
    device = planned.devices[0] if planned.devices else None
    return Calibration(
        t=time.time(),
        source="probe" if planned.is_trial else "run",
        outcome=OUTCOMES.get(record.state, "failed"),  # type: ignore[arg-type]
        cause=record.diagnosis.cause if record.diagnosis else None,
        ftwiz=__version__,
        device_kind=planned.strategy.device_kind,
        device_name=device.name if device else planned.host.get("cpu_name"),
        device_bytes=device.total_bytes if device else planned.host.get("total_bytes"),
        driver=driver_version(device.vendor) if device else None,
        versions=_versions(),
        strategy={field.name: getattr(planned.strategy, field.name) for field in fields(Strategy)},
        num_ranks=planned.strategy.num_processes,
        what=_what(planned),
        sequence_tokens=planned.job.train.max_length,
        micro_batch_size=planned.strategy.micro_batch_size,
        batch_tokens=max((found.get("batch_tokens", 0) for found in peaks.values()), default=0) or None,
        measured=_largest(ranks.values()),
        ranks=tuple(ranks.values())[:MAX_RANKS],
        load=_largest(_usages(events, LOAD, planned.devices, ranks=peaks)),
        steps=_largest(_usages(events, STEPS, planned.devices, ranks=peaks)),
        **_speed(events),
        **_predicted(planned.workload),
        **_predicted_speed(planned, events),
    )


def read_planned(run: RunFolder) -> Planned:
    """Read what a run was planned to be.

    Raises:
        FtwizError: Plan or job cannot be read.
    """
    job = load_job(run.job_file).job
    try:
        body = json.loads(run.plan_file.read_text(encoding="utf8"))
        known = {field.name for field in fields(Strategy)}
        strategy = Strategy(**{name: value for name, value in body["strategy"].items() if name in known})
        host, devices = _machine(body, strategy.device_kind)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FtwizError(f"{run.plan_file}: cannot be read: {error}") from error
    return Planned(
        job=job,
        strategy=strategy,
        devices=devices,
        host=host,
        is_trial=body.get("trial") is True,
        workload=workload_here(job, strategy, devices),
        machine=_whole_machine(body),
    )


def workload_here(job: Job, strategy: Strategy, devices: Sequence[Device]) -> Workload | None:
    """Return the workload of a job with the libraries that are installed; ``None`` for an unknown model.

    Args:
        job: What is trained.
        strategy: How.
        devices: The accelerators of its ranks, as far as they are known.
    """
    model = model_spec(job)
    if model is None:
        return None
    return workload_of(job, model, strategy, stack=installed_stack(), devices=devices)


def driver_version(vendor: str | None) -> str | None:
    """Return the version of the kernel module that drives a vendor's devices, where Linux tells it."""
    try:
        return (_MODULES / _DRIVERS[vendor or ""] / "version").read_text(encoding="utf8").strip()[:100]
    except (OSError, KeyError, ValueError):
        return None


def _machine(body: Mapping[str, Any], kind: str) -> tuple[Mapping[str, Any], tuple[Device, ...]]:
    """Return host and devices as plan.json has them; nothing of another host: its devices are others."""
    machine = body.get("machine") or {}
    host = machine.get("host") or {}
    if host.get("name") != socket.gethostname():
        return {}, ()
    named = {field.name for field in fields(Device)}
    known = [
        Device(**{name: value for name, value in device.items() if name in named})
        for device in machine.get("devices", ())
    ]
    of_kind = {device.index: device for device in known if device.kind == kind}
    return host, tuple(of_kind[index] for index in body.get("device_indices", ()) if index in of_kind)


def _whole_machine(body: Mapping[str, Any]) -> Machine | None:
    machine = body.get("machine") or {}
    if (machine.get("host") or {}).get("name") != socket.gethostname():
        return None
    try:
        return machine_from_json(json.dumps({"version": VERSION, "machine": machine}), where="plan.json")
    except BadInput:
        return None


def _of_newest_attempt(events: list[Event]) -> list[Event]:
    launches = [
        number
        for number, event in enumerate(events)
        if isinstance(event, StateEvent) and event.state == RunState.LAUNCHING
    ]
    return events[launches[-1] :] if launches else events


def _peaks_by_rank(events: Iterable[Event], run: RunFolder) -> dict[int, dict[str, int]]:
    """Return the highest of each counter by rank: what was told, and what the exit records add."""
    found: dict[int, dict[str, int]] = {}
    for event in events:
        if isinstance(event, PeakEvent):
            told = found.setdefault(event.rank, {})
            _raise(told, {name: getattr(event, name) for name in (*_COUNTERS, "batch_tokens")})
            if event.moment == "start" and event.host_bytes is not None:
                told["baseline_host_bytes"] = event.host_bytes
    for path in run.exit_folder.glob("rank-*.json"):
        rank, peaks = _exit_peaks(path)
        if rank is not None and peaks:
            _raise(found.setdefault(rank, {}), peaks)
    return found


_COUNTERS = ("allocated_bytes", "reserved_bytes", "outside_bytes", "host_bytes")


def _exit_peaks(path: Path) -> tuple[int | None, Mapping[str, Any]]:
    try:
        body = json.loads(path.read_text(encoding="utf8"))
        rank, peaks = body["rank"], body.get("peaks", {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None, {}
    is_whole = type(rank) is int and isinstance(peaks, dict)
    return (rank, peaks) if is_whole else (None, {})


def _raise(told: dict[str, int], more: Mapping[str, Any]) -> None:
    for name, value in more.items():
        if type(value) is int and value >= 0:
            told[name] = max(told.get(name, 0), value)


def _usages(
    events: Iterable[Event],
    moments: frozenset[str],
    devices: tuple[Device, ...],
    *,
    ranks: Mapping[int, Mapping[str, int]],
) -> list[Usage]:
    usages = []
    for event in events:
        if isinstance(event, PeakEvent) and event.moment in moments:
            counters = {name: value for name in _COUNTERS if (value := getattr(event, name)) is not None}
            baseline = ranks.get(event.rank, {}).get("baseline_host_bytes")
            known = {} if baseline is None else {"baseline_host_bytes": baseline}
            usages.append(_usage(counters | known, _others_bytes(devices, event.rank)))
    return usages


def _usage(peaks: Mapping[str, int], others_bytes: int | None) -> Usage:
    reserved, outside = peaks.get("reserved_bytes"), peaks.get("outside_bytes")
    host, baseline = peaks.get("host_bytes"), peaks.get("baseline_host_bytes")
    is_known = reserved is not None and outside is not None and others_bytes is not None
    return Usage(
        allocated_bytes=peaks.get("allocated_bytes"),
        reserved_bytes=reserved,
        process_bytes=reserved + max(0, outside - others_bytes) if is_known else None,  # type: ignore[operator]
        host_bytes=host,
        grown_bytes=None if host is None or baseline is None else max(0, host - baseline),
    )


def _others_bytes(devices: tuple[Device, ...], rank: int) -> int | None:
    """Return what others held on a rank's device before the run; ranks take the devices in their order."""
    if not devices:
        return None
    device = devices[rank % len(devices)]
    if device.total_bytes is None or device.free_bytes is None:
        return None
    return max(0, device.total_bytes - device.free_bytes - (device.reserved_bytes or 0))


def _largest(usages: Iterable[Usage]) -> Usage | None:
    def larger(one: Usage, other: Usage) -> Usage:
        pairs = {
            field.name: (getattr(one, field.name), getattr(other, field.name)) for field in fields(Usage)
        }
        return Usage(
            **{name: max((v for v in pair if v is not None), default=None) for name, pair in pairs.items()}
        )

    every = list(usages)
    return reduce(larger, every) if every else None


def _speed(events: Iterable[Event]) -> dict[str, Any]:
    steps = [event for event in events if isinstance(event, StepEvent)]
    warm = steps[WARM_UP_STEPS:] or steps[-1:]

    def median(name: str) -> float | None:
        values = [value for event in warm if (value := getattr(event, name)) is not None]
        return statistics.median(values) if values else None

    return {
        "tokens_per_second": median("tokens_per_second"),
        "step_seconds": median("step_seconds"),
        "num_steps": len({event.step for event in steps}),
    }


def _predicted_speed(planned: Planned, events: Iterable[Event]) -> dict[str, Any]:
    """Predict the step for sequences as long as they were: often shorter than what was planned for."""
    workload, measured = planned.workload, _speed(events)
    if workload is None or planned.machine is None or not measured["tokens_per_second"]:
        return {}
    sequences = planned.strategy.global_batch_size
    seen = measured["tokens_per_second"] * measured["step_seconds"] / sequences
    length = min(max(1, round(seen)), workload.sequence_tokens)
    try:
        speed = predict(replace(workload, sequence_tokens=length), planned.machine)
    except Exception:  # noqa: BLE001 - what was measured is worth keeping also where nothing can be predicted
        return {}
    if speed is None:
        return {}
    return {
        "predicted_step_seconds": speed.uncorrected_seconds,
        "predicted_tokens_per_second": speed.tokens_per_second,
    }


def _predicted(workload: Workload | None) -> dict[str, Any]:
    if workload is None:
        return {}
    key = workload_key(workload)
    try:
        return {"key": key, "predicted": usage_of(estimate(workload))}
    except Exception:  # noqa: BLE001 - what was measured is worth keeping also where nothing can be predicted
        return {"key": key}


def _versions() -> dict[str, str]:
    return {name: found for name in LIBRARIES if (found := installed_version(name)) is not None}


def _what(planned: Planned) -> str:
    kind = planned.workload.model.model_type if planned.workload else planned.job.model.name_or_path
    return f"{kind} {planned.job.stage} {planned.job.method.kind} {planned.job.train.optim}"[:500]
