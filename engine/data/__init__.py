"""Reads data files row by row, finds their format, and turns rows into what a stage trains on."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import BadInput
from ..specs.data import DataFormat, DataSummary, RowShape
from ..specs.job import Data
from .mixing import shares, taken, woven
from .parts import Part, different, load, look, reshaped, shared_format, shared_shape
from .sources import sources
from .words import TrainRow

__all__ = ["DataSummary", "Rows", "inspect", "load_rows"]

Example = tuple[TrainRow, ...]


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
    """Say what a job's data is from its first rows and its number of rows.

    Args:
        data: The job's data section with paths that can be opened from here.
        stage: The kind of training that the rows are for.

    Raises:
        BadInput: One of the first rows cannot be read or used: ``file:line: reason``.
    """
    parts = [look(source, stage=stage) for source in sources(data.paths, data, stage=stage)]
    shape = shared_shape(parts)
    held_out_parts = _eval_parts(data, stage, whole=False)
    _check_held_out(held_out_parts, parts)
    held_out = [_num_held_out(part.num_rows, data, part) for part in parts]
    left = [None if num is None else num - (held or 0) for num, held in _counted(parts, held_out)]
    num_rows, mixed = _num_mixed(left, parts, data)
    num_eval_rows = _total([part.num_rows for part in held_out_parts]) if held_out_parts else _total(held_out)
    notes = [note for part in parts for note in _named_notes(part, parts)]
    return DataSummary(
        path=data.paths[0],
        paths=data.paths,
        format=shared_format(parts),
        shape=shape,
        columns=dict(parts[0].layout.columns),
        num_rows=num_rows,
        num_eval_rows=num_eval_rows,
        first_row=reshaped(parts[0].examples[0][0], shape),
        note="; ".join([*notes, *mixed]) or None,
    )


def load_rows(data: Data, *, stage: str = "sft") -> Rows:
    """Read all rows that the job trains and evaluates on.

    Held-out rows are ``eval_path``, or every k-th row of each file for ``eval_fraction``: the same rows every
    time.

    Raises:
        BadInput: A row cannot be read or used (``file:line: reason``), or nothing is left to train on.
    """
    parts = [load(source, stage=stage) for source in sources(data.paths, data, stage=stage)]
    shape = shared_shape(parts)
    held_out_parts = _eval_parts(data, stage, whole=True)
    _check_held_out(held_out_parts, parts)
    held_out: list[Example] = [example for part in held_out_parts for example in part.examples]
    train: list[list[Example]] = []
    for part in parts:
        kept, held = _split(part.examples, _num_held_out(len(part.examples), data, part) or 0)
        train.append(kept)
        held_out += held
    weights = _weights(parts, data)
    nums = shares([len(examples) for examples in train], weights, data.mixing)
    used = [taken(examples, num) for examples, num in zip(train, nums, strict=True)]
    ordered = woven(used) if weights else [example for examples in used for example in examples]
    counts = _words_of_mixing(parts, [len(examples) for examples in train], nums) if weights else []
    notes = [note for part in (*parts, *held_out_parts) for note in part.notes]
    return Rows(
        train=_flat(ordered, shape),
        eval=_flat(held_out, shape),
        format=shared_format(parts),
        shape=shape,
        note="; ".join([*notes, *counts]) or None,
    )


def _flat(examples: Sequence[Example], shape: RowShape) -> list[TrainRow]:
    return [reshaped(row, shape) for example in examples for row in example]


def _eval_parts(data: Data, stage: str, *, whole: bool) -> list[Part]:
    # The limit on rows is for what is trained on.
    every = data.model_copy(update={"num_rows": None})
    found = sources(data.eval_paths, every, stage=stage)
    return [(load if whole else look)(source, stage=stage) for source in found]


def _check_held_out(held_out: Sequence[Part], parts: Sequence[Part]) -> None:
    for part in held_out:
        if part.layout.shape not in {one.layout.shape for one in parts}:
            raise different(part, parts[0])


def _num_held_out(num_rows: int | None, data: Data, part: Part) -> int | None:
    if data.eval_paths or not data.eval_fraction:
        return 0
    if num_rows is None:
        return None
    if num_rows == 1:
        raise BadInput(f"{part.source.path}: one row cannot be split", hint="set data.eval_fraction to 0")
    return max(1, int(num_rows * data.eval_fraction))


def _counted(parts: Sequence[Part], held_out: Sequence[int | None]) -> list[tuple[int | None, int | None]]:
    return [(part.num_rows, held) for part, held in zip(parts, held_out, strict=True)]


def _total(nums: Sequence[int | None]) -> int | None:
    return None if None in nums else sum(num for num in nums if num is not None)


def _num_mixed(nums: Sequence[int | None], parts: Sequence[Part], data: Data) -> tuple[int | None, list[str]]:
    """Return the number of rows that are trained on, and what is said of the mixing."""
    weights = _weights(parts, data)
    known = [num for num in nums if num is not None]
    if len(known) < len(nums) or not weights:
        return _total(nums), []
    mixed = shares(known, weights, data.mixing)
    return sum(mixed), _words_of_mixing(parts, known, mixed)


def _weights(parts: Sequence[Part], data: Data) -> tuple[float, ...]:
    """Return a share for each file, or nothing when they are not mixed."""
    if data.weights and len(data.weights) != len(parts):
        raise BadInput(
            f"data.weights: {len(data.weights)} shares for {len(parts)} files", hint="give one for each file"
        )
    return data.weights


def _words_of_mixing(parts: Sequence[Part], nums: Sequence[int], mixed: Sequence[int]) -> list[str]:
    return [
        f"{part.source.path.name}: {num} rows, {used} used"
        for part, num, used in zip(parts, nums, mixed, strict=True)
    ]


def _named_notes(part: Part, parts: Sequence[Part]) -> list[str]:
    name = f"{part.source.path.name}: " if len(parts) > 1 else ""
    return [f"{name}{note}" for note in part.notes]


def _split(examples: list[Example], num_held_out: int) -> tuple[list[Example], list[Example]]:
    """Hold out examples that are spread evenly over the file."""
    train: list[Example] = []
    held_out: list[Example] = []
    num = len(examples)
    for index, example in enumerate(examples):
        is_held_out = (index + 1) * num_held_out // num > index * num_held_out // num
        (held_out if is_held_out else train).append(example)
    return train, held_out
