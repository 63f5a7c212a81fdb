"""What the supervisor writes down: events and the record; what a full disk refuses is written later."""

import contextlib
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..rundir import RunFolder
from ..specs.events import AlertEvent, Event, StateEvent
from ..specs.run import Attempt, RunRecord, RunState
from ..telemetry import EventLog

RETRY_SECONDS = 1.0
RESERVE_BYTES = 256 << 10


class Ledger:
    """The record of a run and the supervisor's events. Nothing raises: what a disk refuses waits."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self.record: RunRecord = run.read_record()
        self._events = EventLog(run.events_file)
        self._unwritten: list[Event] = []
        self._record_is_written = True
        self._complained: set[Path] = set()
        self._retry_at = 0.0
        self._reserve()

    @property
    def is_written(self) -> bool:
        """Whether the record on the disk is this one."""
        return self._record_is_written

    def enter(self, state: RunState, reason: str | None) -> None:
        """Move to a state: the event first, so that whoever waits for the record has all events."""
        self.change(state=state, reason=reason)
        number = len(self.record.attempts)
        self.append(StateEvent(t=time.time(), state=state, attempt=number, reason=reason))
        self.write()

    def change(self, **values: Any) -> None:
        """Change fields of the record; written with the next state."""
        self.record = replace(self.record, **values)

    def add_attempt(self, attempt: Attempt) -> None:
        """Begin an attempt."""
        self.change(attempts=(*self.record.attempts, attempt))

    def change_attempt(self, **values: Any) -> None:
        """Change fields of the newest attempt."""
        *before, last = self.record.attempts
        self.change(attempts=(*before, replace(last, **values)))

    def alert(self, level: str, code: str, message: str) -> None:
        """Tell a person something."""
        self.append(AlertEvent(t=time.time(), level=level, code=code, message=message))  # type: ignore[arg-type]  # a word of its three

    def append(self, event: Event) -> None:
        """Write an event."""
        self._unwritten.append(event)
        self._write_events()

    def retry(self) -> None:
        """Write what a full disk has held up, a second after the last try."""
        waiting = self._unwritten or not self._record_is_written
        if waiting and time.monotonic() >= self._retry_at:
            self.write()

    def write(self) -> None:
        """Write the record, after the events that wait."""
        if self._unwritten:
            self._write_events()
        try:
            self._run.write_record(self.record)
        except OSError as error:
            self._complain(self._run.record_file, error)
            self._record_is_written = False
        else:
            self._record_is_written = True

    def close(self, *, seconds: float) -> None:
        """Try for so long to write the record, and close. The reserve is given up for it."""
        if not self._record_is_written:
            self._give_up_reserve()
            self.write()
        deadline = time.monotonic() + seconds
        while not self._record_is_written and time.monotonic() < deadline:
            time.sleep(RETRY_SECONDS)
            self.write()
        self._events.close()
        self._give_up_reserve()

    def _reserve(self) -> None:
        """Keep some space for the last words, so that a full disk does not make a failed run a lost one."""
        with contextlib.suppress(OSError), self._run.reserve_file.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(b"\0" * RESERVE_BYTES)

    def _give_up_reserve(self) -> None:
        with contextlib.suppress(OSError):
            self._run.reserve_file.unlink()

    def _write_events(self) -> None:
        try:
            while self._unwritten:
                self._events.append(self._unwritten[0])
                del self._unwritten[0]
        except OSError as error:
            self._complain(self._run.events_file, error)

    def _complain(self, path: Path, error: OSError) -> None:
        self._retry_at = time.monotonic() + RETRY_SECONDS
        if path not in self._complained:
            self._complained.add(path)
            say(f"{path}: {error.strerror}; trying again")


def say(text: str) -> None:
    """Write a line to supervisor.log, which is our stderr."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        sys.stderr.flush()
