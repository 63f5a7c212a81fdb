"""Tells the layout of rows by their columns, and whether a stage trains on such rows.

Nothing is guessed from texts: columns and their types decide.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..errors import BadInput
from ..specs.data import DataFormat, RowShape
from ..specs.job import Data
from .purposes import ROWS_ARE, becomes, takes_instead, wanted_rows
from .sources import Source
from .words import Row, names_of

_ANSWERS = ("completion", "answer", "response", "output", "solution", "canonical_solution")
_QUESTIONS = ("prompt", "question", "query", "problem")
_CHATS = ("messages", "conversations", "conversation", "dialog")
_MEDIA = ("image", "images", "video", "videos", "audio", "audios")
_SYSTEM = {"system": ("system", "system_prompt")}
_WITH_CHAT = {**_SYSTEM, "tools": ("tools", "functions")}
_INPUT = {"input": ("input", "context"), "history": ("history",)} | _SYSTEM
_PAIR = {"chosen": ("chosen",), "rejected": ("rejected",)}
_LABEL = {"label": ("label", "kto_tag")}
_INSTRUCTION = {"instruction": ("instruction",)}
_OUTPUT = {"output": ("output", *_ANSWERS)}
_SPEAKER = ("role", "from")

Columns = Mapping[str, str]
Fits = Callable[[Row, Columns], bool]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """A format: its columns by our names, each with the names that files use for it."""

    format: DataFormat
    shape: RowShape
    required: Mapping[str, tuple[str, ...]]
    optional: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fits: Fits = lambda _row, _columns: True
    """Whether the cells look it; asked only when the format is not said."""


def _chat(name: str, *keys: str) -> Fits:
    """Whether a column is a list of messages that name their speaker by one of the keys."""
    return lambda row, columns: _is_chat(row.get(columns[name]), keys)


def _is_chat(value: object, keys: tuple[str, ...] = _SPEAKER) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and isinstance(value[0], dict)
        and any(key in value[0] for key in keys)
    )


def _rated(fits: Fits = lambda _row, _columns: True) -> Fits:
    return lambda row, columns: isinstance(row.get(columns["label"]), bool) and fits(row, columns)


def _pair_of_chats(row: Row, columns: Columns) -> bool:
    return all(_is_chat(row.get(columns[side])) for side in ("chosen", "rejected"))


RULES = (
    Rule(
        format="preference_sharegpt", shape="preference",
        required={"conversations": _CHATS, **_PAIR}, optional=_WITH_CHAT,
        fits=_chat("conversations", *_SPEAKER),
    ),
    Rule(
        format="preference_alpaca", shape="preference",
        required={**_INSTRUCTION, **_PAIR}, optional=_INPUT,
    ),
    Rule(
        format="preference", shape="preference",
        required={"prompt": _QUESTIONS, **_PAIR}, optional=_WITH_CHAT,
    ),
    Rule(
        format="preference_implicit", shape="preference",
        required=_PAIR, optional=_WITH_CHAT, fits=_pair_of_chats,
    ),
    Rule(
        format="unpaired_messages", shape="unpaired",
        required={"messages": _CHATS, **_LABEL}, optional=_WITH_CHAT, fits=_rated(_chat("messages", "role")),
    ),
    Rule(
        format="unpaired_sharegpt", shape="unpaired",
        required={"conversations": _CHATS, **_LABEL}, optional=_WITH_CHAT,
        fits=_rated(_chat("conversations", "from")),
    ),
    Rule(
        format="unpaired_alpaca", shape="unpaired",
        required={**_INSTRUCTION, **_OUTPUT, **_LABEL}, optional=_INPUT, fits=_rated(),
    ),
    Rule(
        format="unpaired", shape="unpaired",
        required={"prompt": (*_QUESTIONS, "input"), "completion": _ANSWERS, **_LABEL}, optional=_WITH_CHAT,
        fits=_rated(),
    ),
    Rule(
        format="messages", shape="messages",
        required={"messages": _CHATS}, optional=_WITH_CHAT, fits=_chat("messages", "role"),
    ),
    Rule(
        format="sharegpt", shape="messages",
        required={"conversations": _CHATS}, optional=_WITH_CHAT, fits=_chat("conversations", "from"),
    ),
    Rule(
        format="self_instruct", shape="prompt_completion",
        required={**_INSTRUCTION, "instances": ("instances",)},
        fits=lambda row, columns: isinstance(row.get(columns["instances"]), list),
    ),
    Rule(
        format="alpaca", shape="prompt_completion",
        required={**_INSTRUCTION, **_OUTPUT}, optional=_INPUT,
    ),
    Rule(
        format="prompt_completion", shape="prompt_completion",
        required={"prompt": (*_QUESTIONS, "input"), "completion": _ANSWERS}, optional=_WITH_CHAT,
    ),
    Rule(format="text", shape="text", required={"text": ("text", "content", "document", "body")}),
    Rule(
        format="prompt_only", shape="prompt_only",
        required={"prompt": (*_QUESTIONS, "turns")}, optional=_WITH_CHAT,
    ),
    Rule(format="prompt_only", shape="prompt_only", required=_INSTRUCTION, optional=_INPUT),
)  # fmt: skip
"""The formats, in the order in which they are tried: the more columns, the earlier."""

_SPECIAL = frozenset({"preference", "unpaired"})
"""Shapes that say what rows are for: no other stage gets them, though it could read a part of them."""
_HINT = "name yours under data: columns: {prompt: YOURS, completion: YOURS}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How the rows of one file are read."""

    rule: Rule
    columns: Columns
    shape: RowShape
    """What the rows become, which a stage may want in another shape than the file has."""
    roles: Mapping[str, str] = field(default_factory=dict)
    """Names of speakers, of their own in this file -> user, assistant, system, tool or function_call."""


