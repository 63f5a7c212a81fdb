"""The checked tree between the text and the job: every value knows its file, line and source."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from .files import shown_path
from .scalars import Scalar


class Source(StrEnum):
    """Who decided a value; a later one overrides an earlier one."""

    DEFAULT = "default"
    PRESET = "preset"
    FILE = "file"
    COMMAND_LINE = "command line"


@dataclass(frozen=True, slots=True)
class Origin:
    """A file or a ``--set``: its name in messages, and the folder that its relative paths start from."""

    name: str
    source: Source
    base: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A value with its place. ``line`` is the value's and ``key_line`` its key's, both from 1."""

    value: "Scalar | tuple[Node, ...] | dict[str, Node]"
    origin: Origin
    line: int | None = None
    key_line: int | None = None
    word: str | None = None
    """The value as it was written, when it was one unquoted word."""

    @property
    def place(self) -> str:
        """``job.yaml:12`` of the value."""
        return _place(self.origin, self.line)

    @property
    def key_place(self) -> str:
        """``job.yaml:12`` of the key."""
        return _place(self.origin, self.key_line or self.line)


def _place(origin: Origin, line: int | None) -> str:
    name = shown_path(origin.name)
    return f"{name}:{line}" if line else name


def merge(lower: Node, upper: Node) -> Node:
    """Return ``lower`` overridden by ``upper``, key by key where both hold keys."""
    if not isinstance(lower.value, dict) or not isinstance(upper.value, dict):
        return upper
    merged = dict(lower.value)
    for key, node in upper.value.items():
        merged[key] = merge(merged[key], node) if key in merged else node
    return replace(lower, value=merged)


def plain(node: Node) -> object:
    """Return the values alone: dicts, lists and scalars."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, tuple):
        return [plain(child) for child in node.value]
    return node.value


def follow(node: Node, keys: Sequence[str]) -> list[Node]:
    """Return the nodes along a path of keys, from the root as far as they exist."""
    path = [node]
    for key in keys:
        inner = path[-1].value
        if not isinstance(inner, dict) or key not in inner:
            break
        path.append(inner[key])
    return path


def lookup(node: Node, keys: Sequence[str]) -> Node | None:
    """Return the node at a path of keys."""
    path = follow(node, keys)
    return path[-1] if len(path) == len(keys) + 1 else None


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and everything below it."""
    yield node
    if isinstance(node.value, dict):
        children: Sequence[Node] = tuple(node.value.values())
    else:
        children = node.value if isinstance(node.value, tuple) else ()
    for child in children:
        yield from walk(child)
