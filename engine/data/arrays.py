"""Reads a JSON array of rows without holding it: as much text as the row at hand needs."""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import BadInput
from .lines import MAX_LINE_BYTES, NumberedRow, checked_row, not_utf8, odd_json

_CHUNK_BYTES = 2**18
_SPACE = re.compile(r"[ \t\r\n]*")
_NEAR_END = 16
"""A word or number that the text's end cuts is no longer; an error further from the end is one."""


def array_rows(path: Path, file: BinaryIO) -> Iterator[NumberedRow]:
    """Yield the objects of a list, each with the line at which it begins.

    Raises:
        BadInput: The file is not a list of objects; raised when the row at fault is reached.
    """
    text = _Text(path, file)
    if not text.take("["):
        raise BadInput(f"{path}:1: holds one object; a list of rows is expected", hint="[{...}, {...}]")
    if text.take("]"):
        raise BadInput(f"{path}: is an empty list")
    while True:
        line, value = text.value()
        yield line, checked_row(path, line, value)
        if text.take("]"):
            break
        if not text.take(","):
            reason = "the list is cut off" if text.at_end() else "not JSON: ',' or ']' expected"
            raise BadInput(f"{path}:{text.line()}: {reason}")
    if not text.at_end():
        raise BadInput(f"{path}:{text.closed_on}: more text after the list of rows")


class _Text:
    """The text from the place that was reached, as far as it was read."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._json = json.JSONDecoder()
        self._text, self._position, self._is_whole = "", 0, False
        self._line, self._counted, self._columns_before = 1, 0, 0
        self.closed_on = 1
        """Line on which the last mark was taken."""

    def take(self, mark: str) -> bool:
        """Pass a mark when it comes next."""
        self._skip()
        if not self._text.startswith(mark, self._position):
            return False
        self.closed_on = self.line()
        self._position += 1
        return True

    def at_end(self) -> bool:
        """Whether nothing follows."""
        self._skip()
        return self._position >= len(self._text)

    def line(self) -> int:
        """Return the number of the line that was reached."""
        self._line += self._text.count("\n", self._counted, self._position)
        self._counted = self._position
        return self._line

    def value(self) -> tuple[int, object]:
        """Return the next value and the line at which it begins."""
        self._skip()
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                if self._is_cut(error) and self._more():
                    continue
                raise self._bad(error) from error
            except (ValueError, RecursionError) as error:
                raise BadInput(f"{self._path}:{self.line()}: {odd_json(error)}") from error
            line, self._position = self.line(), end
            return line, value

    def _skip(self) -> None:
        while True:
            match = _SPACE.match(self._text, self._position)
            assert match is not None
            self._position = match.end()
            if self._position < len(self._text) or not self._more():
                return

    def _is_cut(self, error: json.JSONDecodeError) -> bool:
        if len(self._text) - self._position > MAX_LINE_BYTES:
            raise BadInput(f"{self._path}:{self.line()}: row is longer than {MAX_LINE_BYTES // 2**20} MiB")
        return error.msg.startswith(("Unterminated", "Invalid \\")) or (
            error.pos >= len(self._text) - _NEAR_END
        )

    def _more(self) -> bool:
        """Read on, and forget what was passed. Twice as much each time: a long row is parsed a few times."""
        if self._is_whole:
            return False
        line = self.line()
        line_break = self._text.rfind("\n", 0, self._position)
        self._columns_before = self._position - line_break - 1 + (line_break < 0) * self._columns_before
        rest = self._text[self._position :]
        raw = self._file.read(max(_CHUNK_BYTES, len(rest)))
        self._is_whole = not raw
        try:
            self._text = rest + self._decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            before = rest.count("\n") + error.object.count(b"\n", 0, error.start)
            raise not_utf8(self._path, line + before, error.object[error.start]) from error
        self._position = self._counted = 0
        return True

    def _bad(self, error: json.JSONDecodeError) -> BadInput:
        column = error.colno + (self._columns_before if error.lineno == 1 else 0)
        begun = self.line() - self._text.count("\n", 0, self._position)  # of the text that is held
        return BadInput(f"{self._path}:{begun + error.lineno - 1}: not JSON: {error.msg} (column {column})")
