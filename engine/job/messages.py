"""What is wrong with a job, in one line: file, line, key, what is allowed, and what was probably meant."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from ..errors import BadInput
from .files import shown
from .schema import allowed, choices, fields, known_part
from .tree import Node, Source, follow, lookup

_SEE = "all keys, with what they may hold: ftwiz schema"


def bad_job(error: ValidationError, tree: Node) -> BadInput:
    """Return the first mistake of a job as the message, the others in the hint."""
    found: dict[tuple[str, ...], tuple[tuple[bool, bool, int], str]] = {}
    for details in error.errors(include_url=False):
        keys = _keys(details, tree)
        found.setdefault(keys, _mistake(keys, details, tree))
    lines = [text for _, text in sorted(found.values())]
    if len(lines) == 1:
        return BadInput(lines[0], hint=_SEE)
    rest = f" (and {len(lines) - 2} more)" if len(lines) > 2 else ""  # noqa: PLR2004 - the two that are shown
    return BadInput(lines[0], hint=f"then: {lines[1]}{rest}")


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'word'?`` for a misspelt word, or nothing when no known word is near."""
    close = get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def _keys(details: Mapping[str, Any], tree: Node) -> tuple[str, ...]:
    """The path of keys that an error is about: what the schema knows, and the user's own keys below that."""
    location = details["loc"]
    if details["type"] in {"extra_forbidden", "missing"}:
        return tuple(map(str, location))
    known, _ = known_part(location)
    keys = [*known]
    for key in location[len(known) :]:
        if not isinstance(key, str) or lookup(tree, [*keys, key]) is None:
            break
        keys.append(key)
    if details["type"] == "extra":
        keys.append(details["ctx"]["name"])
    return tuple(keys)


def _mistake(
    keys: tuple[str, ...], details: Mapping[str, Any], tree: Node
) -> tuple[tuple[bool, bool, int], str]:
    """Return a sort key and the line: as in the file, then the command line, then what is missing."""
    path = follow(tree, keys)
    node = path[-1]
    is_missing = details["type"] == "missing"
    order = (is_missing, node.origin.source is Source.COMMAND_LINE, node.key_line or node.line or 0)
    if is_missing:
        return order, f"{node.key_place}: {'.'.join(keys)} is missing"
    if details["type"] == "extra_forbidden":
        return order, f"{node.key_place}: {_unknown(keys)}"
    if details["type"] == "extra":
        return order, f"{node.key_place}: {_dotted(keys)} {details['ctx']['reason']}"
    if details["type"] == "told":
        return order, f"{node.place}: {_dotted(keys)}: {details['ctx']['reason']}"
    return order, f"{node.place}: {_wrong_value(keys, node, details)}"


def _dotted(keys: Iterable[str]) -> str:
    return ".".join(key if key.isprintable() else ascii(key) for key in keys)


def _unknown(keys: tuple[str, ...]) -> str:
    *section, key = keys
    within = f" in {'.'.join(section)}" if section else ""
    _, schema = known_part(section)
    here = list(schema.get("properties", {}))
    everywhere = {name.rsplit(".", 1)[-1]: name for name, _ in fields()}
    other = get_close_matches(key.lower(), everywhere, n=1, cutoff=0.8)
    guess = nearest(key, here)
    if other and (not guess or other[0] == key):
        guess = f"; did you mean {everywhere[other[0]]!r}?"
    known = "; known here: " + ", ".join(here)
    return f"unknown key {shown(key)}{within}{guess or known}"


def _wrong_value(keys: tuple[str, ...], node: Node, details: Mapping[str, Any]) -> str:
    known, schema = known_part(keys)
    name = _dotted(keys)
    if details["loc"][-1] == "[key]":
        return f"{name}: a column's name has 1 to 100 characters"
    if len(keys) > len(known):
        words = "text"  # below a mapping of names, which is all that has keys of the user's own
    elif "properties" in schema:
        words = "keys and values"
    else:
        words = allowed(schema)
    is_text = isinstance(node.value, str)
    got = shown(node.value) if is_text or not node.word else node.word
    guess = nearest(str(node.value), choices(schema)) if is_text else ""
    if details["type"] == "string_type" and node.word and not choices(schema):
        guess = "; put it in quotes"
    return f"{name} must be {words}; got {got}{guess}"
