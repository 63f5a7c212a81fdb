"""Reads files whose rows need no JSON: .csv, .txt and .parquet."""

import csv
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import BadInput
from .lines import MAX_LINE_BYTES, NumberedRow, lines

_HEAD_BYTES = 64 * 2**10
_BLANK_LINE = re.compile(rb"\S[^\n]*\n[ \t\r]*\n[\s]*\S")
_ROWS_AT_ONCE = 256


def csv_rows(path: Path, file: BinaryIO) -> Iterator[NumberedRow]:
    """Yield the rows below the header; commas, semicolons or tabs part the cells."""
    texts = (line for _, line in lines(path, file))
    header_line = next(texts)
    delimiter = next((mark for mark in (",", ";", "\t") if mark in header_line), ",")
    csv.field_size_limit(MAX_LINE_BYTES)  # the module's own limit of 128 KiB is shorter than a document
    names = next(csv.reader([header_line], delimiter=delimiter), [])
    if len(set(names)) < len(names):
        raise BadInput(f"{path}:1: two columns have the same name")
    reader = csv.reader(texts, delimiter=delimiter, strict=True)
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


def text_rows(path: Path, file: BinaryIO) -> Iterator[NumberedRow]:
    """Yield the texts of a plain text file: its paragraphs, or its lines where no line is blank."""
    has_paragraphs = _BLANK_LINE.search(file.read(_HEAD_BYTES)) is not None
    file.seek(0)
    paragraph: list[str] = []
    start = size = 0
    for number, line in lines(path, file):
        if line.strip():
            start = start if paragraph else number
            paragraph.append(line)
            size += len(line)
            if size > MAX_LINE_BYTES:
                raise BadInput(f"{path}:{start}: paragraph is longer than {MAX_LINE_BYTES // 2**20} MiB")
        if paragraph and (not has_paragraphs or not line.strip()):
            yield start, {"text": "".join(paragraph).rstrip("\r\n")}
            paragraph, size = [], 0
    if paragraph:
        yield start, {"text": "".join(paragraph).rstrip("\r\n")}


def parquet_rows(path: Path, file: BinaryIO) -> Iterator[NumberedRow]:
    """Yield the rows of a parquet file, numbered from 1."""
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise BadInput(f"{path}: parquet files need pyarrow", hint="pip install pyarrow") from error
    number = 0
    try:
        for batch in parquet.ParquetFile(file).iter_batches(batch_size=_ROWS_AT_ONCE):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (ValueError, KeyError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0][:100]
        raise BadInput(f"{path}:{number + 1}: not parquet: {reason}") from error
    if not number:
        raise BadInput(f"{path}: has no rows")
