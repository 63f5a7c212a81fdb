"""Processes known beyond doubt, found wherever they hide, and ended without leaving one.

Linux's /proc is read directly; elsewhere psutil answers. Knows nothing of runs.
"""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from ..specs.run import ProcessIdentity

MARKER = "FTWIZ_RUN"
"""Environment variable that every process of a run inherits."""
PROC = Path("/proc")
_HAS_PROC = (PROC / "self" / "stat").exists()
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_ZOMBIE = "Z"


@dataclass(frozen=True, slots=True)
class Seen:
    """One line of the process table."""

    pid: int
    parent: int
    session: int
    state: str
    start_ticks: int

    @property
    def is_dead(self) -> bool:
        """Whether only the exit status is left of it."""
        return self.state in {_ZOMBIE, "X"}


def identify(pid: int) -> ProcessIdentity | None:
    """Return who has this pid now, or ``None`` when nobody lives under it (a zombie does not)."""
    seen = look(pid)
    if seen is None or seen.is_dead:
        return None
    return ProcessIdentity(pid=pid, start_ticks=seen.start_ticks, boot_id=boot_id())


def alive(identity: ProcessIdentity) -> bool:
    """Whether this very process lives: same pid, same start, same boot."""
    return identify(identity.pid) == identity


def send(identity: ProcessIdentity, number: signal.Signals) -> bool:
    """Signal this very process. A process that got the pid since is never hit.

    Returns:
        Whether the signal was sent.
    """
    try:
        descriptor = os.pidfd_open(identity.pid)
    except AttributeError:  # not Linux: a short window between the look and the signal remains
        return alive(identity) and _kill(identity.pid, number)
    except OSError:
        return False
    try:
        if not alive(identity):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def look(pid: int) -> Seen | None:
    """Return the table's line of one pid."""
    return _look_proc(pid) if _HAS_PROC else _look_psutil(pid)


def table() -> dict[int, Seen]:
    """Return every process of this host that can be seen."""
    pids = (
        [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()] if _HAS_PROC else psutil.pids()
    )
    return {pid: seen for pid in pids if (seen := look(pid)) is not None}


def cpu_seconds(pid: int) -> float | None:
    """Return how long a process has computed."""
    try:
        times = psutil.Process(pid).cpu_times()
    except (psutil.Error, OSError):
        return None
    return float(times.user + times.system)


def descendants(root: int, processes: Mapping[int, Seen]) -> set[int]:
    """Return the pids below ``root``, without ``root``."""
    children: dict[int, list[int]] = {}
    for seen in processes.values():
        children.setdefault(seen.parent, []).append(seen.pid)
    found: set[int] = set()
    waiting = [root]
    while waiting:
        for child in children.get(waiting.pop(), []):
            if child not in found:
                found.add(child)
                waiting.append(child)
    return found


def marked(marker: str, pids: Collection[int]) -> set[int]:
    """Return those of ``pids`` that were started with the run's mark in their environment."""
    return {pid for pid in pids if _has_mark(pid, marker)}


def members(marker: str, *, root: int | None = None) -> list[ProcessIdentity]:
    """Return every living process of a run: those that carry its mark and those below ``root``.

    The mark finds what was reparented away, the tree finds what has lost its environment.
    """
    processes = table()
    found = marked(marker, processes.keys())
    if root is not None:
        found |= descendants(root, processes)
    found.discard(os.getpid())
    return [
        ProcessIdentity(pid=pid, start_ticks=processes[pid].start_ticks, boot_id=boot_id())
        for pid in sorted(found)
        if not processes[pid].is_dead
    ]


def kill_all(marker: str, *, root: int | None = None, seconds: float = 10.0) -> list[ProcessIdentity]:
    """Kill every process of a run, also those that are born meanwhile.

    Returns:
        What could not be killed in time (a process inside a driver call).
    """
    deadline = time.monotonic() + seconds
    while left := members(marker, root=root):
        for identity in left:
            send(identity, signal.SIGKILL)
        if time.monotonic() > deadline:
            return left
        time.sleep(0.05)
    return []


def become_subreaper() -> None:
    """Make orphans below this process become its children instead of init's. Linux only."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent(parent: int, number: signal.Signals) -> bool:
    """Ask the kernel for a signal when the parent dies. Linux only.

    Returns:
        Whether the parent still lives.
    """
    _prctl(_PR_SET_PDEATHSIG, number)
    return os.getppid() == parent


def reap_orphans() -> None:
    """Take the exit status of dead adopted children, which nobody else will ask for.

    Children of our own session are left alone: somebody in this process started them and waits for them.
    """
    mine, session = os.getpid(), os.getsid(0)
    for seen in table().values():
        if seen.parent == mine and seen.is_dead and seen.session != session:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(seen.pid, os.WNOHANG)


@cache
def boot_id() -> str:
    """Return what tells this boot of the host from every other."""
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"boot-{psutil.boot_time():.0f}"


def _look_proc(pid: int) -> Seen | None:
    try:
        text = (PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    # The name in parentheses may hold anything, also ") Z 1": the fields start after the last one.
    values = text[text.rindex(b")") + 2 :].split()
    return Seen(
        pid=pid,
        state=values[0].decode(),
        parent=int(values[1]),
        session=int(values[3]),
        start_ticks=int(values[19]),
    )


def _look_psutil(pid: int) -> Seen | None:
    try:
        process = psutil.Process(pid)
        return Seen(
            pid=pid,
            parent=process.ppid(),
            session=os.getsid(pid),
            state=_ZOMBIE if process.status() == psutil.STATUS_ZOMBIE else "S",
            start_ticks=round(process.create_time() * 100),
        )
    except (psutil.Error, OSError):
        return None


def _has_mark(pid: int, marker: str) -> bool:
    try:
        if _HAS_PROC:
            wanted = f"{MARKER}={marker}".encode()
            return wanted in (PROC / str(pid) / "environ").read_bytes().split(b"\0")
        return psutil.Process(pid).environ().get(MARKER) == marker
    except (OSError, psutil.Error):
        return False


def _kill(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except OSError:
        return False
    return True


def _prctl(option: int, value: int) -> None:
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None, use_errno=True).prctl(option, ctypes.c_ulong(value), 0, 0, 0)
