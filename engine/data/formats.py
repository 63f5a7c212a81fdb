"""Finds the layout of rows by their columns, and turns each row into the trainer's form.

Nothing is guessed from texts: columns decide, and a row that does not fit is an error with its line.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..errors import BadInput
from ..specs.data import DataFormat, RowShape
from ..specs.job import Data
from .read import type_name

Row = Mapping[str, object]
Message = dict[str, str]
TrainRow = dict[str, object]

ROLES = {
    "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "bot": "assistant", "model": "assistant",
    "system": "system", "developer": "system",
}  # fmt: skip
_ANSWERS = ("completion", "answer", "response", "output", "solution", "canonical_solution")
_MEDIA = ("image", "images", "video", "videos", "audio", "audios")
_SYSTEM = {"system": ("system", "system_prompt")}


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """A format: its columns by our names, each with the names that files use for it."""

    format: DataFormat
    shape: RowShape
    required: Mapping[str, tuple[str, ...]]
    optional: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    message_key: str | None = None
    """Key of the role in a message."""


_CHATS = ("messages", "conversations", "conversation", "dialog")
RULES = (
    Rule(
        format="messages", shape="messages", message_key="role",
        required={"messages": _CHATS}, optional=_SYSTEM,
    ),
    Rule(
        format="sharegpt", shape="messages", message_key="from",
        required={"conversations": _CHATS}, optional=_SYSTEM,
    ),
    Rule(
        format="alpaca", shape="prompt_completion",
        required={"instruction": ("instruction",), "output": ("output", *_ANSWERS)},
        optional={"input": ("input", "context"), "history": ("history",)} | _SYSTEM,
    ),
    Rule(
        format="prompt_completion", shape="prompt_completion",
        required={"prompt": ("prompt", "question", "query", "problem", "input"), "completion": _ANSWERS},
        optional=_SYSTEM,
    ),
    Rule(format="text", shape="text", required={"text": ("text", "content", "document", "body")}),
)  # fmt: skip
"""The formats, in the order in which they are tried."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How the rows of one file are read."""

    rule: Rule
    columns: Mapping[str, str]


def find_layout(row: Row, data: Data, where: str) -> Layout:
    """Find the layout by the first row.

    Args:
        row: The first row.
        data: What the job says; its ``format`` and ``columns`` are obeyed.
        where: ``file:line`` of the row, for errors.

    Raises:
        BadInput: No format fits, the one asked for does not, or the rows are for another kind of training.
    """
    if data.format == "auto":
        _check_purpose(row, where)
    rules = [rule for rule in RULES if data.format in {"auto", rule.format}]
    named = [rule for rule in rules if data.columns.keys() <= rule.required.keys() | rule.optional.keys()]
    if not named:
        names = ", ".join(repr(name) for name in data.columns)
        known = ", ".join(dict.fromkeys(name for rule in rules for name in (*rule.required, *rule.optional)))
        raise BadInput(f"data.columns: no format has the columns {names}", hint=f"our names are {known}")
    for column in data.columns.values():
        if column not in row:
            raise BadInput(f"{where}: no column {column!r} (found: {_names(row)})")
    for rule in named:
        columns = _resolve(row, rule, data.columns)
        if columns is not None and (data.format != "auto" or _looks_right(row, rule, columns)):
            return Layout(rule=rule, columns=columns)
    if data.format != "auto":
        wanted = ", ".join(named[0].required)
        raise BadInput(f"{where}: format {data.format} needs {wanted} (found: {_names(row)})", hint=_HINT)
    raise BadInput(f"{where}: columns fit no known format (found: {_names(row)})", hint=_HINT)


_HINT = "name yours under data: columns: {prompt: YOURS, completion: YOURS}"


def unused_columns(row: Row, layout: Layout) -> list[str]:
    """Return the columns that the layout does not read."""
    return [name for name in row if name not in layout.columns.values()]


