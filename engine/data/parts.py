"""One file of a job's data, looked into or read whole, and several of them brought into one shape."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from ..errors import BadInput
from ..specs.data import DataFormat, RowShape
from .convert import Converted, convert, unused_columns
from .read import NumberedRow, count_rows, read_rows
from .rules import Layout, find_layout
from .sources import Source
from .words import TrainRow

NUM_INSPECTED_ROWS = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What one file holds."""

    source: Source
    layout: Layout
    examples: list[tuple[TrainRow, ...]]
    """The rows that each row of the file became; they stay together when rows are held out."""
    notes: tuple[str, ...]
    num_rows: int | None
    """Rows to train on; ``None`` when they are not counted."""


def look(source: Source, *, stage: str) -> Part:
    """Read the first rows of a file, and count all of them.

    Raises:
        BadInput: One of the first rows cannot be read or used, or teaches nothing.
    """
    rows = list(islice(read_rows(source.path), min(NUM_INSPECTED_ROWS, source.data.num_rows or 50)))
    layout = _layout(source, rows[:1], stage)
    converted = [_convert(source, row, layout) for row in rows]
    examples = [one.rows for one in converted if one.rows]
    if not examples:
        which = f"all of the first {len(rows)} rows" if len(rows) > 1 else ""
        raise _nothing(source, rows[0][0], converted[0].left_out, which)
    unused = unused_columns(rows[0][1], layout)
    notes = [f"not used: {', '.join(unused[:6])}"] if unused else []
    if "turns" in layout.columns.values():
        notes.append("of turns, the first is asked")
    num_rows = count_rows(source.path)
    if num_rows is not None:
        num_rows = min(num_rows, source.data.num_rows or num_rows) * _rows_of_one(layout)
    return Part(source=source, layout=layout, examples=examples, notes=tuple(notes), num_rows=num_rows)


def load(source: Source, *, stage: str) -> Part:
    """Read a file whole.

    Raises:
        BadInput: A row cannot be read or used, or no row teaches anything.
    """
    numbered: Iterator[NumberedRow] = islice(read_rows(source.path), source.data.num_rows)
    first = list(islice(numbered, 1))
    layout = _layout(source, first, stage)
    examples: list[tuple[TrainRow, ...]] = []
    left_out: Counter[str] = Counter()
    num_cut = 0
    for row in chain(first, numbered):
        converted = _convert(source, row, layout)
        if converted.rows:
            examples.append(converted.rows)
        left_out.update(converted.left_out)
        num_cut += converted.is_cut
    if not examples:
        raise _nothing(source, first[0][0], tuple(left_out), "all rows")
    notes = [f"rows left out, because {reason}: {number}" for reason, number in left_out.items()]
    if num_cut:
        notes.append(f"last messages left out, because nobody answers them: {num_cut}")
    return Part(
        source=source,
        layout=layout,
        examples=examples,
        notes=tuple(f"{source.path.name}: {note}" for note in notes),
        num_rows=sum(map(len, examples)),
    )


def shared_shape(parts: Sequence[Part]) -> RowShape:
    """Return the shape that rows of several files are brought into.

    Raises:
        BadInput: There is none: plain text beside conversations.
    """
    shapes = {part.layout.shape for part in parts}
    if len(shapes) == 1:
        return parts[0].layout.shape
    if shapes == {"messages", "prompt_completion"}:
        return "messages"
    other = next(part for part in parts if part.layout.shape != parts[0].layout.shape)
    raise different(other, parts[0])


def different(other: Part, first: Part) -> BadInput:
    """Return the error for two files that cannot be trained on together."""
    return BadInput(
        f"{other.source.path}: is {other.layout.rule.format}, and {first.source.path.name} is "
        f"{first.layout.rule.format}",
        hint="files that are used together must have the same kind of rows",
    )


def reshaped(row: TrainRow, shape: RowShape) -> TrainRow:
    """Return a question with its answer as one conversation, where files of both kinds are used together."""
    if shape != "messages" or "messages" in row:
        return row
    prompt, completion = row["prompt"], row["completion"]
    assert isinstance(prompt, list)
    assert isinstance(completion, list)
    rest = {name: value for name, value in row.items() if name not in {"prompt", "completion"}}
    return {"messages": [*prompt, *completion], **rest}


def shared_format(parts: Sequence[Part]) -> DataFormat:
    """Return the format of all files, or that they are of several."""
    formats = {part.layout.rule.format for part in parts}
    return formats.pop() if len(formats) == 1 else "mixed"


def _rows_of_one(layout: Layout) -> int:
    return 2 if (layout.rule.shape, layout.shape) == ("preference", "unpaired") else 1


def _layout(source: Source, first: list[NumberedRow], stage: str) -> Layout:
    if not first:
        raise BadInput(f"{source.path}: has no rows")
    line, row = first[0]
    return find_layout(row, source, f"{source.path}:{line}", stage=stage)


def _convert(source: Source, numbered: NumberedRow, layout: Layout) -> Converted:
    line, row = numbered
    return convert(row, layout, system=source.data.system, where=f"{source.path}:{line}")


def _nothing(source: Source, line: int, reasons: tuple[str, ...], which: str) -> BadInput:
    reason = reasons[0] if reasons else "holds no example"
    return BadInput(f"{source.path}:{line}: {reason}{', as in ' if which else ''}{which}")
