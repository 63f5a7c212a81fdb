"""Reads .jsonl, .json and .csv files as numbered rows, and says ``file:line: reason`` when it cannot."""

import csv
import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import BadInput
from .words import type_name

NumberedRow = tuple[int, dict[str, object]]
"""Line at which the row starts (from 1), and its columns."""

KINDS = (".jsonl", ".json", ".csv")
COUNT_LIMIT_BYTES = 64 * 2**20
"""A larger .json or .csv is not counted: that needs all of it to be parsed."""
MAX_LINE_BYTES = 64 * 2**20
_SPACE = re.compile(r"[ \t\r\n]*")


def read_rows(path: Path, *, max_bytes: int | None = None) -> Iterator[NumberedRow]:
    """Yield the rows of a data file lazily.

    Args:
        path: A .jsonl, .json or .csv file.
        max_bytes: Of a JSON array, look no further than this and end quietly there.

    Raises:
        BadInput: The file or a row of it cannot be read; raised when that row is reached.
    """
    _check(path)
    try:
        with path.open("rb") as file:
            if path.suffix.lower() == ".csv":
                yield from _csv_rows(path, file)
            elif _is_one_value(path, file):
                yield from _array_rows(path, file, max_bytes)
            else:
                yield from _json_lines(path, file)
    except OSError as error:
        raise _unreadable(path, error) from error


def count_rows(path: Path) -> int | None:
    """Count the rows of a file; ``None`` when that would take long."""
    _check(path)
    try:
        with path.open("rb") as file:
            if path.suffix.lower() != ".csv" and not _is_one_value(path, file):
                return sum(1 for line in file if line.strip())
        if path.stat().st_size > COUNT_LIMIT_BYTES:
            return None
    except OSError as error:
        raise _unreadable(path, error) from error
    return sum(1 for _ in read_rows(path))


def _unreadable(path: Path, error: OSError) -> BadInput:
    return BadInput(f"{path}: cannot be read: {error.strerror or error}")


def _check(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadInput(f"{path}: cannot be read: {reason}", hint="check data.path") from error
    if stat.S_ISDIR(mode):
        raise BadInput(f"{path}: is a folder, not a data file", hint=f"name one file: {', '.join(KINDS)}")
    if not stat.S_ISREG(mode):
        raise BadInput(f"{path}: is not a regular file")
    if path.suffix.lower() not in KINDS:
        raise BadInput(
            f"{path}: unknown kind of file {path.suffix!r}", hint=f"data files are {', '.join(KINDS)}"
        )
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise _unreadable(path, error) from error
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BadInput(f"{path}:1: is UTF-16", hint="save it as UTF-8")
    if b"\0" in head:
        raise BadInput(f"{path}:1: is a binary file, not text")
    if not head.strip():
        raise BadInput(f"{path}: is empty")


def _is_one_value(path: Path, file: BinaryIO) -> bool:
    """Whether the file is one JSON value (an array of rows) and not one object a line."""
    first = file.readline(MAX_LINE_BYTES).lstrip(b"\xef\xbb\xbf \t\r\n")
    while not first:
        line = file.readline(MAX_LINE_BYTES)
        if not line:
            break
        first = line.strip()
    file.seek(0)
    if first.startswith(b"[") or path.suffix.lower() == ".jsonl":
        return first.startswith(b"[")
    try:  # .json files that hold one object a line are common
        return not isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return True


def _json_lines(path: Path, file: BinaryIO) -> Iterator[NumberedRow]:
    for number, line in _lines(path, file):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise BadInput(f"{path}:{number}: not JSON: {error.msg} (column {error.colno})") from error
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{path}:{number}: {_odd_json(error)}") from error
        yield number, _row(path, number, value)


def _array_rows(path: Path, file: BinaryIO, max_bytes: int | None) -> Iterator[NumberedRow]:
    raw = file.read(-1 if max_bytes is None else max_bytes)
    is_whole = not file.read(1)
    text = _decode(path, raw if is_whole else raw[: raw.rfind(b"\n") + 1], line=1).removeprefix("\ufeff")
    start = _skip(text, 0)
    if not text.startswith("[", start):
        raise BadInput(f"{path}:1: holds one object; a list of rows is expected", hint="[{...}, {...}]")
    decoder = json.JSONDecoder()
    line, counted = 1, 0
    position = _skip(text, start + 1)
    if text.startswith("]", position):
        raise BadInput(f"{path}: is an empty list")
    while True:
        line, counted = line + text.count("\n", counted, position), position
        try:
            value, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            if not is_whole:
                return
            raise _bad_json(path, line, error) from error
        yield line, _row(path, line, value)
        position = _skip(text, position)
        if text.startswith("]", position):
            break
        if not text.startswith(",", position):
            if not is_whole:
                return
            line += text.count("\n", counted, position)
            reason = "not JSON: ',' or ']' expected" if position < len(text) else "the list is cut off"
            raise BadInput(f"{path}:{line}: {reason}")
        position = _skip(text, position + 1)
    if _skip(text, position + 1) < len(text):
        raise BadInput(f"{path}:{text.count(chr(10), 0, position) + 1}: more text after the list of rows")


def _csv_rows(path: Path, file: BinaryIO) -> Iterator[NumberedRow]:
    lines = (line for _, line in _lines(path, file))
    header_line = next(lines)
    delimiter = next((mark for mark in (",", ";", "\t") if mark in header_line), ",")
    csv.field_size_limit(MAX_LINE_BYTES)  # the module's own limit of 128 KiB is shorter than a document
    names = next(csv.reader([header_line], delimiter=delimiter), [])
    if len(set(names)) < len(names):
        raise BadInput(f"{path}:1: two columns have the same name")
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    is_empty = True
    while True:
        number = reader.line_num + 2  # the header is line 1, and line_num is what was read before this row
        try:
            values = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise BadInput(f"{path}:{number}: not CSV: {error}") from error
        if not values:
            continue
        if len(values) != len(names):
            raise BadInput(f"{path}:{number}: {len(values)} columns, the header has {len(names)}")
        is_empty = False
        yield number, dict(zip(names, values, strict=True))
    if is_empty:
        raise BadInput(f"{path}: has a header and no rows")


def _lines(path: Path, file: BinaryIO) -> Iterator[tuple[int, str]]:
    number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(raw) > MAX_LINE_BYTES:
            raise BadInput(f"{path}:{number}: line is longer than {MAX_LINE_BYTES // 2**20} MiB")
        line = _decode(path, raw, line=number)
        yield number, line.removeprefix("\ufeff") if number == 1 else line


def _decode(path: Path, raw: bytes, *, line: int) -> str:
    try:
        return raw.decode("utf8")
    except UnicodeDecodeError as error:
        number = line + raw.count(b"\n", 0, error.start)
        message = f"{path}:{number}: not UTF-8 (byte 0x{raw[error.start]:02x})"
        raise BadInput(message, hint="save it as UTF-8") from error


def _row(path: Path, number: int, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise BadInput(f"{path}:{number}: row is {type_name(value)}, not an object with columns")
    if not value:
        raise BadInput(f"{path}:{number}: row has no columns")
    return value


def _bad_json(path: Path, line: int, error: ValueError | RecursionError) -> BadInput:
    if isinstance(error, json.JSONDecodeError):
        return BadInput(f"{path}:{error.lineno}: not JSON: {error.msg} (column {error.colno})")
    return BadInput(f"{path}:{line}: {_odd_json(error)}")


def _odd_json(error: ValueError | RecursionError) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else "holds a number that is too long"


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    assert match is not None
    return match.end()