def convert(row: Row, layout: Layout, *, system: str | None, where: str) -> TrainRow | None:
    """Turn one row into the trainer's form; ``None`` when its question or answer is empty.

    Raises:
        BadInput: A column is missing or holds something else than the format says.
    """
    converter = _CONVERTERS[layout.rule.format]
    return converter(_Cells(row, layout.columns, layout.rule, where), system)


def ends_unanswered(row: Row, layout: Layout) -> bool:
    """Whether a conversation, already known to be well-formed, ends with somebody else than the assistant."""
    if layout.rule.shape != "messages":
        return False
    last = row[layout.columns[next(iter(layout.rule.required))]][-1]  # type: ignore[index]
    return ROLES[last.get("role") or last["from"]] != "assistant"


@dataclass(frozen=True, slots=True)
class _Cells:
    """One row under our names."""

    row: Row
    columns: Mapping[str, str]
    rule: Rule
    where: str

    def bad(self, reason: str) -> BadInput:
        return BadInput(f"{self.where}: {reason}")

    def value(self, name: str) -> object:
        """Return a cell; a null or missing optional one is None."""
        column = self.columns.get(name)
        if column is None:
            return None
        if name in self.rule.required:
            if column not in self.row:
                raise self.bad(f"no column {column!r} (found: {_names(self.row)})")
            if self.row[column] is None:
                raise self.bad(f"{column} is null")
        return self.row.get(column)

    def text(self, name: str) -> str:
        """Return a cell that must be text; empty when an optional one is absent."""
        value = self.value(name)
        return "" if value is None else self.as_text(value, self.columns[name])

    def as_text(self, value: object, what: str) -> str:
        if not isinstance(value, str):
            raise self.bad(f"{what} is {type_name(value)}, not text")
        try:
            value.encode("utf8")
        except UnicodeEncodeError as error:
            raise self.bad(f"{what} holds half a character (\\u{ord(value[error.start]):04x})") from error
        return value

    def messages(self, name: str) -> list[Message]:
        """Return a cell that must be a list of messages."""
        value = self.value(name)
        column = self.columns[name]
        if not isinstance(value, list):
            raise self.bad(f"{column} is {type_name(value)}, not a list of messages")
        return [self._message(item, f"{column}[{index}]") for index, item in enumerate(value)]

    def _message(self, item: object, what: str) -> Message:
        if not isinstance(item, dict):
            raise self.bad(f"{what} is {type_name(item)}, not a message")
        role_key, content_key = ("from", "value") if "from" in item else ("role", "content")
        role = item.get(role_key)
        if item.get("tool_calls"):
            raise self.bad(f"{what} calls a tool; only plain conversations can be trained on")
        if not isinstance(role, str) or role not in ROLES:
            raise self.bad(f"{what}.{role_key} is {_short(role)}; it must be user, assistant or system")
        content = item.get(content_key)
        if isinstance(content, list):
            content = self._parts(content, f"{what}.{content_key}")
        return {"role": ROLES[role], "content": self.as_text(content, f"{what}.{content_key}")}

    def _parts(self, parts: list[object], what: str) -> str:
        texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
        if len(texts) != len(parts):
            raise self.bad(f"{what} holds something else than text")
        return "".join(self.as_text(text, what) for text in texts)


def _conversation(cells: _Cells, system: str | None) -> TrainRow | None:
    [name] = cells.rule.required
    messages = _with_system(cells.messages(name), cells, system)
    turns = [message for message in messages if message["role"] != "system"]
    if not turns:
        raise cells.bad(f"{cells.columns[name]} has no turns")
    if turns[0]["role"] != "user":
        raise cells.bad("the conversation starts with the assistant; chat templates need the user first")
    while messages and messages[-1]["role"] != "assistant":
        messages.pop()
    if not messages:
        raise cells.bad("the conversation has no assistant message: nothing to learn from")
    answers = [message["content"] for message in messages if message["role"] == "assistant"]
    return {"messages": messages} if any(answer.strip() for answer in answers) else None


