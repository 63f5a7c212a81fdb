"""Reads a run folder into frames: the only part of the monitor that touches files."""

import re
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ...engine.rundir import RunFolder
from ...engine.specs.events import DevicesEvent
from ...engine.specs.run import RunRecord
from ...engine.telemetry import EventFollower, Follower, decode
from .facts import read_facts
from .reduce import History
from .sampling import LARGE_BYTES, TAIL_BYTES, Sampling
from .view import Frame, Show

LOG_LINES = 400
LOG_TAIL_BYTES = 64 << 10
_DEVICES_TAIL_BYTES = 16 << 10
_METRICS = re.compile(r"\{'(loss|eval_|train_)")
"""The trainer also prints what the events tell; it would push everything else off the screen."""


class Source(Protocol):
    """Where frames come from: a run folder, a replay, another trainer's files, another host."""

    @property
    def behind(self) -> bool:
        """Whether there is more to be read at once."""

    def read(self) -> Frame:
        """Read what is new, a bounded piece of it, and return the picture of now."""

    def close(self) -> None:
        """Let go of what is held."""


class Reader:
    """Follows the files of one run.

    Args:
        run: The run folder.
        status: How to learn the run's record; the supervisor's own way when absent, which gives a run whose
            supervisor was killed a new one (not with ``readonly``).
        clock: Unix time.
        readonly: Whether the viewer may not stop the run; only passed on.
        source: Where the run is, when it is not here.
    """

    def __init__(
        self,
        run: RunFolder,
        *,
        status: Callable[[RunFolder], RunRecord] | None = None,
        clock: Callable[[], float] = time.time,
        readonly: bool = False,
        source: str | None = None,
    ) -> None:
        if status is None:
            from ...engine import supervise  # noqa: PLC0415 - psutil; a viewer given a record needs none

            status = supervise.status if readonly else supervise.tend
        self._run = run
        self._status = status
        self._clock = clock
        self._readonly = readonly
        self._source = source
        self._history = History()
        self._events = EventFollower(run.events_file)
        self._sampling = _sampling(run.events_file)
        self._devices: dict[Path, Follower] = {}
        self._logs = [
            Follower(path, tail_bytes=LOG_TAIL_BYTES)
            for path in (run.supervisor_log, run.launcher_log, run.rank_log(0))
        ]
        self._log: deque[str] = deque(maxlen=LOG_LINES)
        self._facts = read_facts(run)

    @property
    def behind(self) -> bool:
        """Whether there are more events to be read at once."""
        return self._sampling is not None or self._events.behind

    def status(self) -> RunRecord:
        """Return the run's record as it stands."""
        return self._status(self._run)

    def read(self) -> Frame:
        """Read what is new, a bounded piece of it, and return the picture of now."""
        record = self._status(self._run)  # before the events: once it says over, the events are complete
        self._read_events()
        self._read_devices()
        for log in self._logs:
            lines = (_text(line) for line in log.poll())
            self._log.extend(line for line in lines if not _METRICS.match(line))
        return Frame(
            record=record,
            view=self._history.view(),
            now=self._clock(),
            folder=str(self._run.path),
            facts=self._facts,
            model=_short(self._run.final_model) if self._run.final_model.is_dir() else None,
            log=tuple(self._log),
            show=Show(readonly=self._readonly),
            source=self._source or "ftwiz",
            is_own=self._source is None,
        )

    def read_all(self) -> Frame:
        """Read until there is nothing more now."""
        frame = self.read()
        while self.behind:
            frame = self.read()
        return frame

    def close(self) -> None:
        """Let go of the files."""
        self._events.close()
        for follower in (*self._logs, *self._devices.values()):
            follower.close()

    def _read_events(self) -> None:
        """Take what is new; of a very long log first a look, then a finer one, then its end."""
        if self._sampling is None:
            self._history.feed(self._events.poll())
            return
        self._history = History().feed(self._sampling.next_look())
        if self._sampling.is_over:
            self._events, self._sampling = _Tail(self._run.events_file), None
            self._history.feed(self._events.poll())

    def _read_devices(self) -> None:
        for path in self._run.devices_files:
            follower = self._devices.setdefault(path, Follower(path, tail_bytes=_DEVICES_TAIL_BYTES))
            newest = next((line for line in reversed(follower.poll()) if line), b"")
            event = decode(newest)
            if isinstance(event, DevicesEvent):
                self._history.feed_devices(_node(path), event)


class ReaderThread(threading.Thread):
    """Reads once a second beside the screen and hands over the newest frame.

    A frame is handed over only while ``ready`` says that the last one is drawn: a screen that cannot keep
    up misses pictures and never piles them up. What goes wrong is handed over too, and ends the thread.
    """

    def __init__(
        self,
        reader: Source,
        *,
        ready: Callable[[], bool],
        deliver: Callable[[Frame | Exception], None],
        seconds: float = 1.0,
    ) -> None:
        super().__init__(name="ftwiz-reader", daemon=True)
        self._reader = reader
        self._ready = ready
        self._deliver = deliver
        self._seconds = seconds
        self._over = threading.Event()

    def run(self) -> None:
        """Read until ``stop``."""
        try:
            while not self._over.is_set():
                frame = self._reader.read()
                if self._ready():
                    self._deliver(frame)
                if not self._reader.behind:
                    self._over.wait(self._seconds)
        except Exception as error:  # noqa: BLE001 - whatever it is, the screen must not stand still and say nothing
            self._deliver(error)
        finally:
            self._reader.close()

    def stop(self) -> None:
        """Let the thread end; returns at once."""
        self._over.set()


class _Tail(EventFollower):
    """The end of a log, and what is appended to it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._lines = Follower(path, tail_bytes=TAIL_BYTES)


def _sampling(path: Path) -> Sampling | None:
    try:
        size = path.stat().st_size
    except OSError:
        return None
    return Sampling(path, size) if size > LARGE_BYTES else None


def _text(line: bytes) -> str:
    """Return a log line as it would stand on a screen: of a progress bar only its last state."""
    return line.rstrip(b"\r").rsplit(b"\r", 1)[-1].decode("utf8", "replace")


def _node(path: Path) -> int:
    """Return the node whose samples a file holds: ``devices-3.jsonl``."""
    number = path.stem.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def _short(path: Path) -> str:
    """Return the path as one would type it here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
