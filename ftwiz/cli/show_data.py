"""How ``ftwiz data`` shows what it found: a block for each file, and rows as the model sees them."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..engine.data.purposes import ROWS_ARE
from ..engine.data.survey import Survey, text_of
from ..engine.specs.data import RowShape
from ..engine.worker.spelling import Piece, Spelled
from ..tui.text import safe

LEARNED, READ = "| ", "  "
_MOST_LINES = 40
_LABEL = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """How long rows are."""

    unit: str
    num_rows: int
    """Rows that were measured."""
    least: int
    median: int
    ninety: int
    """Nine of ten rows are no longer."""
    most: int
    limit: int | None
    """``train.max_length``, where lengths are tokens."""
    num_over: int | None
    """Rows longer than that, which are cut."""

    @staticmethod
    def of(counts: Mapping[int, int], *, unit: str, limit: int | None) -> "Lengths | None":
        """Return the figures of a histogram: length -> rows; ``None`` of none."""
        num_rows = sum(counts.values())
        if not num_rows:
            return None
        return Lengths(
            unit=unit,
            num_rows=num_rows,
            least=min(counts),
            median=_quantile(counts, 0.5),
            ninety=_quantile(counts, 0.9),
            most=max(counts),
            limit=limit,
            num_over=None if limit is None else sum(n for length, n in counts.items() if length > limit),
        )


def _quantile(counts: Mapping[int, int], share: float) -> int:
    """Return the smallest length that this share of the rows does not pass."""
    wanted, seen = share * sum(counts.values()), 0
    for length in sorted(counts):
        seen += counts[length]
        if seen >= wanted:
            return length
    return max(counts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """A file, measured."""

    survey: Survey
    lengths: Lengths | None
    rows: tuple[Sequence[Spelled], ...]
    """The first rows, each one text, or two for a pair."""
    missing: str
    """Why no tokens were counted; empty when they were."""
    lost: Mapping[str, int]
    """What the chat template leaves out -> in how many of the rows that were measured."""
    is_spelled: bool
    """Whether rows are shown as the model sees them."""
    has_template: bool

    def as_json(self) -> dict[str, object]:
        """Return all of it for machines."""
        survey = self.survey
        return {
            "path": survey.path,
            "format": survey.format,
            "shape": survey.shape,
            "columns": dict(survey.columns),
            "unused": survey.unused,
            "num_rows": survey.num_rows,
            "num_used": survey.num_used,
            "left_out": dict(survey.left_out),
            "num_last_messages_left_out": survey.num_cut,
            "num_bad": survey.num_bad,
            "bad_share": survey.bad_share,
            "bad": survey.bad,
            "lengths": None if self.lengths is None else asdict(self.lengths),
            "left_out_by_template": dict(self.lost),
            "no_tokens_because": self.missing or None,
            "rows": [
                [
                    {
                        "title": text.title,
                        "pieces": [{"text": p.text, "learned": p.is_learned} for p in text.pieces],
                    }
                    for text in texts
                ]
                for texts in self.rows
            ],
        }


def lines_of(files: Sequence[Measured], *, stage: str, width: int) -> Iterator[str]:
    """Yield what is printed, no line wider than ``width``."""
    for index, file in enumerate(files):
        if index:
            yield ""
        yield from _clipped([safe(file.survey.path)], width)
        yield from _facts(file, stage, width)
        for number, texts in enumerate(file.rows, start=1):
            yield ""
            yield from textwrap.wrap(_heading(file, number), width)
            for text in texts:
                yield from _spelled(text, width)
        if file.survey.bad:
            yield ""
            yield from _bad(file.survey, width)


def _facts(file: Measured, stage: str, width: int) -> Iterator[str]:
    survey = file.survey
    yield from _fact("format", f"{survey.format}: {ROWS_ARE[survey.shape]}, for stage {stage}", width)
    used = ", ".join(
        name if name == theirs else f"{theirs} as {name}" for name, theirs in survey.columns.items()
    )
    unused = f"; not used: {', '.join(survey.unused)}" if survey.unused else ""
    yield from _fact("columns", f"{used}{unused}", width)
    yield from _fact("rows", _rows(survey), width)
    if file.lengths is not None:
        yield from _fact("lengths", _lengths(file), width)
        yield from _fact("cut", _cut(file), width)
        for what, number in file.lost.items():
            told = f"the chat template leaves out {what}, in {number:,} of {file.lengths.num_rows:,} rows"
            yield from _fact("lost", told, width)


def _rows(survey: Survey) -> str:
    told = [
        f"{survey.num_rows:,} in the file" if survey.num_rows != survey.num_used else "",
    ]
    told += [f"{survey.num_used:,} to train on"]
    told += [f"{number:,} left out: {reason}" for reason, number in survey.left_out.items()]
    if survey.num_cut:
        told.append(f"{survey.num_cut:,} end with a message that nobody answers; it is left out")
    if survey.num_bad:
        told.append(f"{survey.num_bad:,} bad ({_share(survey.bad_share)})")
    return "; ".join(one for one in told if one)


def _lengths(file: Measured) -> str:
    lengths = file.lengths
    assert lengths is not None
    drawn = f", of {lengths.num_rows:,} rows drawn" if lengths.num_rows < file.survey.num_used else ""
    return (
        f"{lengths.least:,} to {lengths.most:,} {lengths.unit}; half have {lengths.median:,} at most, "
        f"nine of ten {lengths.ninety:,}{drawn}"
    )


def _cut(file: Measured) -> str:
    lengths = file.lengths
    assert lengths is not None
    if lengths.num_over is None or lengths.limit is None:
        return f"n/a, tokens are not counted: {file.missing}"
    share = _share(lengths.num_over / lengths.num_rows)
    return f"{share} of the rows are longer than train.max_length {lengths.limit:,}"


def _share(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 or share == 0 else "less than 0.1%"  # noqa: PLR2004 - what .1% can show


def _fact(label: str, text: str, width: int) -> Iterator[str]:
    indent = " " * (_LABEL + 2)
    found = textwrap.wrap(safe(text), width, initial_indent=f"  {label:<{_LABEL}}", subsequent_indent=indent)
    yield from found


def _heading(file: Measured, number: int) -> str:
    if not file.is_spelled:
        how = "as roles and text"
    elif file.survey.shape == "text":
        how = "with its end token"
    elif file.has_template:
        how = "as the model's chat template writes it"
    else:
        how = "as ftwiz's plain template writes it, for the model has none"
    learned = any(piece.is_learned for text in file.rows[number - 1] for piece in text.pieces)
    marked = f"; '{LEARNED.strip()}' marks what is learned" if learned else "; the model answers it"
    return f"row {number}, {how}{marked}:"


def _spelled(text: Spelled, width: int) -> Iterator[str]:
    if text.title:
        yield f"  ({text.title})"
    shown = [line for piece in text.pieces for line in _piece(piece, width)]
    if len(shown) > _MOST_LINES:
        hidden = len(shown) - _MOST_LINES
        half = _MOST_LINES // 2
        shown = [*shown[:half], f"    ... {hidden} lines ...", *shown[-half:]]
    yield from shown


def _piece(piece: Piece, width: int) -> Iterator[str]:
    mark = f"  {LEARNED if piece.is_learned else READ}"
    text = piece.text.removesuffix("\n")
    for line in text.split("\n"):
        wrapped = textwrap.wrap(
            safe(line),
            width - len(mark),
            drop_whitespace=False,
            replace_whitespace=False,
            break_on_hyphens=False,
        )
        for part in wrapped or [""]:
            yield f"{mark}{part}".rstrip()


def _bad(survey: Survey, width: int) -> Iterator[str]:
    shown = f", the first {len(survey.bad)}" if survey.num_bad > len(survey.bad) else ""
    yield f"bad rows ({survey.num_bad:,} of {survey.num_rows:,}, {_share(survey.bad_share)}{shown}):"
    for message in survey.bad:
        reason = message.removeprefix(f"{survey.path}:")
        yield from textwrap.wrap(f"line {safe(reason)}", width, initial_indent="  ", subsequent_indent="    ")


def _clipped(lines: Sequence[str], width: int) -> Iterator[str]:
    for line in lines:
        yield line if len(line) <= width else f"...{line[-(width - 3) :]}"


def plain_pieces(row: Mapping[str, Any], shape: RowShape, *, answers_only: bool) -> list[Spelled]:
    """Return a row as roles and texts, where no tokenizer can be asked."""
    if shape == "text":
        return [Spelled((Piece(row["text"], is_learned=True),))]
    if shape == "messages":
        pieces = [
            Piece(f"{one['role']}: {text_of(one)}\n", not answers_only or one["role"] == "assistant")
            for one in row["messages"]
        ]
        return [Spelled(tuple(pieces))]
    asked = [Piece(f"{one['role']}: {text_of(one)}\n", is_learned=False) for one in row["prompt"]]
    if shape == "prompt_only":
        return [Spelled(tuple(asked))]
    sides = ("chosen", "rejected") if shape == "preference" else ("completion",)
    rating = {True: "liked", False: "disliked"}.get(row.get("label"), "")  # type: ignore[arg-type]  # None is no key
    return [
        Spelled(
            (*asked, *(Piece(f"{one['role']}: {text_of(one)}\n", is_learned=True) for one in row[side])),
            side if shape == "preference" else rating,
        )
        for side in sides
    ]
