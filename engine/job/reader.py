"""Text -> checked tree. Size, depth, aliases and number of values are bounded while reading, not after.

PyYAML's scanner and parser are used, its composer and constructor are not: the C loader's dies of 200,000
brackets, the Python one's of recursion, both expand aliases without bound, take the last of two equal keys in
silence, and read ``1e-4`` as text and ``no`` as false.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from ..errors import BadInput
from .files import KIB, read_regular, shown, shown_path
from .scalars import Scalar, resolve
from .tree import Node, Origin, Source

MAX_BYTES = 256 * KIB
MAX_DEPTH = 16
MAX_ALIASES = 64
MAX_VALUES = 10_000
"""Values of a file, those that aliases repeat included."""

_TAG = "tag:yaml.org,2002:"
_SCALAR_TAGS: dict[str, type | tuple[type, ...]] = {
    f"{_TAG}str": str,
    f"{_TAG}int": int,
    f"{_TAG}float": (int, float),
    f"{_TAG}bool": bool,
    f"{_TAG}null": type(None),
}


def read_text(path: Path) -> str:
    """Return the text of a job file.

    Raises:
        BadInput: Not an ordinary file, too large, or not UTF-8 text.
    """
    data = read_regular(path, limit_bytes=MAX_BYTES, what="a job file")
    where = shown_path(path)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BadInput(f"{where}:1: is UTF-16", hint="save it as UTF-8")
    if b"\0" in data:
        raise BadInput(f"{where}:{_line_of(data, data.index(0))}: a NUL byte: this is not a text file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = _line_of(data, error.start)
        byte = data[error.start]
        raise BadInput(f"{where}:{line}: byte 0x{byte:02x} is not UTF-8", hint="save it as UTF-8") from None


def _line_of(data: bytes, position: int) -> int:
    return data.count(b"\n", 0, position) + 1


def read_job_tree(text: str, origin: Origin) -> Node:
    """Return the tree of a whole job file.

    Raises:
        BadInput: Not YAML, beyond the bounds, or not keys and values.
    """
    root = read_tree(text, origin)
    name = shown_path(origin.name)
    if root is None or root.value is None:
        raise BadInput(f"{name}: is empty", hint="a job names at least a model and data; see: ftwiz presets")
    if not isinstance(root.value, dict):
        raise BadInput(f"{root.place}: a job is keys and values; this is {shown(root.value)}")
    return root


def read_tree(text: str, origin: Origin) -> Node | None:
    """Return the tree of YAML text, or ``None`` when there is nothing in it.

    Raises:
        BadInput: Not YAML, or beyond the bounds.
    """
    if len(text.encode("utf8", "surrogatepass")) > MAX_BYTES:
        raise BadInput(f"{shown_path(origin.name)}: has more than {MAX_BYTES // KIB} KiB")
    builder = _Builder(origin)
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            builder.take(event)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        character = ascii(chr(error.character))
        raise builder.problem(line, f"the character {character} does not belong in a text file") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise builder.problem(mark.line + 1 if mark else None, _yaml_problem(error)) from None
    return builder.root


def _yaml_problem(error: yaml.MarkedYAMLError) -> str:
    problem = str(error.problem or error.context)
    if r"'\t'" in problem:
        return "a tab cannot indent YAML; use spaces"
    return f"not valid YAML: {problem}"


@dataclass(slots=True)
class _Frame:
    """A list or mapping that is still open."""

    is_mapping: bool
    line: int
    anchor: str | None
    keys: dict[str, Node] = field(default_factory=dict)
    items: list[Node] = field(default_factory=list)
    key: Node | None = None
    size: int = 1


class _Builder:
    """Turns parse events into a tree, holding the bounds at every event."""

    def __init__(self, origin: Origin) -> None:
        self.root: Node | None = None
        self._origin = origin
        self._open: list[_Frame] = []
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._num_aliases = 0
        self._num_values = 0
        self._has_document = False

    def problem(self, line: int | None, text: str) -> BadInput:
        """Return the error for a line of this file."""
        name = shown_path(self._origin.name)
        is_file = self._origin.source is not Source.COMMAND_LINE
        return BadInput(f"{name}:{line}: {text}" if is_file and line else f"{name}: {text}")

    def take(self, event: yaml.Event) -> None:
        """Handle the next event."""
        assert event.start_mark is not None  # PyYAML's parser marks every event
        line = event.start_mark.line + 1
        if isinstance(event, yaml.ScalarEvent):
            self._add(self._scalar(event, line), 1, event.anchor, line)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event.anchor, line)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._start(event, line)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._end()
        elif isinstance(event, yaml.DocumentStartEvent):
            if self._has_document:
                raise self.problem(line, "a second document begins here; a job file holds one")
            self._has_document = True

    def _start(self, event: yaml.CollectionStartEvent, line: int) -> None:
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        wanted = f"{_TAG}{'map' if is_mapping else 'seq'}"
        if event.tag not in (None, "!", wanted):
            raise self.problem(line, f"the tag {shown(event.tag)} is not allowed here")
        if len(self._open) == MAX_DEPTH:
            raise self.problem(line, f"nested more than {MAX_DEPTH} deep")
        if self._expects_key():
            raise self.problem(line, "a key is a word, not a list or keys")
        self._open.append(_Frame(is_mapping=is_mapping, line=line, anchor=event.anchor))

    def _end(self) -> None:
        frame = self._open.pop()
        value = frame.keys if frame.is_mapping else tuple(frame.items)
        node = Node(value=value, origin=self._origin, line=self._line(frame.line))
        self._add(node, frame.size, frame.anchor, frame.line)

    def _alias(self, anchor: str | None, line: int) -> None:
        assert anchor is not None
        self._num_aliases += 1
        if self._num_aliases > MAX_ALIASES:
            raise self.problem(line, f"more than {MAX_ALIASES} aliases")
        if any(frame.anchor == anchor for frame in self._open):
            raise self.problem(line, f"the alias {shown(anchor)} is inside of what it stands for")
        if anchor not in self._anchors:
            raise self.problem(line, f"the alias {shown(anchor)} stands for nothing above")
        node, size = self._anchors[anchor]
        self._add(replace(node, line=self._line(line)), size, None, line)

    def _add(self, node: Node, size: int, anchor: str | None, line: int) -> None:
        self._num_values += 1
        if anchor is not None:
            self._anchors[anchor] = (node, size)
        if not self._open:
            self.root = node
            return
        frame = self._open[-1]
        frame.size += size
        if max(frame.size, self._num_values) > MAX_VALUES:
            raise self.problem(line, f"more than {MAX_VALUES:,} values, those of aliases included")
        if not frame.is_mapping:
            frame.items.append(node)
        elif frame.key is None:
            frame.key = self._checked_key(frame, node, line)
        else:
            frame.keys[str(frame.key.value)] = replace(node, key_line=frame.key.line)
            frame.key = None

    def _checked_key(self, frame: _Frame, node: Node, line: int) -> Node:
        if not isinstance(node.value, str):
            raise self.problem(line, f"a key is a word; {shown(node.value)} needs quotes")
        if node.value in frame.keys:
            first = frame.keys[node.value].key_line
            also = f" (first on line {first})" if first else ""
            raise self.problem(line, f"the key {shown(node.value)} is here a second time{also}")
        return node

    def _expects_key(self) -> bool:
        return bool(self._open) and self._open[-1].is_mapping and self._open[-1].key is None

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> Node:
        try:
            value, word = _scalar_value(event)
        except ValueError as error:
            raise self.problem(line, f"{self._key_prefix()}{error}") from None
        return Node(value=value, origin=self._origin, line=self._line(line), word=word)

    def _key_prefix(self) -> str:
        """``train.seed: `` for a value of that key; nothing for a key or outside of any."""
        keys = [str(frame.key.value) for frame in self._open if frame.key is not None]
        dotted = ".".join(keys)
        is_value = bool(keys) and not self._expects_key() and self._origin.source is not Source.COMMAND_LINE
        return f"{dotted if dotted.isprintable() else ascii(dotted)}: " if is_value else ""

    def _line(self, line: int) -> int | None:
        return None if self._origin.source is Source.COMMAND_LINE else line


def _scalar_value(event: yaml.ScalarEvent) -> tuple[Scalar, str | None]:
    if event.tag is None:
        return (resolve(event.value), event.value) if event.implicit[0] else (event.value, None)
    if event.tag in {"!", f"{_TAG}str"}:
        return event.value, None
    if event.tag not in _SCALAR_TAGS:
        raise ValueError(f"the tag {shown(event.tag)} is not allowed; nothing in a job file is run")
    value = resolve(event.value)
    if not isinstance(value, _SCALAR_TAGS[event.tag]):
        raise ValueError(  # noqa: TRY004 - the user's value, not ours
            f"{shown(event.value)} is not {event.tag.removeprefix(_TAG)}"
        )
    return value, event.value
