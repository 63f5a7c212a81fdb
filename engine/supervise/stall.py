"""Notices that a run stands still, and which rank is behind. Signals nobody.

Torch's own watchdogs wait for 10 to 30 minutes and then kill; this one tells after ten times a usual step,
and a long step that ends is no harm.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from ..specs.run import ProcessIdentity
from . import process

LEAST_SECONDS = 60.0
LEAST_ENV = "FTWIZ_STALL_SECONDS"
"""Environment variable that changes it, for tests and for machines with very long steps."""
TIMES = 10
DUMP_SECONDS = 20.0
LOOK_SECONDS = 0.5
_WORDS = {"T": "is stopped by a signal", "t": "is held by a debugger", "D": "waits for a disk or a driver"}
"""Process states that explain a standstill (proc(5))."""


@dataclass(kw_only=True)
class Stall:
    """Follows the times at which the run was seen to go on."""

    least_seconds: float = field(default_factory=lambda: _least_seconds(os.environ))
    told_at: float | None = None
    """When the present standstill was told."""

    def __post_init__(self) -> None:
        """Begin without a step."""
        self._gaps: deque[float] = deque(maxlen=50)
        self._last_step: float | None = None
        self._last_sign: float | None = None

    def step(self, now: float) -> None:
        """A logged step has come."""
        if self._last_step is not None and self._last_sign == self._last_step:
            self._gaps.append(now - self._last_step)  # an evaluation or a save in between is no usual gap
        self._last_step = now
        self.sign(now)

    def sign(self, now: float) -> None:
        """Anything else was heard: an evaluation, a checkpoint, an answer."""
        self._last_sign = now
        self.told_at = None

    def patience_seconds(self) -> float:
        """Return how long nothing may be heard."""
        return max(self.least_seconds, TIMES * median(self._gaps) if self._gaps else 0.0)

    def is_new(self, now: float) -> bool:
        """Say whether a standstill has just become one. Before the first step nothing is known to compare."""
        if self._last_step is None or self._last_sign is None or self.told_at is not None:
            return False
        if now - self._last_sign < self.patience_seconds():
            return False
        self.told_at = now
        return True

    def silent_seconds(self, now: float) -> float:
        """Return for how long nothing was heard."""
        return now - self._last_sign if self._last_sign is not None else 0.0


def _least_seconds(environ: Mapping[str, str]) -> float:
    with contextlib.suppress(KeyError, ValueError):
        return max(1.0, float(environ[LEAST_ENV]))
    return LEAST_SECONDS


def what_is_seen(ranks: Mapping[int, ProcessIdentity], folder: Path) -> str:
    """Say which ranks are behind as far as the kernel can tell, and where to read what each of them does."""
    dumps = dump(ranks, folder)
    where = f"; see {dumps[0].name} and its like in log/" if dumps else ""
    behind = who_is_behind(ranks) or who_computes(ranks)
    return (behind or "no rank's process is stopped: all wait, or all compute") + where


def who_computes(ranks: Mapping[int, ProcessIdentity], *, seconds: float = LOOK_SECONDS) -> str | None:
    """Name the ranks that compute while others sleep: they are waited for, where waiting costs no CPU (gloo).

    Looks twice, ``seconds`` apart.
    """
    before = {rank: process.cpu_seconds(known.pid) for rank, known in ranks.items()}
    time.sleep(seconds)
    busy: list[int] = []
    idle: list[int] = []
    for rank, known in sorted(ranks.items()):
        first, second = before[rank], process.cpu_seconds(known.pid)
        if first is None or second is None:
            return None
        (busy if second - first > seconds / 2 else idle).append(rank)
    if not busy or not idle:
        return None
    return f"{_ranks(busy)} computes or loads data, and {_ranks(idle)} waits"


def _ranks(numbers: list[int]) -> str:
    return ("rank " if len(numbers) == 1 else "ranks ") + ", ".join(map(str, numbers))


def who_is_behind(ranks: Mapping[int, ProcessIdentity]) -> str | None:
    """Name the ranks whose process cannot go on, by what the kernel says of them."""
    found = []
    for rank, identity in sorted(ranks.items()):
        seen = process.look(identity.pid)
        if seen is None or seen.start_ticks != identity.start_ticks:
            found.append(f"rank {rank} (pid {identity.pid}) is gone")
        elif seen.state in _WORDS:
            found.append(f"rank {rank} (pid {identity.pid}) {_WORDS[seen.state]}")
    return "; ".join(found) or None


def dump(ranks: Mapping[int, ProcessIdentity], folder: Path) -> list[Path]:
    """Write where every rank is, with py-spy where that is installed and allowed."""
    program = shutil.which("py-spy")
    if program is None:
        return []
    written = []
    for rank, identity in sorted(ranks.items()):
        file = folder / f"stall-rank-{rank}.txt"
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            told = subprocess.run(
                [program, "dump", "--nonblocking", "--pid", str(identity.pid)],
                capture_output=True,
                timeout=DUMP_SECONDS,
                check=False,
            )
            if told.returncode == 0:
                file.write_bytes(told.stdout)
                written.append(file)
    return written