def _alpaca(cells: _Cells, system: str | None) -> TrainRow | None:
    history: list[Message] = []
    pairs = cells.value("history") or []
    if not isinstance(pairs, list):
        raise cells.bad(f"{cells.columns['history']} is {type_name(pairs)}, not a list of pairs")
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2:  # noqa: PLR2004 - a question and an answer
            raise cells.bad(f"{cells.columns['history']} holds something else than [question, answer]")
        history.append({"role": "user", "content": cells.as_text(pair[0], "a question of history")})
        history.append({"role": "assistant", "content": cells.as_text(pair[1], "an answer of history")})
    question = "\n".join(part for part in (cells.text("instruction"), cells.text("input")) if part)
    prompt = [*history, {"role": "user", "content": question}]
    completion = [{"role": "assistant", "content": cells.text("output")}]
    return _pair(_with_system(prompt, cells, system), completion)


def _prompt_completion(cells: _Cells, system: str | None) -> TrainRow | None:
    sides: list[list[Message]] = []
    for name, role in (("prompt", "user"), ("completion", "assistant")):
        if isinstance(cells.value(name), list):
            sides.append(cells.messages(name))
        else:
            sides.append([{"role": role, "content": cells.text(name)}])
    prompt, completion = sides
    if any(message["role"] != "assistant" for message in completion):
        raise cells.bad(f"{cells.columns['completion']} holds a message that is not the assistant's")
    return _pair(_with_system(prompt, cells, system), completion)


def _text(cells: _Cells, _system: str | None) -> TrainRow | None:
    text = cells.text("text")
    return {"text": text} if text.strip() else None


_CONVERTERS: Mapping[DataFormat, Callable[[_Cells, str | None], TrainRow | None]] = {
    "messages": _conversation,
    "sharegpt": _conversation,
    "alpaca": _alpaca,
    "prompt_completion": _prompt_completion,
    "text": _text,
}


def _pair(prompt: list[Message], completion: list[Message]) -> TrainRow | None:
    sides = (prompt, completion)
    if not all(any(m["content"].strip() for m in side if m["role"] != "system") for side in sides):
        return None
    return {"prompt": prompt, "completion": completion}


def _with_system(messages: list[Message], cells: _Cells, system: str | None) -> list[Message]:
    if messages and messages[0]["role"] == "system":
        return messages
    wanted = cells.text("system") or system
    return [{"role": "system", "content": wanted}, *messages] if wanted else messages


def _resolve(row: Row, rule: Rule, named: Mapping[str, str]) -> dict[str, str] | None:
    """Map our names to the row's columns; None when a required one is not there."""
    by_lower = {name.lower(): name for name in row}
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


def _looks_right(row: Row, rule: Rule, columns: Mapping[str, str]) -> bool:
    """Whether a list of messages is one, by the key of the role in its first message."""
    if rule.message_key is None:
        return True
    value = row[columns[next(iter(rule.required))]]
    return (
        isinstance(value, list)
        and bool(value)
        and isinstance(value[0], dict)
        and rule.message_key in value[0]
    )


def _check_purpose(row: Row, where: str) -> None:
    """Refuse rows that are made for another kind of training."""
    hint = "supervised fine-tuning needs examples: messages, question and answer, or text"
    if {"chosen", "rejected"} <= row.keys():
        raise BadInput(f"{where}: rows are preference pairs (chosen, rejected), not examples", hint=hint)
    label = next((name for name in ("label", "kto_tag") if isinstance(row.get(name), bool)), None)
    if label is not None:
        raise BadInput(f"{where}: rows are rated answers ({label}), not examples", hint=hint)
    if isinstance(row.get("completions"), list) and isinstance(row.get("labels"), list):
        raise BadInput(f"{where}: rows are rated steps (completions, labels), not examples", hint=hint)
    media = next((name for name in _MEDIA if row.get(name)), None)
    if media is not None:
        raise BadInput(f"{where}: rows have {media}; only text can be trained on")


def _names(row: Row) -> str:
    most = 8
    names = [_short(name) for name in list(row)[:most]]
    return ", ".join(names) + (", ..." if len(row) > most else "")


def _short(value: object) -> str:
    most = 40
    text = str(value) if isinstance(value, str) and value.isidentifier() else repr(value)
    return text if len(text) <= most else text[: most - 3] + "..."
