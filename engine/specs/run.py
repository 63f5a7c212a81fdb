"""A run as its folder tells it: state, processes, attempts and, after a failure, the diagnosis."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class RunState(StrEnum):
    """Life of a run: created -> launching -> running -> (stopping) -> finished | stopped | failed | lost."""

    CREATED = "created"
    LAUNCHING = "launching"
    RUNNING = "running"
    STOPPING = "stopping"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"
    LOST = "lost"
    """Derived by a reader: the record says the run is alive and its supervisor is gone."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen without a new command."""
        return self in {RunState.FINISHED, RunState.STOPPED, RunState.FAILED, RunState.LOST}


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessIdentity:
    """A process known beyond doubt: a pid alone may have been given to another program since."""

    pid: int
    start_ticks: int
    """Clock ticks after boot at which the process started (/proc/PID/stat, field 22)."""
    boot_id: str
    """/proc/sys/kernel/random/boot_id at that time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """Why a run failed: the cause, what shows it, what to change, and the command that does it."""

    cause: str
    """A stable word for machines: ``device_oom``, ``host_oom``, ``nan``, ``disk_full``, ``killed``, ..."""
    message: str
    evidence: str | None = None
    advice: str | None = None
    command: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One launch of a run; a resumed run has several. Times are Unix seconds."""

    number: int
    started_at: float
    ended_at: float | None = None
    resumed_from: str | None = None
    """Checkpoint folder name that the attempt started from."""
    exit_code: int | None = None
    """Exit status of the launcher; negative is a signal."""
    launcher: ProcessIdentity | None = None
    recovers_from: str | None = None
    """Cause for which the supervisor began it by itself; ``None``: somebody asked for it."""
    change: str | None = None
    """What it does otherwise than the attempt before it, in a few words."""
    log_bytes: Mapping[str, int] = field(default_factory=dict)
    """Size of every log file when the attempt began: what stands before is of an earlier one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """``run.json``: replaced atomically, written by the supervisor (and once by whoever creates the run)."""

    id: str
    """Name of the run folder."""
    name: str
    state: RunState
    created_at: float
    host: str
    ftwiz_version: str
    supervisor: ProcessIdentity | None = None
    attempts: tuple[Attempt, ...] = ()
    reason: str | None = None
    """One line on how the run came to its state."""
    diagnosis: Diagnosis | None = None
    resumable_from: str | None = None
    """Newest whole checkpoint when the run last ended; ``None`` when there is none or it has not ended."""
