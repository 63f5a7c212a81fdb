"""Reads scalars out of TensorBoard's event files, without TensorFlow: records of protocol buffers.

A file is a row of records: length (8 bytes), its checksum (4), the data, its checksum (4). The data is an
``Event`` of tensorflow/core/util/event.proto, of which the fields named here are read. Whatever is torn,
foreign or not a scalar is passed over.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_RECORD_BYTES = 8 << 20
CHUNK_BYTES = 8 << 20
_WALL_TIME, _STEP, _SUMMARY = 1, 2, 5  # Event
_VALUE = 1  # Summary
_TAG, _SIMPLE_VALUE, _TENSOR = 1, 2, 8  # Summary.Value
_DTYPE, _CONTENT, _FLOATS, _DOUBLES = 1, 4, 5, 6  # TensorProto
_FLOAT, _DOUBLE = 1, 2  # DataType
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5  # wire types


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value of one tag."""

    wall_time: float
    step: int
    tag: str
    value: float


class ScalarFile:
    """Follows one event file; a record that is not whole yet is read the next time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self.behind = False

    def poll(self) -> list[Scalar]:
        """Return the scalars that came since the last call; at most some megabytes of the file at once."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(CHUNK_BYTES)
        except OSError:
            return []
        self.behind = len(data) == CHUNK_BYTES
        found: list[Scalar] = []
        at = 0
        while at + 12 <= len(data):
            (size,) = struct.unpack_from("<Q", data, at)
            if size > MAX_RECORD_BYTES:  # no event of a training: the file is broken from here
                self.behind = False
                break
            if at + 16 + size > len(data):
                break
            found += scalars(data[at + 12 : at + 12 + size])
            at += 16 + size
        self._offset += at
        self.behind = self.behind and at > 0
        return found


def scalars(event: bytes) -> list[Scalar]:
    """Return the scalars of one ``Event``; none where it is broken."""
    wall_time, step = 0.0, 0
    summaries: list[bytes] = []
    try:
        for field, value in _fields(event):
            if field == _WALL_TIME and isinstance(value, bytes) and len(value) == 8:  # noqa: PLR2004 - a double
                (wall_time,) = struct.unpack("<d", value)
            elif field == _STEP and isinstance(value, int):
                step = value
            elif field == _SUMMARY and isinstance(value, bytes):
                summaries.append(value)
        return [
            Scalar(wall_time, step, *found)
            for summary in summaries
            for field, value in _fields(summary)
            if field == _VALUE and isinstance(value, bytes) and (found := _value(value)) is not None
        ]
    except (ValueError, struct.error):
        return []


def _value(data: bytes) -> tuple[str, float] | None:
    tag, number = None, None
    for field, value in _fields(data):
        if not isinstance(value, bytes):
            continue
        if field == _TAG:
            tag = value.decode("utf8", "replace")
        elif field == _SIMPLE_VALUE and len(value) == 4:  # noqa: PLR2004 - a float
            (number,) = struct.unpack("<f", value)
        elif field == _TENSOR:
            number = _tensor(value)
    return (tag, number) if tag is not None and number is not None else None


def _tensor(data: bytes) -> float | None:
    """Return the number of a tensor of one float or double, as PyTorch's newer writers keep scalars."""
    found = dict(_fields(data))
    dtype = found.get(_DTYPE)
    content = found.get(_CONTENT) or found.get(_FLOATS if dtype == _FLOAT else _DOUBLES)
    form = {_FLOAT: "<f", _DOUBLE: "<d"}.get(dtype if isinstance(dtype, int) else 0)
    if form is None or not isinstance(content, bytes) or len(content) != struct.calcsize(form):
        return None
    (number,) = struct.unpack(form, content)
    return float(number)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield field numbers and values of a message.

    Raises:
        ValueError: The message ends within a field, or has a wire type that is not used any more.
    """
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == _VARINT:
            number, at = _varint(data, at)
            yield key >> 3, number
            continue
        size = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}.get(wire)
        if wire == _BYTES:
            size, at = _varint(data, at)
        if size is None or at + size > len(data):
            raise ValueError("torn message")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(data) and shift < 70:  # noqa: PLR2004 - ten bytes hold 64 bits
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the last byte of a number
            return number, at
        shift += 7
    raise ValueError("torn number")
