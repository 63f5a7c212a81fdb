"""Reads data files row by row, finds their format, and turns rows into what a stage trains on."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from ..errors import BadInput
from ..specs.data import DataFormat, DataSummary, RowShape
from ..specs.job import Data
from .convert import Converted, convert, unused_columns
from .read import COUNT_LIMIT_BYTES, NumberedRow, count_rows, read_rows
from .rules import Layout, find_layout
from .words import TrainRow

__all__ = ["DataSummary", "Rows", "inspect", "load_rows"]

NUM_INSPECTED_ROWS = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """All rows of a job in the trainer's form."""

    train: list[TrainRow]
    eval: list[TrainRow]
    format: DataFormat
    shape: RowShape
    note: str | None = None
    """What was left out, in a sentence; None when nothing was."""


def inspect(data: Data, *, stage: str = "sft") -> DataSummary:
    """Say what a data file is from its first rows and its number of rows.

    Args:
        data: The job's data section with paths that can be opened from here.
        stage: The kind of training that the rows are for.

    Raises:
        BadInput: One of the first rows cannot be read or used: ``file:line: reason``.
    """
    path = Path(data.path)
    layout, converted, note = _look(path, data, stage)
    num_rows = _num_rows(path, data)
    if data.eval_path is not None:
        _check_same_shape(layout, _look(Path(data.eval_path), data, stage)[0], data.eval_path)
        num_eval_rows = count_rows(Path(data.eval_path))
    else:
        num_eval_rows = (
            None if num_rows is None and data.eval_fraction else _num_held_out(num_rows or 0, data)
        )
        num_rows = None if num_rows is None else num_rows - (num_eval_rows or 0)
    return DataSummary(
        path=data.path,
        format=layout.rule.format,
        shape=layout.shape,
        columns=dict(layout.columns),
        num_rows=num_rows,
        num_eval_rows=num_eval_rows,
        first_row=converted[0],
        note=note,
    )


def load_rows(data: Data, *, stage: str = "sft") -> Rows:
    """Read all rows that the job trains and evaluates on.

    Held-out rows are ``eval_path``, or every k-th row for ``eval_fraction``: the same rows every time.

    Raises:
        BadInput: A row cannot be read or used (``file:line: reason``), or nothing is left to train on.
    """
    path = Path(data.path)
    layout, rows, notes = _load(path, data, stage, limit=data.num_rows)
    if data.eval_path is not None:
        eval_layout, held_out, eval_notes = _load(Path(data.eval_path), data, stage, limit=None)
        _check_same_shape(layout, eval_layout, data.eval_path)
        notes += eval_notes
        train = rows
    else:
        train, held_out = _split(rows, _num_held_out(len(rows), data))
    return Rows(
        train=train,
        eval=held_out,
        format=layout.rule.format,
        shape=layout.shape,
        note="; ".join(notes) or None,
    )


def _look(path: Path, data: Data, stage: str) -> tuple[Layout, list[TrainRow], str | None]:
    rows = list(islice(read_rows(path, max_bytes=COUNT_LIMIT_BYTES), NUM_INSPECTED_ROWS))
    layout = _layout(path, rows[:1], data, stage)
    converted = [_convert(path, row, layout, data) for row in rows]
    kept = [row for one in converted for row in one.rows]
    if not kept:
        which = f"all of the first {len(rows)} rows" if len(rows) > 1 else "the only row"
        raise _nothing(path, rows[0][0], converted[0].left_out, which)
    unused = unused_columns(rows[0][1], layout)
    notes = [f"not used: {', '.join(unused[:6])}"] if unused else []
    if "turns" in layout.columns.values():
        notes.append("the first of turns is asked")
    return layout, kept, "; ".join(notes) or None


def _load(
    path: Path, data: Data, stage: str, *, limit: int | None
) -> tuple[Layout, list[TrainRow], list[str]]:
    numbered: Iterator[NumberedRow] = islice(read_rows(path), limit)
    first = list(islice(numbered, 1))
    layout = _layout(path, first, data, stage)
    kept: list[TrainRow] = []
    left_out: Counter[str] = Counter()
    num_cut = 0
    for row in chain(first, numbered):
        converted = _convert(path, row, layout, data)
        kept += converted.rows
        left_out.update(converted.left_out)
        num_cut += converted.is_cut
    if not kept:
        raise _nothing(path, first[0][0], tuple(left_out), "all rows")
    notes = [f"{path.name}: rows left out, because {reason}: {number}" for reason, number in left_out.items()]
    if num_cut:
        notes.append(f"{path.name}: last messages left out, because nobody answers them: {num_cut}")
    return layout, kept, notes


def _layout(path: Path, first: list[NumberedRow], data: Data, stage: str) -> Layout:
    if not first:
        raise BadInput(f"{path}: has no rows")
    line, row = first[0]
    return find_layout(row, data, f"{path}:{line}", stage=stage)


def _convert(path: Path, numbered: NumberedRow, layout: Layout, data: Data) -> Converted:
    line, row = numbered
    return convert(row, layout, system=data.system, where=f"{path}:{line}")


def _nothing(path: Path, line: int, reasons: tuple[str, ...], which: str) -> BadInput:
    reason = reasons[0] if reasons else "holds no example"
    return BadInput(f"{path}:{line}: {reason}, as in {which}".removesuffix(", as in the only row"))


def _num_rows(path: Path, data: Data) -> int | None:
    num_rows = count_rows(path)
    if num_rows is None:
        return None
    return num_rows if data.num_rows is None else min(num_rows, data.num_rows)


def _num_held_out(num_rows: int, data: Data) -> int:
    if not data.eval_fraction or not num_rows:
        return 0
    if num_rows == 1:
        raise BadInput(f"{data.path}: one row cannot be split", hint="set data.eval_fraction to 0")
    return max(1, int(num_rows * data.eval_fraction))


def _split(rows: list[TrainRow], num_held_out: int) -> tuple[list[TrainRow], list[TrainRow]]:
    """Hold out rows that are spread evenly over the file."""
    train: list[TrainRow] = []
    held_out: list[TrainRow] = []
    for index, row in enumerate(rows):
        is_held_out = (index + 1) * num_held_out // len(rows) > index * num_held_out // len(rows)
        (held_out if is_held_out else train).append(row)
    return train, held_out


def _check_same_shape(train: Layout, held_out: Layout, eval_path: str) -> None:
    if train.shape != held_out.shape:
        raise BadInput(
            f"{eval_path}: is {held_out.rule.format}, and the training data is {train.rule.format}",
            hint="both files must have the same format",
        )
