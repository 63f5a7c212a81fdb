"""The event log: appended by the worker and the supervisor, followed by anyone.

One event is one line and one ``write()``, so that writers on one host never mix and a kill tears at most
the last line. Reading never raises on what it finds: a torn or foreign line is passed over.
"""

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from .specs.events import EVENT_TYPES, DevicesEvent, Event
from .specs.machine import DeviceReading, HostReading

MAX_LINE_BYTES = 1 << 20
"""Longer lines are passed over by readers: no event of ours comes near it."""
CHUNK_BYTES = 1 << 20
_TYPES: Mapping[str, type[Event]] = {event_type.kind: event_type for event_type in EVENT_TYPES}
_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def encode(event: Event) -> bytes:
    """Return the event as one JSON line with its newline.

    JSON has no NaN: non-finite floats become the strings ``"nan"``, ``"inf"`` and ``"-inf"``.
    """
    body = {"kind": event.kind} | _plain_fields(event)
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def decode(line: bytes) -> Event | None:
    """Return the event of one line, or ``None`` when it is torn, foreign or of an unknown kind."""
    try:
        body = json.loads(line)
        event_type = _TYPES[body.pop("kind")]
        known = {field.name for field in fields(event_type)}
        values = {name: _number(value) for name, value in body.items() if name in known}
        if event_type is DevicesEvent:
            _nest_readings(values)
        return event_type(**values)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


class EventLog:
    """Appends events to one file; several processes of one host may append to the same file."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def append(self, event: Event) -> None:
        """Write one event as one line.

        Raises:
            OSError: The disk is full or gone. Nothing of a later event is lost by it: the next
                append starts on a line of its own.
        """
        line = encode(event)
        if not self._ends_whole():
            line = b"\n" + line
        os.write(self._descriptor, line)

    def close(self) -> None:
        """Close the file; append no more."""
        os.close(self._descriptor)

    def _ends_whole(self) -> bool:
        size = os.fstat(self._descriptor).st_size
        return size == 0 or os.pread(self._descriptor, 1, size - 1) == b"\n"


class Follower:
    """Reads a growing file line by line and hands out every complete line once.

    Copes with a file that does not exist yet, is replaced (rotation) or cut (truncation), and with
    a torn end.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._offset = 0
        self._rest = b""
        self._skipping = False

    def poll(self) -> list[bytes]:
        """Return the lines completed since the last call, without their newlines."""
        if self._descriptor is None and not self._open():
            return []
        lines = self._read_new()
        if self._was_replaced():
            self.close()
            if self._open():
                lines += self._read_new()
        return lines

    def close(self) -> None:
        """Let go of the file; a later poll starts again at its beginning."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor, self._offset, self._rest, self._skipping = None, 0, b"", False

    def _open(self) -> bool:
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        return True

    def _was_replaced(self) -> bool:
        assert self._descriptor is not None
        try:
            current = self._path.stat()
        except FileNotFoundError:
            return False
        mine = os.fstat(self._descriptor)
        return (current.st_dev, current.st_ino) != (mine.st_dev, mine.st_ino)

    def _read_new(self) -> list[bytes]:
        assert self._descriptor is not None
        if os.fstat(self._descriptor).st_size < self._offset:
            self._offset, self._rest, self._skipping = 0, b"", False
        lines: list[bytes] = []
        while chunk := os.pread(self._descriptor, CHUNK_BYTES, self._offset):
            self._offset += len(chunk)
            *whole, self._rest = (self._rest + chunk).split(b"\n")
            if whole and self._skipping:
                del whole[0]
                self._skipping = False
            lines += whole
            if len(self._rest) > MAX_LINE_BYTES:
                self._rest, self._skipping = b"", True
        return lines


class EventFollower:
    """Follows an event log and hands out its events."""

    def __init__(self, path: Path) -> None:
        self._lines = Follower(path)

    def poll(self) -> list[Event]:
        """Return the events completed since the last call."""
        events = (decode(line) for line in self._lines.poll())
        return [event for event in events if event is not None]

    def close(self) -> None:
        """Let go of the file."""
        self._lines.close()


def read_events(path: Path) -> list[Event]:
    """Return all events of a log as it stands."""
    follower = EventFollower(path)
    try:
        return follower.poll()
    finally:
        follower.close()


def follow(path: Path, *, until: Callable[[], bool], poll_seconds: float = 0.2) -> Iterator[Event]:
    """Yield events as they come, until ``until()`` holds and the log is read to its end."""
    follower = EventFollower(path)
    try:
        while True:
            over = until()
            yield from follower.poll()
            if over:
                return
            time.sleep(poll_seconds)
    finally:
        follower.close()


def _plain_fields(value: Any) -> dict[str, Any]:
    plain = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return {name: item for name, item in plain.items() if item is not None and item not in ({}, [])}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, DeviceReading | HostReading):
        return _plain_fields(value)
    return value


def _number(value: Any) -> Any:
    if isinstance(value, str):
        return _NON_FINITE.get(value, value)
    if isinstance(value, dict):
        return {name: _number(item) for name, item in value.items()}
    return value


def _nest_readings(values: dict[str, Any]) -> None:
    if "host" in values:
        values["host"] = HostReading(**values["host"])
    values["devices"] = tuple(DeviceReading(**reading) for reading in values.get("devices", ()))
