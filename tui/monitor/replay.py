"""A run again, as it was: its events come at the pace of their own time, or many times faster."""

import time
from collections.abc import Callable
from dataclasses import replace

from ...engine.rundir import RunFolder
from ...engine.specs.events import DevicesEvent, Event
from ...engine.specs.run import Attempt, RunRecord, RunState
from ...engine.telemetry import EventFollower, Follower, decode
from .facts import read_facts
from .reduce import History
from .view import Frame, Show

FASTEST = 1_000_000.0
_DEVICES_TAIL = 64 << 20


class Replay:
    """Gives frames of a run as it stood at a moment that moves on.

    Args:
        run: The run folder.
        speed: Seconds of the run in a second of the viewer.
        clock: A clock that does not go back.
    """

    def __init__(
        self, run: RunFolder, *, speed: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._run, self._speed, self._clock = run, speed, clock
        self._record = run.read_record()
        self._facts = read_facts(run)
        self._events = EventFollower(run.events_file)
        self._devices = [Follower(path, tail_bytes=_DEVICES_TAIL) for path in run.devices_files[:1]]
        self._waiting: list[Event] = []
        self._samples: list[DevicesEvent] = []
        self._history = History()
        self._now: float | None = None
        self._looked_at = clock()

    @property
    def behind(self) -> bool:
        """Whether there is more to be read at once: never, time has to pass."""
        return False

    def change_speed(self, factor: float) -> None:
        """Go on ``factor`` times as fast."""
        self._speed = min(FASTEST, max(1 / 64, self._speed * factor))

    def read(self) -> Frame:
        """Return the picture of the moment that has come."""
        self._fill()
        moment = self._clock()
        passed, self._looked_at = moment - self._looked_at, moment
        if self._now is None:
            self._now = self._waiting[0].t if self._waiting else self._record.created_at
        self._now += passed * self._speed
        due = [event for event in self._waiting if event.t <= self._now]
        self._waiting = self._waiting[len(due) :]
        self._history.feed(due)
        while self._samples and self._samples[0].t <= self._now:
            self._history.feed_devices(0, self._samples.pop(0))
        return Frame(
            record=self._record_now(),
            view=self._history.view(),
            now=self._now,
            folder=str(self._run.path),
            facts=self._facts,
            show=Show(readonly=True),
            source=f"replay x{self._speed:g}",
            is_own=False,
        )

    def close(self) -> None:
        """Let go of the files."""
        self._events.close()
        for follower in self._devices:
            follower.close()

    def _fill(self) -> None:
        if len(self._waiting) < 1000:  # noqa: PLR2004 - enough for a frame of any speed but the fastest
            self._waiting += self._events.poll()
            while self._events.behind and self._speed > 1000:  # noqa: PLR2004
                self._waiting += self._events.poll()
        for follower in self._devices:
            events = (decode(line) for line in follower.poll())
            self._samples += [event for event in events if isinstance(event, DevicesEvent)]

    def _record_now(self) -> RunRecord:
        """Return the record as it stood: running until the last event came."""
        if not self._waiting and not self._events.behind:
            return self._record
        began = self._record.attempts[0].started_at if self._record.attempts else self._record.created_at
        attempt = Attempt(number=1, started_at=min(began, self._now or began))
        return replace(self._record, state=RunState.RUNNING, attempts=(attempt,), diagnosis=None, reason=None)
