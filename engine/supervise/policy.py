"""When a run is ended by force, and what its ending is called. Pure: facts in, decisions out.

Times are seconds of one monotonic clock.
"""

import signal
from collections.abc import Callable
from dataclasses import dataclass

from ..specs.events import EndEvent
from ..specs.run import RunState

TRANSITIONS: dict[tuple[RunState, str], RunState] = {
    (RunState.LAUNCHING, "progress"): RunState.RUNNING,
    (RunState.LAUNCHING, "stop asked"): RunState.STOPPING,
    (RunState.RUNNING, "stop asked"): RunState.STOPPING,
}
"""Moves of a living run. Its last move, out of any of these states, is ``verdict``'s."""

UNKILLABLE_SECONDS = 30.0
"""A process that survives SIGKILL this long sits inside the kernel; nobody can wait for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What the supervisor knows of an attempt now."""

    now: float
    grace_seconds: float
    num_processes: int
    """Living processes of the run, the launcher among them."""
    launcher_exited_at: float | None = None
    launcher_code: int | None = None
    """Exit status; negative is a signal."""
    stop_asked_at: float | None = None
    stop_now_at: float | None = None
    restart_asked_at: float | None = None
    """When it was decided to end a run that stands still and to start it again."""
    rank_failed_at: float | None = None
    """When a rank left a failed exit record, or was gone without one."""
    failed_rank: str | None = None
    """What became of that rank, in a few words."""
    end: EndEvent | None = None
    ended_at: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """From a moment on, processes get some seconds until SIGTERM and some more until SIGKILL."""

    why: str
    since: Callable[[Facts], float | None]
    terminate_after: Callable[[Facts], float]
    kill_after: float
    """Seconds after SIGTERM."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Deadline:
    """When what is left of a run gets SIGTERM, and when SIGKILL."""

    terminate_at: float
    kill_at: float
    why: str


def _launcher_gone(facts: Facts) -> float | None:
    # Ranks that are saving for a stop may outlive their launcher until the grace period is over.
    saving = facts.stop_asked_at is not None and facts.end is None
    return None if saving else facts.launcher_exited_at


def _ended(*statuses: str) -> Callable[[Facts], float | None]:
    return lambda facts: facts.ended_at if facts.end is not None and facts.end.status in statuses else None


def _seconds(value: float) -> Callable[[Facts], float]:
    return lambda _: value


RULES: tuple[Rule, ...] = (
    Rule(
        why="told to stop now",
        since=lambda facts: facts.stop_now_at,
        terminate_after=_seconds(0),
        kill_after=3,
    ),
    Rule(why="the launcher is gone", since=_launcher_gone, terminate_after=_seconds(0), kill_after=2),
    Rule(
        # Torch's launcher needs under 2 s; it waits for ranks that ignore SIGTERM, we do not.
        why="a rank failed",
        since=lambda facts: facts.rank_failed_at,
        terminate_after=_seconds(2.5),
        kill_after=1.5,
    ),
    Rule(
        why="it stands still and is started again",
        since=lambda facts: facts.restart_asked_at,
        terminate_after=_seconds(0),
        kill_after=3,
    ),
    Rule(why="training failed", since=_ended("failed"), terminate_after=_seconds(5), kill_after=2),
    Rule(
        why="training is over",
        since=_ended("finished", "stopped"),
        terminate_after=_seconds(30),
        kill_after=5,
    ),
    Rule(
        why="the grace period is over",
        since=lambda facts: facts.stop_asked_at,
        terminate_after=lambda facts: facts.grace_seconds,
        kill_after=5,
    ),
)


def deadline(facts: Facts) -> Deadline | None:
    """Return the earliest forced ending that the facts call for, or ``None``."""
    found = [
        Deadline(
            terminate_at=since + rule.terminate_after(facts),
            kill_at=since + rule.terminate_after(facts) + rule.kill_after,
            why=rule.why,
        )
        for rule in RULES
        if (since := rule.since(facts)) is not None
    ]
    return min(found, key=lambda one: one.kill_at, default=None)


def is_over(facts: Facts) -> bool:
    """Whether nothing of the attempt is left that could be waited for."""
    if facts.launcher_exited_at is not None and facts.num_processes == 0:
        return True
    forced = deadline(facts)
    return forced is not None and facts.now > forced.kill_at + UNKILLABLE_SECONDS


def verdict(facts: Facts) -> tuple[RunState, str]:
    """Return the ending of an attempt and the one line that says how it came to it.

    Rank 0's ``end`` record wins over every exit status: gloo may abort in the interpreter's shutdown after
    a perfect run, and a launcher may exit 0 while nothing was trained.
    """
    if facts.end is not None:
        return _verdict_of_end(facts.end)
    if facts.restart_asked_at is not None and facts.stop_asked_at is None:
        return RunState.FAILED, "it stood still"
    if facts.rank_failed_at is not None and facts.stop_now_at is None:
        return RunState.FAILED, facts.failed_rank or "a rank failed"
    if facts.stop_now_at is not None:
        return RunState.STOPPED, "stopped at once, without saving"
    if facts.stop_asked_at is not None:
        waited = facts.now - facts.stop_asked_at
        return RunState.STOPPED, f"stopped without saving: no checkpoint came within {waited:.0f} s"
    return RunState.FAILED, f"training ended early: the launcher {describe_exit(facts.launcher_code)}"


def _verdict_of_end(end: EndEvent) -> tuple[RunState, str]:
    at = f"at step {end.step} of {end.max_steps}"
    if end.status == "finished":
        return RunState.FINISHED, f"finished {at}"
    if end.status == "stopped":
        return RunState.STOPPED, f"stopped {at}"
    return RunState.FAILED, f"failed {at}" + (f": {end.message}" if end.message else "")


def describe_exit(code: int | None) -> str:
    """Return an exit status in words: ``exited with code 1``, ``was killed by signal 9 (SIGKILL)``."""
    if code is None:
        return "left no exit status"
    if code >= 0:
        return f"exited with code {code}"
    return f"was killed by signal {-code} ({signal_name(-code)})"


def signal_name(number: int) -> str:
    """Return the name of a signal."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
