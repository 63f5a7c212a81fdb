"""Gathers what a diagnosis is made from: exit records, ends of logs, alerts and the kernel's counters."""

import contextlib
import json
import re
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import checkpoints
from ..rundir import RunFolder
from .watch import Watch

TAIL_BYTES = 256 * 1024
MAX_LINE_CHARACTERS = 2000
_VMSTAT = Path("/proc/vmstat")
# The summary that torch's launcher prints when a rank fails (torch 2.13, elastic/multiprocessing/errors).
_TORCH_FAILURE = re.compile(
    r"rank\s*:\s*(?P<rank>\d+) \(local_rank: \d+\)\s*\n\s*exitcode\s*:\s*(?P<code>-?\d+) \(pid: \d+\)"
)
_CONSEQUENCES = (signal.SIGTERM, signal.SIGABRT)
# What accelerate's launcher of one process ends with: Python's own words for a child that a signal killed.
_ONE_PROCESS_KILLED = re.compile(r"died with <Signals\.\w+: (?P<signal>\d+)>")


@dataclass(frozen=True, kw_only=True, slots=True)
class Killed:
    """A rank that a signal ended."""

    rank: int
    signal: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """Everything that a diagnosis looks at; values only."""

    run_id: str
    job_file: str
    micro_batch_size: int | None = None
    launcher_code: int | None = None
    """Exit status of a launcher that ended by itself; negative is a signal."""
    failed_rank: str | None = None
    errors: tuple[str, ...] = ()
    """Errors that ranks left in their exit records, lowest rank first, and rank 0's last word."""
    alert_codes: tuple[str, ...] = ()
    alert_messages: tuple[str, ...] = ()
    vanished_rank: int | None = None
    """A rank that was gone without an exit record, as the supervisor saw."""
    killed: Killed | None = None
    """The rank that a signal ended first, as the launcher tells."""
    new_oom_kills: int = 0
    """Processes that the kernel killed for want of memory during the attempt, anywhere on the host."""
    free_bytes: int | None = None
    """Space left on the disk of the run folder."""
    stalled: str | None = None
    """A standstill for which the run was ended."""
    rank_texts: Mapping[int, str] = field(default_factory=dict)
    """Ends of the logs of this attempt by rank."""
    lines: tuple[str, ...] = ()
    """Ends of the logs of this attempt: failed ranks first, then the others, then the launcher."""


class LogMarks:
    """Remembers how long the logs were when an attempt began: what stands before is of an earlier one."""

    def __init__(self, run: RunFolder, sizes: Mapping[str, int] | None = None) -> None:
        """Look at the logs now, or take what the attempt's first supervisor saw."""
        if sizes is None:
            sizes = {path.name: path.stat().st_size for path in run.log_folder.glob("*.log")}
        self.sizes = sizes

    def new_text(self, path: Path) -> str:
        """Return the end of what a log got since."""
        with contextlib.suppress(OSError), path.open("rb") as file:
            start = self.sizes.get(path.name, 0)
            end = file.seek(0, 2)
            file.seek(max(start if end >= start else 0, end - TAIL_BYTES))
            return file.read(TAIL_BYTES).decode(errors="replace")
        return ""


def gather(
    run: RunFolder, watch: Watch, marks: LogMarks, *, new_oom_kills: int, ended_by_us: bool
) -> Evidence:
    """Return the evidence of an attempt that has just failed.

    Args:
        run: Its folder.
        watch: What the supervisor saw.
        marks: Where the logs of the attempt begin.
        new_oom_kills: How much the kernel's count rose.
        ended_by_us: The supervisor had to end what was left: the launcher's exit status says nothing then.
    """
    failed = [rank for rank, record in sorted(watch.exit_records.items()) if record.get("status") == "failed"]
    errors = [
        str(watch.exit_records[rank]["error"]) for rank in failed if watch.exit_records[rank].get("error")
    ]
    if watch.end is not None and watch.end.message:
        errors.append(watch.end.message)
    launcher = marks.new_text(run.launcher_log)
    logs = {path.name: path for path in sorted(run.log_folder.glob("rank-*.log"))}
    first = [logs.pop(run.rank_log(rank).name, None) for rank in failed]
    read = {path: marks.new_text(path) for path in (*first, *logs.values()) if path is not None}
    texts = list(read.values())
    return Evidence(
        run_id=run.id,
        job_file=str(run.job_file),
        micro_batch_size=_micro_batch_size(run),
        launcher_code=None if ended_by_us else watch.launcher_code,
        vanished_rank=watch.vanished_rank,
        failed_rank=watch.failed_rank,
        errors=tuple(errors),
        alert_codes=tuple(alert.code for alert in watch.alerts),
        alert_messages=tuple(alert.message for alert in watch.alerts),
        killed=killed_rank(launcher),
        new_oom_kills=new_oom_kills,
        free_bytes=_free_bytes(run),
        stalled=watch.stalled if watch.restart_asked_at is not None else None,
        rank_texts={int(path.stem.removeprefix("rank-")): text for path, text in read.items()},
        lines=tuple(
            line[:MAX_LINE_CHARACTERS]
            for text in (*texts, launcher)
            for line in text.splitlines()
            if line.strip()
        ),
    )


def killed_rank(launcher_text: str) -> Killed | None:
    """Return which rank a signal ended, from the launcher's output."""
    # The root cause is what the launcher saw first, which within one look is chance. Ranks that were ended
    # because of another one got SIGTERM, or aborted.
    others, _, root = launcher_text.rpartition("Root Cause")
    found = [
        Killed(rank=int(match["rank"]), signal=-int(match["code"]))
        for text in (root, others)
        for match in _TORCH_FAILURE.finditer(text)
        if int(match["code"]) < 0
    ]
    if found:
        cause = next((one for one in found if one.signal not in _CONSEQUENCES), None)
        codes = [int(match["code"]) for match in _TORCH_FAILURE.finditer(root)]
        failed_first = codes and codes[0] > 0  # then SIGTERM to the others is the launcher's own doing
        return cause if cause or failed_first else found[0]
    alone = _ONE_PROCESS_KILLED.search(launcher_text)
    return Killed(rank=0, signal=int(alone["signal"])) if alone else None


def oom_kills() -> int:
    """Return how many processes the kernel has killed for want of memory, cgroup limits included."""
    try:
        match = re.search(r"^oom_kill (\d+)$", _VMSTAT.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(match[1]) if match else 0


def newest_checkpoint(run: RunFolder) -> str | None:
    """Return the name of the newest checkpoint that was finished; ``resume`` verifies its bytes."""
    folders = checkpoints.list_checkpoints(run.checkpoints)
    return next((folder.name for folder in folders if (folder / checkpoints.MANIFEST).is_file()), None)


def _free_bytes(run: RunFolder) -> int | None:
    try:
        return shutil.disk_usage(run.path).free
    except OSError:
        return None


def _micro_batch_size(run: RunFolder) -> int | None:
    try:
        plan: Mapping[str, Any] = json.loads(run.plan_file.read_bytes())
        return int(plan["strategy"]["micro_batch_size"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
