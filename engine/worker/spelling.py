"""What a row looks like to the model: through the chat template, with what is learned told apart. No torch.

The tokenizer's own files are read, with the libraries that transformers reads them with: tokenizers, jinja2.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import BadInput
from ..specs.data import RowShape
from ..stages.chat import PLAIN_TEMPLATE

_OPEN, _CLOSE = "\ue000", "\ue001"  # of Unicode's private use: in no text that means something
_MARKS = re.compile(f"[{_OPEN}{_CLOSE}]")
Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a row's text."""

    text: str
    is_learned: bool


@dataclass(frozen=True, slots=True)
class Spelled:
    """A text that the model sees; pairs are two."""

    pieces: tuple[Piece, ...]
    title: str = ""
    """Which of two it is: ``chosen``, ``rejected``."""

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(piece.text for piece in self.pieces)


class Speller:
    """A tokenizer and its chat template, from a folder on this machine."""

    def __init__(self, folder: Path) -> None:
        """Read the files of a tokenizer.

        Raises:
            ImportError: tokenizers or jinja2 is not installed.
            BadInput: The files are not there, or broken.
        """
        import tokenizers

        place = folder / "tokenizer.json"
        if not place.is_file():
            raise BadInput(f"{folder}: has no tokenizer.json")
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(place.read_text(encoding="utf8"))
            self._tokenizer.no_truncation()
            config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf8"))
        except Exception as error:
            # The library raises plain Exception for a file that it cannot read.
            raise BadInput(f"{place}: {str(error).strip().partition(chr(10))[0][:100]}") from error
        self.special = {key: _word(value) for key, value in config.items() if key.endswith("_token")}
        template = _template(folder, config)
        self.has_template = template is not None
        self._template = _compiled(template or PLAIN_TEMPLATE)

    def num_tokens(self, text: str) -> int:
        """Return the length of a text that carries its special tokens itself."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def lost(self, row: Mapping[str, Any], spelled: Sequence[Spelled]) -> str | None:
        """Return what of a row the template leaves out, or ``None``: a role, or calls of tools."""
        texts = [one.text for one in spelled]
        for name in ("messages", "prompt", "completion", "chosen", "rejected"):
            for message in row.get(name) or ():
                names = [call["function"]["name"] for call in message.get("tool_calls") or ()]
                if not all(any(word in text for text in texts) for word in names):
                    return "calls of tools"
                content = message["content"].strip()
                if not any(content in text for text in texts):
                    return f"texts of {message['role']}"
        return None

    def spell(self, row: Mapping[str, Any], shape: RowShape, *, answers_only: bool) -> list[Spelled]:
        """Return what the model sees of a row.

        Args:
            row: As the trainer gets it.
            shape: Of the row.
            answers_only: Whether the questions are not learned, for shapes that leave the choice.

        Raises:
            BadInput: The template refuses the row.
        """
        tools = row.get("tools")
        if shape == "text":
            return [Spelled((Piece(row["text"] + (self.special.get("eos_token") or ""), is_learned=True),))]
        if shape == "messages":
            return [Spelled(tuple(self._conversation(row["messages"], tools, answers_only=answers_only)))]
        if shape == "prompt_only":
            return [Spelled((Piece(self._render(row["prompt"], tools, asks=True), is_learned=False),))]
        sides = ("chosen", "rejected") if shape == "preference" else ("completion",)
        return [
            Spelled(
                tuple(self._answer(row["prompt"], row[side], tools, answers_only=answers_only)),
                side if shape == "preference" else _rating(row),
            )
            for side in sides
        ]

    def _answer(
        self, prompt: Sequence[Message], answer: Sequence[Message], tools: Any, *, answers_only: bool
    ) -> list[Piece]:
        whole = self._render([*prompt, *answer], tools)
        asked = self._render(prompt, tools, asks=True)
        if not answers_only:
            return [Piece(whole, is_learned=True)]
        if not whole.startswith(asked):
            asked = self._render(prompt, tools)
        if not whole.startswith(asked):
            asked = ""
        return _pieces((asked, False), (whole[len(asked) :], True))

    def _conversation(self, messages: Sequence[Message], tools: Any, *, answers_only: bool) -> list[Piece]:
        marked = self._render(messages, tools, marks=True)
        whole = _MARKS.sub("", marked)
        if not answers_only:
            return [Piece(whole, is_learned=True)]
        if _OPEN in marked:
            parts = _MARKS.split(marked)
            return _pieces(*((text, index % 2 == 1) for index, text in enumerate(parts)))
        return self._by_prefixes(messages, tools, whole)

    def _by_prefixes(self, messages: Sequence[Message], tools: Any, whole: str) -> list[Piece]:
        """Tell the answers by what the text is before and after each; templates may mark none."""
        pieces: list[tuple[str, bool]] = []
        done = 0
        for index, message in enumerate(messages):
            if message["role"] != "assistant" or index == 0:
                continue
            before = self._render(messages[:index], tools, asks=True)
            after = self._render(messages[: index + 1], tools)
            if not (whole.startswith(after) and after.startswith(before) and len(before) >= done):
                continue  # the template writes an earlier answer otherwise when it is not the last
            pieces += [(whole[done : len(before)], False), (after[len(before) :], True)]
            done = len(after)
        return _pieces(*pieces, (whole[done:], False))

    def _render(
        self, messages: Sequence[Message], tools: Any, *, asks: bool = False, marks: bool = False
    ) -> str:
        import jinja2

        try:
            text: str = self._template.render(
                messages=list(messages),
                tools=tools,
                documents=None,
                add_generation_prompt=asks,
                **self.special,
            )
        except jinja2.TemplateError as error:
            reason = str(error).strip().partition("\n")[0]
            raise BadInput(f"the chat template refuses the row: {reason}") from error
        return text if marks else _MARKS.sub("", text)


def _pieces(*parts: tuple[str, bool]) -> list[Piece]:
    """Return the parts that hold something, those of one kind that touch joined."""
    found: list[Piece] = []
    for text, is_learned in parts:
        if found and found[-1].is_learned == is_learned:
            found[-1] = Piece(found[-1].text + text, is_learned)
        elif text:
            found.append(Piece(text, is_learned))
    return found


def _rating(row: Mapping[str, Any]) -> str:
    return "" if "label" not in row else "liked" if row["label"] else "disliked"


def _word(value: Any) -> str | None:
    """Return a special token, which is a word or an object that holds one."""
    found = value.get("content") if isinstance(value, dict) else value
    return found if isinstance(found, str) else None


def _template(folder: Path, config: Mapping[str, Any]) -> str | None:
    """Return the chat template: a file of its own, or a key, which may be a list of several by name."""
    place = folder / "chat_template.jinja"
    if place.is_file():
        return place.read_text(encoding="utf8")
    found = config.get("chat_template")
    if isinstance(found, list):
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None


def _compiled(template: str) -> Any:
    """Return a template as transformers compiles it (5.23, utils/chat_template_utils.py), its marks kept."""
    import jinja2
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

        def _marked(self, caller: Any) -> str:
            return f"{_OPEN}{caller()}{_CLOSE}"

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def as_json(value: Any, indent: int | None = None, **_options: Any) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    room = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    room.filters["tojson"] = as_json
    room.globals["raise_exception"] = refuse
    room.globals["strftime_now"] = lambda form: datetime.now().strftime(form)  # noqa: DTZ005 - as templates expect
    try:
        return room.from_string(template)
    except jinja2.TemplateError as error:
        raise BadInput(f"the chat template is broken: {str(error).partition(chr(10))[0]}") from error
