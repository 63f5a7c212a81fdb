"""Lines of a file as text, each with its number, and what is wrong with their bytes."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import BadInput
from .words import type_name

NumberedRow = tuple[int, dict[str, object]]
"""Line at which the row starts (from 1), and its columns."""
MAX_LINE_BYTES = 64 * 2**20
"""Longest line, and longest row."""


def lines(path: Path, file: BinaryIO) -> Iterator[tuple[int, str]]:
    """Yield each line with its number, without a byte order mark.

    Raises:
        BadInput: A line is too long, or not UTF-8.
    """
    number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(raw) > MAX_LINE_BYTES:
            raise BadInput(f"{path}:{number}: line is longer than {MAX_LINE_BYTES // 2**20} MiB")
        try:
            line = raw.decode("utf8")
        except UnicodeDecodeError as error:
            raise not_utf8(path, number, raw[error.start]) from error
        yield number, line.removeprefix("\ufeff") if number == 1 else line


def not_utf8(path: Path, line: int, byte: int) -> BadInput:
    """Return the error for a byte that is no letter."""
    return BadInput(f"{path}:{line}: not UTF-8 (byte 0x{byte:02x})", hint="save it as UTF-8")


def checked_row(path: Path, number: int, value: object) -> dict[str, object]:
    """Return a JSON value that must be a row: an object with columns."""
    if not isinstance(value, dict):
        raise BadInput(f"{path}:{number}: row is {type_name(value)}, not an object with columns")
    if not value:
        raise BadInput(f"{path}:{number}: row has no columns")
    return value


def odd_json(error: ValueError | RecursionError) -> str:
    """Say what is wrong with JSON that is well-formed and still cannot be read."""
    return "nested too deeply" if isinstance(error, RecursionError) else "holds a number that is too long"
