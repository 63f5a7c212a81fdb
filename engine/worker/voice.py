"""How a rank speaks: rank 0 appends events to the run's log, the others only print into their own."""

import sys
import time

from ..rundir import RunFolder
from ..specs.events import AlertEvent, Event, LogEvent, StepEvent
from ..telemetry import EventLog
from .settings import Rank


class Voice:
    """Writes events for rank 0; silent on every other rank."""

    def __init__(self, run: RunFolder, rank: Rank) -> None:
        self._log = EventLog(run.events_file) if rank.is_first else None
        self.last_step: StepEvent | None = None
        """The newest step that was told of."""

    def event(self, event: Event) -> None:
        """Append an event. A full disk loses the event, never the training."""
        if isinstance(event, StepEvent):
            self.last_step = event
        if self._log is None:
            return
        try:
            self._log.append(event)
        except OSError as error:
            print(f"event lost: {error}: {event}", file=sys.stderr)  # noqa: T201 - into the rank's log

    def say(self, message: str) -> None:
        """Narrate what happens now, in a few words."""
        print(f"[ftwiz] {message}")  # noqa: T201 - into the rank's log
        self.event(LogEvent(t=time.time(), message=message))

    def alert(self, level: str, code: str, message: str, step: int | None = None) -> None:
        """Tell a person something that they should know."""
        print(f"[ftwiz] {level}: {message}", file=sys.stderr)  # noqa: T201 - into the rank's log
        self.event(AlertEvent(t=time.time(), level=level, code=code, message=message, step=step))  # type: ignore[arg-type]
