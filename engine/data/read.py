"""Reads data files as numbered rows, one at a time, and says ``file:line: reason`` when it cannot.

No file is ever held whole: a row is what is in memory, and a row has at most 64 MiB.
"""

import json
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from ..errors import BadInput
from .arrays import array_rows
from .lines import MAX_LINE_BYTES, NumberedRow, checked_row, lines, odd_json
from .tables import csv_rows, parquet_rows, text_rows

__all__ = ["COUNT_LIMIT_BYTES", "KINDS", "NumberedRow", "count_rows", "read_on", "read_rows"]

KINDS = (".jsonl", ".json", ".csv", ".txt", ".parquet")
COUNT_LIMIT_BYTES = 64 * 2**20
"""A larger file is not counted unless it has a row a line: that needs all of it to be parsed."""
_PARQUET = b"PAR1"

Reader = Callable[[Path, BinaryIO], Iterator[NumberedRow]]


def read_rows(path: Path) -> Iterator[NumberedRow]:
    """Yield the rows of a data file lazily, each with its line (of a parquet file: its number).

    Raises:
        BadInput: The file or a row of it cannot be read; raised when that row is reached.
    """
    _check(path)
    try:
        with path.open("rb") as file:
            yield from _reader(path, file)(path, file)
    except OSError as error:
        raise _unreadable(path, error) from error


def read_on(path: Path) -> Iterator[NumberedRow | BadInput]:
    """Yield the rows of a file, and in place of a broken one what is wrong with it.

    A file that has a row a line is read on after a broken row; any other ends there.

    Raises:
        BadInput: The file cannot be read at all.
    """
    _check(path)
    try:
        with path.open("rb") as file:
            reader = _reader(path, file)
            found = _patient_json_lines if reader is _json_lines else reader
            yield from found(path, file)
    except OSError as error:
        raise _unreadable(path, error) from error
    except BadInput as error:
        yield error


def _reader(path: Path, file: BinaryIO) -> Reader:
    kind = path.suffix.lower()
    if kind in _TABLES:
        return _TABLES[kind]
    return array_rows if _is_one_value(path, file) else _json_lines


def count_rows(path: Path) -> int | None:
    """Count the rows of a file; ``None`` when that would take long."""
    _check(path)
    try:
        with path.open("rb") as file:
            if _reader(path, file) is _json_lines:
                return sum(1 for line in file if line.strip())
        if path.suffix.lower() != ".parquet" and path.stat().st_size > COUNT_LIMIT_BYTES:
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
    _check_head(path)


def _check_head(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise _unreadable(path, error) from error
    if path.suffix.lower() == ".parquet":
        if not head.startswith(_PARQUET):
            raise BadInput(f"{path}: is no parquet file: it does not begin with {_PARQUET.decode()}")
        return
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
    for number, line in lines(path, file):
        if line.strip():
            yield _json_line(path, number, line)


def _json_line(path: Path, number: int, line: str) -> NumberedRow:
    try:
        value = json.loads(line.rstrip("\r\n"))
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}:{number}: not JSON: {error.msg} (column {error.colno})") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}:{number}: {odd_json(error)}") from error
    return number, checked_row(path, number, value)


def _patient_json_lines(path: Path, file: BinaryIO) -> Iterator[NumberedRow | BadInput]:
    for number, line in lines(path, file):
        if line.strip():
            try:
                yield _json_line(path, number, line)
            except BadInput as error:
                yield error


_TABLES: Mapping[str, Reader] = {".csv": csv_rows, ".txt": text_rows, ".parquet": parquet_rows}
