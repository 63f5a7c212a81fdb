"""What follows a failed attempt: another one from the newest whole checkpoint, or none.

Reads and writes the plan of a run; starts nothing and signals nobody.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from .. import checkpoints, hardware
from ..data import inspect
from ..errors import FtwizError
from ..job import load_job, model_spec
from ..plan.lighter import change, lighter_plan
from ..prepare import render
from ..rundir import RunFolder, write_atomically
from ..specs.machine import CPU
from ..specs.plan import Plan, Strategy
from ..specs.run import Attempt, Diagnosis
from ..stack import installed_stack
from .measured import read_planned

MOST_ATTEMPTS = 3
"""How often in a row the supervisor begins an attempt by itself."""
OOM, HOST_OOM, STALL, PORT = "device_oom", "host_oom", "stall", "port_in_use"
GIB = 1 << 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """What the job says of failures."""

    on_oom: Literal["stop", "replan"] = "stop"
    on_stall: Literal["warn", "restart", "stop"] = "warn"


@dataclass(frozen=True, kw_only=True, slots=True)
class Next:
    """An attempt that follows a failed one."""

    cause: str
    change: str
    resume_from: str | None
    skipped: tuple[str, ...] = ()
    """Newer checkpoints that are passed over, each with the reason."""


def what_next(
    run: RunFolder,
    policy: Policy,
    diagnosis: Diagnosis,
    attempts: tuple[Attempt, ...],
    *,
    has_progress: bool,
) -> Next | str | None:
    """Return the attempt that follows a failed one, after writing its plan where that is another.

    Args:
        run: Its folder.
        policy: What the job asks for.
        diagnosis: Why the newest attempt failed.
        attempts: Those of the run.
        has_progress: Whether the ranks were up before it failed.

    Returns:
        ``None`` when the job asks for none; one line when it asks and none can be made.
    """
    cause = OOM if _lacks_memory(run, diagnosis.cause) else diagnosis.cause
    wanted = {
        OOM: policy.on_oom == "replan" or None,
        STALL: policy.on_stall == "restart" or None,
        PORT: not has_progress or None,  # a lost race for a free port: nothing has happened yet
    }.get(cause)
    if wanted is None or _is_trial(run):
        return None
    before = recoveries(attempts)
    if before >= MOST_ATTEMPTS:
        return f"{before} attempts in a row were begun after {cause}: no further one"
    found = checkpoints.look(run.checkpoints)
    name = found.newest.name if found.newest else None
    text = "the same plan"
    if cause == OOM:
        try:
            text = replan(run, keeps_state=name is not None, time_number=before + 1) or ""
        except FtwizError as error:
            return f"no lighter plan could be made: {error.message}"
        if not text:
            return "no lighter plan is left" + (f" that can read {name}" if name else "")
    skipped = tuple(f"{path.name} is passed over: {reason}" for path, reason in found.skipped)
    return Next(cause=cause, change=text, resume_from=name, skipped=skipped)


def recoveries(attempts: tuple[Attempt, ...]) -> int:
    """Return how many of the newest attempts the supervisor has begun by itself, in a row."""
    number = 0
    for attempt in reversed(attempts):
        if attempt.recovers_from is None:
            break
        number += 1
    return number


def replan(run: RunFolder, *, keeps_state: bool, time_number: int = 1) -> str | None:
    """Write the next lighter plan into the run folder; return what it changes, ``None`` when none is left.

    The plan before it stays as ``plan-N.json``. Devices and ranks stay: their locks are held for them.

    Args:
        run: Its folder; nothing of it may run.
        keeps_state: A checkpoint will be read.
        time_number: How often the run has run out of memory.

    Raises:
        FtwizError: The job, the plan or the data cannot be read, or a file cannot be written.
    """
    lighter = next_plan(run, keeps_state=keeps_state, time_number=time_number)
    if lighter is None:
        return None
    loaded, machine = load_job(run.job_file), hardware.detect()
    data = inspect(loaded.job.data, stage=loaded.job.stage)
    prepared = render(loaded, machine, lighter, data, model=model_spec(loaded.job))
    before = _body(run)
    text = change(_strategy(before), lighter.strategy)
    files = {name: body for name, body in prepared.files.items() if name not in {"job.yaml", "plan.json"}}
    try:
        write_atomically(run.former_plan_file(_number(run)), json.dumps(before, indent=2) + "\n")
        for name, body in files.items():
            write_atomically(run.path / name, body, mode=0o700 if name.endswith(".sh") else 0o600)
        write_atomically(run.plan_file, _same_place(prepared.files["plan.json"], before))
    except OSError as error:
        raise FtwizError(f"{run.path}: the plan cannot be written: {error.strerror}") from error
    return text


def next_plan(run: RunFolder, *, keeps_state: bool, time_number: int = 1) -> Plan | None:
    """Return the plan that would follow the run's own after it ran out of memory.

    Raises:
        FtwizError: Job or plan cannot be read.
    """
    body, planned = _body(run), read_planned(run)
    failed = Plan(
        strategy=planned.strategy,
        device_indices=tuple(body.get("device_indices") or ()),
        environment=body.get("environment") or {},
    )
    return lighter_plan(
        planned.job,
        model_spec(planned.job),
        hardware.detect(),
        failed=failed,
        keeps_state=keeps_state,
        time_number=time_number,
        stack=installed_stack(),
    )


def explain(run: RunFolder, diagnosis: Diagnosis, *, peaks: Sequence[Mapping[str, int]]) -> Diagnosis:
    """Put estimate and measured peak beside a lack of memory, with the cheapest change that would fit.

    Args:
        run: Its folder.
        diagnosis: Why it failed; returned as it is when memory was not short.
        peaks: What the ranks left in their exit records.
    """
    if not _lacks_memory(run, diagnosis.cause):
        return diagnosis
    try:
        seen = "; ".join(part for part in (diagnosis.evidence, _memory_text(run, peaks)) if part)
        keeps_state = checkpoints.newest_whole(run.checkpoints) is not None
        lighter = next_plan(run, keeps_state=keeps_state)
        text = change(_strategy(_body(run)), lighter.strategy) if lighter else None
    except FtwizError:
        return diagnosis
    if text is None:
        return replace(diagnosis, evidence=seen)
    return replace(
        diagnosis,
        evidence=seen,
        advice=f"take the next lighter plan, same global batch: {text} (run.on_oom: replan does it unasked)",
        command=f"ftwiz resume {run.id} --replan",
    )


def _memory_text(run: RunFolder, peaks: Sequence[Mapping[str, int]]) -> str | None:
    predicted = _body(run).get("predicted") or {}
    on_cpu = _strategy(_body(run)).device_kind == CPU
    name = "host_bytes" if on_cpu else "reserved_bytes"
    most = max((peak[name] for peak in peaks if peak.get(name)), default=None)
    estimated = predicted.get("allocated_bytes" if on_cpu else "process_bytes")
    parts = [
        f"{size / GIB:.2f} GiB {word}"
        for size, word in ((estimated, "estimated"), (most, "measured"))
        if size
    ]
    return ", ".join(parts) or None


def _lacks_memory(run: RunFolder, cause: str) -> bool:
    """Whether a lighter plan would help: on the CPU the host is the device."""
    if cause != HOST_OOM:
        return cause == OOM
    try:
        return _strategy(_body(run)).device_kind == CPU
    except FtwizError:
        return False


def _body(run: RunFolder) -> dict[str, Any]:
    try:
        body: dict[str, Any] = json.loads(run.plan_file.read_text(encoding="utf8"))
        _strategy(body)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FtwizError(f"{run.plan_file}: cannot be read: {error}") from error
    return body


def _strategy(body: Mapping[str, Any]) -> Strategy:
    known = Strategy.__dataclass_fields__
    return Strategy(**{name: value for name, value in body["strategy"].items() if name in known})


def _is_trial(run: RunFolder) -> bool:
    try:
        return json.loads(run.plan_file.read_text(encoding="utf8")).get("trial") is True
    except (OSError, ValueError, AttributeError):
        return True


def _number(run: RunFolder) -> int:
    return 1 + max((_number_of(path) for path in run.path.glob("plan-*.json")), default=0)


def _number_of(path: Path) -> int:
    number = path.stem.removeprefix("plan-")
    return int(number) if number.isdigit() else 0


def _same_place(text: str, before: Mapping[str, Any]) -> str:
    """Keep host and devices as they were planned: their names are what the locks go by."""
    body = json.loads(text)
    body["machine"] = before.get("machine", body["machine"])
    return json.dumps(body, indent=2) + "\n"
