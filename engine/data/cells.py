"""One row under our names: its texts, messages, labels and tools, or what is wrong with them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..errors import BadInput
from .rules import Layout
from .words import Message, Row, names_of, short, type_name

ROLES = {
    "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "bot": "assistant", "model": "assistant",
    "chatgpt": "assistant",
    "system": "system", "developer": "system",
    "tool": "tool", "observation": "tool", "ipython": "tool",
    "function_call": "function_call",
}  # fmt: skip
"""Who speaks, as files call it -> as chat templates do; ``function_call`` is the assistant calling a tool."""
_LABELS = {"true": True, "false": False, "1": True, "0": False}
_KEPT = ("name", "tool_call_id", "reasoning_content", "thinking")
"""Further keys of a message that chat templates read."""
_READ = frozenset({"role", "from", "content", "value", "tool_calls", "function_call", *_KEPT})


@dataclass(frozen=True, slots=True)
class Cells:
    """One row under our names."""

    row: Row
    layout: Layout
    where: str

    def bad(self, reason: str) -> BadInput:
        """Return the error for this row."""
        return BadInput(f"{self.where}: {reason}")

    def column(self, name: str) -> str:
        """Return what the file calls a column."""
        return self.layout.columns[name]

    def value(self, name: str) -> object:
        """Return a cell; a null or missing optional one is None."""
        column = self.layout.columns.get(name)
        if column is None:
            return None
        if name in self.layout.rule.required:
            if column not in self.row:
                raise self.bad(f"no column {column!r} (found: {names_of(self.row)})")
            if self.row[column] is None:
                raise self.bad(f"{column} is null")
        return self.row.get(column)

    def text(self, name: str) -> str:
        """Return a cell that must be text; empty when an optional one is absent."""
        value = self.value(name)
        return "" if value is None else self.as_text(value, self.column(name))

    def as_text(self, value: object, what: str) -> str:
        """Return a value that must be text."""
        if not isinstance(value, str):
            raise self.bad(f"{what} is {type_name(value)}, not text")
        try:
            value.encode("utf8")
        except UnicodeEncodeError as error:
            raise self.bad(f"{what} holds half a character (\\u{ord(value[error.start]):04x})") from error
        return value

    def label(self) -> bool:
        """Return whether an answer is a good one."""
        value, column = self.value("label"), self.column("label")
        if isinstance(value, bool):
            return value
        word = str(value).strip().lower() if isinstance(value, str | int | float) else ""
        if word not in _LABELS:
            raise self.bad(f"{column} is {short(value)}; it must be true or false")
        return _LABELS[word]

    def is_chat(self, name: str) -> bool:
        """Whether a cell holds messages and not one text."""
        return isinstance(self.value(name), list | dict)

    def messages(self, name: str) -> list[Message]:
        """Return a cell that must be a list of messages, or one message."""
        value, column = self.value(name), self.column(name)
        if isinstance(value, dict):
            return [self._message(value, column)]
        if not isinstance(value, list):
            raise self.bad(f"{column} is {type_name(value)}, not a list of messages")
        return [self._message(item, f"{column}[{index}]") for index, item in enumerate(value)]

    def tools(self) -> list[dict[str, object]]:
        """Return the tools that the assistant may call, as a list of JSON schemas."""
        value = self.value("tools")
        column = self.layout.columns.get("tools", "tools")
        if isinstance(value, str):
            value = self._json(value, column) if value.strip() else None
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise self.bad(f"{column} is {type_name(value)}, not a list of tools")
        return [one if "function" in one else {"type": "function", "function": one} for one in value]

    def _message(self, item: object, what: str) -> Message:
        if not isinstance(item, dict):
            raise self.bad(f"{what} is {type_name(item)}, not a message")
        role_key, content_key = ("from", "value") if "from" in item else ("role", "content")
        role = self._role(item.get(role_key), f"{what}.{role_key}")
        content = item.get(content_key)
        if role == "function_call":
            called = self._json(self.as_text(content, f"{what}.{content_key}"), f"{what}.{content_key}")
            return {"role": "assistant", "content": "", "tool_calls": self._calls(called, what)}
        message: Message = {"role": role}
        calls = item.get("tool_calls") or item.get("function_call")
        if isinstance(content, list):
            content = self._parts(content, f"{what}.{content_key}")
        message["content"] = (
            "" if content is None and calls else self.as_text(content, f"{what}.{content_key}")
        )
        if calls:
            if role != "assistant":
                raise self.bad(f"{what} calls a tool, and is not the assistant's")
            message["tool_calls"] = self._calls(calls, what)
        return message | {key: self.as_text(item[key], f"{what}.{key}") for key in _KEPT if item.get(key)}

    def _role(self, role: object, what: str) -> str:
        known = self.layout.roles.get(role, ROLES.get(role)) if isinstance(role, str) else None
        if known is None:
            raise self.bad(f"{what} is {short(role)}; it must be user, assistant, system or tool")
        return known

    def _parts(self, parts: list[object], what: str) -> str:
        texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
        if len(texts) != len(parts):
            raise self.bad(f"{what} holds something else than text")
        return "".join(self.as_text(text, what) for text in texts)

    def _calls(self, value: object, what: str) -> list[dict[str, object]]:
        listed = value if isinstance(value, list) else [value]
        return [self._call(call, what) for call in listed]

    def _call(self, call: object, what: str) -> dict[str, object]:
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise self.bad(f"{what} calls a tool without a name")
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):  # OpenAI's are JSON in a text; chat templates write the object
            arguments = self._json(arguments, f"{what}: arguments of {short(function['name'])}")
        if not isinstance(arguments, dict):
            raise self.bad(f"{what}: arguments of {short(function['name'])} are {type_name(arguments)}")
        named = {"id": call["id"]} if isinstance(call, dict) and isinstance(call.get("id"), str) else {}
        return {
            **named,
            "type": "function",
            "function": {"name": function["name"], "arguments": arguments},
        }

    def _json(self, text: str, what: str) -> object:
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self.bad(f"{what} is not JSON: {short(text)}") from error


def unread_keys(row: Row, columns: Mapping[str, str]) -> Iterator[str]:
    """Yield the keys of the first row's messages that nothing reads: ``messages[].weight``."""
    seen = set()
    for column in columns.values():
        value = row.get(column)
        for item in value if isinstance(value, list) else []:
            if isinstance(item, dict) and _READ & item.keys():
                seen |= {f"{column}[].{short(key)}" for key in item.keys() - _READ}
    yield from sorted(seen)
