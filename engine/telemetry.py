"""The event log: appended by the worker and the supervisor, followed by anyone.

One event is one line and one ``write()``, so that writers on one host never mix and a kill tears at most
the last line. Reading never raises on what it finds: a torn or foreign line is passed over.
"""

import contextlib
import errno
import json
import math
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from .specs.events import EVENT_TYPES, Event
from .specs.machine import DeviceReading, HostReading

MAX_LINE_BYTES = 1 << 20
"""Longer lines are passed over by readers: no event of ours comes near it."""
CHUNK_BYTES = 1 << 20
POLL_BYTES = 8 << 20
"""Most that one poll reads of a file: a backlog of any size is worked off piece by piece."""
_MAX_INT = 2**63 - 1
_MEMORY_BYTES = 64
_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def encode(event: Event) -> bytes:
    """Return the event as one JSON line with its newline.

    JSON has no NaN: non-finite floats become the strings ``"nan"``, ``"inf"`` and ``"-inf"``. Text that is
    no text (lone surrogates, as undecodable file names have) is kept as JSON escapes.
    """
    body = {"kind": event.kind} | _plain_fields(event)
    line = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return line.encode("utf8", "backslashreplace") + b"\n"


def decode(line: bytes) -> Event | None:
    """Return the event of one line, or ``None`` when it is torn, foreign or of an unknown kind.

    Unknown fields and metrics that are no numbers are ignored. A known field of the wrong type makes the
    line foreign, so whoever gets an event can rely on its types.
    """
    try:
        body = json.loads(line)
        return _EVENT_TYPERS[body["kind"]](body)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
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
        if os.write(self._descriptor, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Close the file; append no more."""
        os.close(self._descriptor)

    def _ends_whole(self) -> bool:
        size = os.fstat(self._descriptor).st_size
        return size == 0 or os.pread(self._descriptor, 1, size - 1) == b"\n"


class Follower:
    """Reads a growing file line by line and hands out every complete line once.

    Copes with a file that does not exist yet, is replaced (rotation) or cut (truncation), with a torn
    end, and with lines and backlogs of any size in bounded memory.

    Args:
        path: The file.
        tail_bytes: Of a file that is longer when it is first seen, only so much of the end is read.
    """

    def __init__(self, path: Path, *, tail_bytes: int | None = None) -> None:
        self._path = path
        self._tail_bytes = tail_bytes
        self._descriptor: int | None = None
        self._offset = 0
        self._rest = b""
        self._skipping = False
        self._memory = b""
        self._behind = False

    @property
    def behind(self) -> bool:
        """Whether the last poll left something unread because there was too much for one poll."""
        return self._behind

    def poll(self) -> list[bytes]:
        """Return the lines completed since the last call, without their newlines.

        Reads at most ``POLL_BYTES``; when ``behind`` holds afterwards, poll again for more.
        """
        try:
            return self._poll()
        except OSError:  # gone or unreadable underneath us (NFS): start over when it comes back
            self.close()
            return []

    def close(self) -> None:
        """Let go of the file; a later poll starts again at its beginning."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor, self._behind = None, False
        self._restart()

    def _poll(self) -> list[bytes]:
        if self._descriptor is None and not self._open():
            return []
        replaced = self._was_replaced()  # asked before reading: what the old file got until then is read
        lines = self._read_new()
        if replaced and not self._behind:
            self.close()
            if self._open():
                lines += self._read_new()
        return lines

    def _restart(self) -> None:
        self._offset, self._rest, self._skipping, self._memory = 0, b"", False, b""

    def _open(self) -> bool:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return False
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        beyond = 0 if self._tail_bytes is None else os.fstat(descriptor).st_size - self._tail_bytes
        if beyond > 0:
            self._offset, self._skipping = beyond, True
        return True

    def _was_replaced(self) -> bool:
        assert self._descriptor is not None
        try:
            current = self._path.stat()
        except FileNotFoundError:
            return False
        mine = os.fstat(self._descriptor)
        return (current.st_dev, current.st_ino) != (mine.st_dev, mine.st_ino)

    def _was_cut(self) -> bool:
        """Whether the file is shorter than what was read, or was cut and has grown past it since."""
        assert self._descriptor is not None
        if os.fstat(self._descriptor).st_size < self._offset:
            return True
        before = os.pread(self._descriptor, len(self._memory), self._offset - len(self._memory))
        return before != self._memory

    def _read_new(self) -> list[bytes]:
        assert self._descriptor is not None
        if self._was_cut():
            self._restart()
        lines: list[bytes] = []
        end = self._offset + POLL_BYTES
        while self._offset < end and (chunk := os.pread(self._descriptor, CHUNK_BYTES, self._offset)):
            self._offset += len(chunk)
            self._memory = (self._memory + chunk[-_MEMORY_BYTES:])[-_MEMORY_BYTES:]
            lines += self._split(chunk)
        self._behind = self._offset >= end
        return lines

    def _split(self, chunk: bytes) -> list[bytes]:
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        if whole and self._skipping:
            del whole[0]
            self._skipping = False
        if len(self._rest) > MAX_LINE_BYTES:
            self._rest, self._skipping = b"", True
        return [line for line in whole if len(line) <= MAX_LINE_BYTES]


class EventFollower:
    """Follows an event log and hands out its events."""

    def __init__(self, path: Path) -> None:
        self._lines = Follower(path)

    @property
    def behind(self) -> bool:
        """Whether the last poll left something unread because there was too much for one poll."""
        return self._lines.behind

    def poll(self) -> list[Event]:
        """Return the events completed since the last call; when ``behind`` holds, poll again for more."""
        events = (decode(line) for line in self._lines.poll())
        return [event for event in events if event is not None]

    def close(self) -> None:
        """Let go of the file."""
        self._lines.close()


def read_events(path: Path) -> list[Event]:
    """Return all events of a log as it stands."""
    return list(follow(path, until=lambda: True))


def follow(path: Path, *, until: Callable[[], bool], poll_seconds: float = 0.2) -> Iterator[Event]:
    """Yield events as they come, until ``until()`` holds and the log is read to its end."""
    follower = EventFollower(path)
    try:
        while True:
            over = until()
            yield from follower.poll()
            while follower.behind:
                yield from follower.poll()
            if over:
                return
            time.sleep(poll_seconds)
    finally:
        follower.close()


def _plain_fields(value: Any) -> dict[str, Any]:
    known = {field.name: getattr(value, field.name) for field in fields(value)}
    # A host of which nothing is known is still a host: only empty mappings and tuples are their defaults.
    return {name: _plain(item) for name, item in known.items() if item is not None and item not in ({}, ())}


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


@cache
def _typer(wanted: Any) -> Callable[[Any], Any]:
    """Return what makes a JSON value the type that a field declares.

    The result raises TypeError, KeyError or OverflowError on a value of another type.
    """
    if get_origin(wanted) is UnionType:
        return _optional(_typer(next(arm for arm in get_args(wanted) if arm is not type(None))))
    if get_origin(wanted) is Literal:
        return _one_of(get_args(wanted))
    if get_origin(wanted) is tuple:
        return _list_of(_typer(get_args(wanted)[0]))
    if get_origin(wanted) is Mapping:
        return _mapping_of(_typer(get_args(wanted)[1]))
    return _PLAIN_TYPERS.get(wanted) or _noun(wanted)


def _float(value: Any) -> float:
    if type(value) is float:
        return value
    if type(value) is int:  # bool is an int to isinstance
        return float(value)
    if type(value) is str:
        return _NON_FINITE[value]
    raise TypeError


def _int(value: Any) -> int:
    if type(value) is int and abs(value) <= _MAX_INT:
        return value
    raise TypeError


def _str(value: Any) -> str:
    if type(value) is str:
        return value
    raise TypeError


def _bool(value: Any) -> bool:
    if type(value) is bool:
        return value
    raise TypeError


_PLAIN_TYPERS: Mapping[type, Callable[[Any], Any]] = {float: _float, int: _int, str: _str, bool: _bool}


def _optional(typer: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else typer(value)


def _one_of(allowed: tuple[str, ...]) -> Callable[[Any], str]:
    return {word: word for word in allowed}.__getitem__


def _list_of(typer: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    def typed(value: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise TypeError
        return tuple(map(typer, value))

    return typed


def _mapping_of(typer: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    """Leave out the items of another type: a trainer may log anything under a name of its own."""

    def typed(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise TypeError
        kept = {}
        for name, item in value.items():
            with contextlib.suppress(TypeError, KeyError, OverflowError):
                kept[name] = typer(item)
        return kept

    return typed


def _noun(wanted: type) -> Callable[[Any], Any]:
    hints = get_type_hints(wanted)
    typers = {field.name: _typer(hints[field.name]) for field in fields(wanted)}

    def typed(value: Any) -> Any:
        if type(value) is not dict:
            raise TypeError
        return wanted(**{name: typers[name](item) for name, item in value.items() if name in typers})

    return typed


_EVENT_TYPERS: Mapping[str, Callable[[Any], Event]] = {
    event_type.kind: _noun(event_type) for event_type in EVENT_TYPES
}