def find_layout(row: Row, source: Source, where: str, *, stage: str) -> Layout:
    """Find the layout by the first row.

    Args:
        row: The first row.
        source: The file, and what is said of it; its ``format`` and ``columns`` are obeyed.
        where: ``file:line`` of the row, for errors.
        stage: The kind of training that the rows are for.

    Raises:
        BadInput: No format fits, the one asked for does not, or the rows are for another kind of training.
    """
    _check_contents(row, where)
    data = source.data
    named = _named(data)
    for column in data.columns.values():
        if column not in row:
            raise BadInput(f"{where}: no column {column!r} (found: {names_of(row)})")
    fitting = [
        (rule, columns)
        for rule in named
        if (columns := _resolve(row, rule, source)) is not None
        and (data.format != "auto" or _looks_right(rule, row, columns, stage))
    ]
    if not fitting:
        raise _unknown(row, data, named, where)
    if data.format == "auto" and fitting[0][0].shape in _SPECIAL:
        fitting = fitting[:1]
    for rule, columns in fitting:
        shape = becomes(rule.shape, stage)
        if shape is not None:
            return Layout(rule=rule, columns=columns, shape=shape, roles=source.roles)
    shape = fitting[0][0].shape
    raise BadInput(
        f"{where}: rows are {ROWS_ARE[shape]}, and stage {stage} trains on {wanted_rows(stage)}",
        hint=takes_instead(shape, stage),
    )


def _named(data: Data) -> list[Rule]:
    rules = [rule for rule in RULES if data.format in {"auto", rule.format}]
    named = [rule for rule in rules if data.columns.keys() <= rule.required.keys() | rule.optional.keys()]
    if not named:
        names = ", ".join(repr(name) for name in data.columns)
        known = ", ".join(dict.fromkeys(name for rule in rules for name in (*rule.required, *rule.optional)))
        raise BadInput(f"data.columns: no format has the columns {names}", hint=f"our names are {known}")
    return named


def _looks_right(rule: Rule, row: Row, columns: Columns, stage: str) -> bool:
    if rule.shape == "unpaired" and stage == "kto":  # a label of the wrong type is then said to be one
        row = {**row, columns["label"]: True}
    return rule.fits(row, columns)


def _unknown(row: Row, data: Data, named: list[Rule], where: str) -> BadInput:
    found = names_of(row)
    if data.format != "auto":
        wanted = ", ".join(named[0].required)
        return BadInput(f"{where}: format {data.format} needs {wanted} (found: {found})", hint=_HINT)
    if {"chosen", "rejected"} <= row.keys():
        return BadInput(
            f"{where}: preference pairs without a prompt (found: {found})",
            hint="name the column of the question: data: columns: {prompt: YOURS}",
        )
    return BadInput(f"{where}: columns fit no known format (found: {found})", hint=_HINT)


def _check_contents(row: Row, where: str) -> None:
    """Refuse rows that no stage trains on."""
    if isinstance(row.get("completions"), list) and isinstance(row.get("labels"), list):
        raise BadInput(
            f"{where}: rows are rated steps (completions, labels), which no stage trains on",
            hint="trl has no trainer for them either; join the good steps into one completion",
        )
    if "input_ids" in row:
        raise BadInput(f"{where}: rows are tokens already (input_ids)", hint="give the texts themselves")
    media = next((name for name in _MEDIA if row.get(name)), None)
    if media is not None:
        raise BadInput(
            f"{where}: rows have {media}; only text can be trained on",
            hint=f"take the column {media} and its placeholders out, if the text alone is worth learning",
        )


def _resolve(row: Row, rule: Rule, source: Source) -> dict[str, str] | None:
    """Map our names to the row's columns; None when a required one is not there."""
    named = source.data.columns
    by_lower = {name.lower(): name for name in row} if not source.is_exact else {}
    columns: dict[str, str] = {}
    for name, aliases in (*rule.required.items(), *rule.optional.items()):
        known = [by_lower[alias] for alias in aliases if alias in by_lower]
        free = [column for column in known if column not in columns.values()]
        if name in named:
            columns[name] = named[name]
        elif free:
            columns[name] = free[0]
        elif name in rule.required:
            return None
    return columns
