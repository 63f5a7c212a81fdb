"""Every row of a file, one at a time: what is used, left out or wrong, and how long rows are."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from ..errors import BadInput
from ..specs.data import DataFormat, RowShape
from ..stages import STAGES
from .convert import convert, unused_columns
from .lines import NumberedRow
from .purposes import becomes
from .read import read_on
from .rules import Layout, find_layout
from .sources import Source
from .words import Message, TrainRow

MOST_BAD = 10
"""Bad rows that are remembered; all are counted."""
MOST_DRAWN = 1000
"""Rows that are measured in tokens: drawn evenly from all, the same every time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """What one file holds."""

    path: str
    format: DataFormat
    shape: RowShape
    columns: Mapping[str, str]
    """Our name -> the file's."""
    unused: tuple[str, ...]
    num_rows: int
    """Rows of the file that were looked at, the bad ones among them."""
    num_used: int
    """Rows that the stage trains on."""
    left_out: Mapping[str, int]
    """Reason -> how many."""
    num_cut: int
    """Conversations whose last messages nobody answers."""
    num_bad: int
    bad: tuple[str, ...]
    """What is wrong with the first bad rows: ``file:line: reason``."""
    characters: Mapping[int, int]
    """Length in characters -> rows of it."""
    drawn: tuple[TrainRow, ...]
    """Rows as the trainer gets them, drawn evenly."""
    first: tuple[TrainRow, ...]
    """The first rows as the trainer gets them."""

    @property
    def bad_share(self) -> float:
        """Share of the rows that cannot be used."""
        return self.num_bad / self.num_rows if self.num_rows else 0.0


class _Tally:
    """What was seen so far."""

    def __init__(self, source: Source, stage: str, num_first: int) -> None:
        self._source, self._stage, self._num_first = source, stage, num_first
        self.layout: Layout | None = None
        self.unused: list[str] = []
        self.num_rows = self.num_used = self.num_cut = 0
        self.bad: list[str] = []
        self.num_bad = 0
        self.left_out: Counter[str] = Counter()
        self.characters: Counter[int] = Counter()
        self.drawn: list[TrainRow] = []
        self.first: list[TrainRow] = []
        self._random = random.Random(0)  # noqa: S311 - a draw, not a secret

    def add(self, found: NumberedRow | BadInput) -> None:
        """Count a row of the file, or one that could not be read."""
        self.num_rows += 1
        try:
            if isinstance(found, BadInput):
                raise found
            self._convert(*found)
        except BadInput as error:
            if self.layout is None:
                raise
            self.num_bad += 1
            self.bad += [error.message] * (len(self.bad) < MOST_BAD)

    def _convert(self, line: int, row: dict[str, object]) -> None:
        where = f"{self._source.path}:{line}"
        if self.layout is None:
            self.layout = find_layout(row, self._source, where, stage=self._stage)
            self.unused = unused_columns(row, self.layout)
        converted = convert(row, self.layout, system=self._source.data.system, where=where)
        self.num_cut += converted.is_cut
        self.left_out.update(converted.left_out)
        for one in converted.rows:
            self._use(one, self.layout.shape)

    def _use(self, row: TrainRow, shape: RowShape) -> None:
        """Count a row that is trained on, and draw it with the chance that all rows have (algorithm R)."""
        self.num_used += 1
        self.characters[num_characters(row, shape)] += 1
        if len(self.first) < self._num_first:
            self.first.append(row)
        if len(self.drawn) < MOST_DRAWN:
            self.drawn.append(row)
        elif (place := self._random.randrange(self.num_used)) < MOST_DRAWN:
            self.drawn[place] = row


def survey(source: Source, *, stage: str, num_first: int = 1) -> Survey:
    """Look at every row of a file. Memory does not grow with the file.

    Args:
        source: The file.
        stage: The kind of training that the rows are for.
        num_first: Rows to show.

    Raises:
        BadInput: The file cannot be read, or its first row says that it is for something else.
    """
    tally = _Tally(source, stage, num_first)
    for found in islice(read_on(source.path), source.data.num_rows):
        tally.add(found)
    if tally.layout is None:
        raise BadInput(f"{source.path}: has no rows")
    return Survey(
        path=str(source.path),
        format=tally.layout.rule.format,
        shape=tally.layout.shape,
        columns=dict(tally.layout.columns),
        unused=tuple(tally.unused),
        num_rows=tally.num_rows,
        num_used=tally.num_used,
        left_out=dict(tally.left_out),
        num_cut=tally.num_cut,
        num_bad=tally.num_bad,
        bad=tuple(tally.bad),
        characters=dict(tally.characters),
        drawn=tuple(tally.drawn),
        first=tuple(tally.first),
    )


def stage_for(source: Source) -> str:
    """Return the first stage that trains on such rows: sft when it can.

    Raises:
        BadInput: The first row cannot be read, or no stage trains on such rows.
    """
    found = next(iter(read_on(source.path)), None)
    if found is None or isinstance(found, BadInput):
        raise found or BadInput(f"{source.path}: has no rows")
    line, row = found
    names = sorted((module.NAME for module in STAGES), key=lambda name: (name != "sft", name == "pt"))
    problem: BadInput | None = None
    for name in names:
        try:
            layout = find_layout(row, source, f"{source.path}:{line}", stage=name)
        except BadInput as error:
            problem = problem or error
        else:
            # A reward model takes pairs too, but pairs are mostly there for dpo.
            return "dpo" if layout.shape == "preference" else name
    assert problem is not None
    raise problem


def stages_for(shape: RowShape) -> list[str]:
    """Return the stages that train on rows of a shape."""
    return [module.NAME for module in STAGES if becomes(shape, module.NAME) is not None]


def texts_of(row: TrainRow, shape: RowShape) -> Iterator[str]:
    """Yield the texts of a row that the trainer sees."""
    if shape == "text":
        yield str(row["text"])
        return
    for name in ("messages", "prompt", "completion", "chosen", "rejected"):
        messages = row.get(name)
        if isinstance(messages, list) and (shape != "prompt_only" or name == "prompt"):
            yield from map(text_of, messages)


def text_of(message: Message) -> str:
    """Return what a message says, its calls of tools included."""
    calls = message.get("tool_calls")
    content: str = message["content"]
    return f"{content}{calls}" if calls else content


def num_characters(row: TrainRow, shape: RowShape) -> int:
    """Return how long the texts of a row are, without what a chat template puts around them."""
    return sum(map(len, texts_of(row, shape)))
