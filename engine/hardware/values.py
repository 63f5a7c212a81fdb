"""Values out of what tools print: a field is read, or it is None; nothing here raises or trusts."""

import json
import re
from collections.abc import Iterator, Mapping

_NOTHING = frozenset(
    ("", "n/a", "na", "none", "unknown", "-", "--", "null", "not supported", "not available", "unsupported")
)
_NUMBER = re.compile(r"\(?\s*([+-]?\d{1,24}(?:\.\d{1,12})?)")
_HEXADECIMAL = re.compile(r"[0-9a-f]{1,8}")
_SIZE = re.compile(r"\(?\s*(\d{1,24}(?:\.\d{1,12})?)\s*([kmgt]?)i?b?(?![a-z])", re.IGNORECASE)
_STARTS = re.compile(r"^[ \t]*[\[{]", re.MULTILINE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_MOST_STARTS = 20
_MOST_CHARACTERS = 120


def load_json(output: str) -> object:
    """Return the first JSON object or array of an output; tools print warnings before and after it.

    Raises:
        ValueError: There is none, or it is cut off.
    """
    decoder = json.JSONDecoder()
    for count, start in enumerate(_STARTS.finditer(output)):
        if count == _MOST_STARTS:
            break
        try:
            value, _ = decoder.raw_decode(output, start.end() - 1)
        except (ValueError, RecursionError):
            continue
        if value:
            return value
    raise ValueError("no JSON in it")


def mapping(value: object) -> Mapping[str, object]:
    """Return a JSON object, or an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def mappings(value: object) -> Iterator[Mapping[str, object]]:
    """Yield the JSON objects of a list."""
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, dict))


def word(value: object) -> str | None:
    """Return a text as one printable line, ``None`` for the many ways of saying nothing."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        return None
    line = " ".join("".join(c if c.isprintable() else " " for c in value[:1024]).split())[:_MOST_CHARACTERS]
    return None if line.lower() in _NOTHING else line


def number(value: object) -> float | None:
    """Return the leading number of ``42``, ``"42 W"``, ``"(500Mhz)"`` or ``{"value": 42, "unit": "W"}``."""
    if isinstance(value, dict):
        value = value.get("value")
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        found = _NUMBER.match(value.strip()[:64])
        return float(found[1]) if found else None
    if isinstance(value, (int, float)) and abs(value) < 2**63:  # not true of NaN and infinity either
        return float(value)
    return None


def whole(value: object) -> int | None:
    """Return a whole number that is not negative."""
    found = number(value)
    return int(found) if found is not None and found >= 0 else None


def hexadecimal(value: object) -> int | None:
    """Return the number of ``0x74a1`` or ``74a1``, up to 32 bits."""
    digits = (word(value) or "").lower().removeprefix("0x")
    return int(digits, 16) if _HEXADECIMAL.fullmatch(digits) else None


def share(value: object) -> float | None:
    """Return a percentage from 0 to 100; some drivers say 65535 for unknown."""
    found = number(value)
    return found if found is not None and 0 <= found <= 100 else None  # noqa: PLR2004 - per cent


def size(value: object, unit: str = "") -> int | None:
    """Return bytes; a unit in the value wins over ``unit`` (``k m g t``). These tools count in 1024."""
    if isinstance(value, dict):
        unit = f"{value.get('unit', unit)}"
        value = value.get("value")
    if isinstance(value, bool):
        return None
    found = _SIZE.match(f"{value}".strip()[:64])
    if found is None:
        return None
    power = _POWERS[found[2].lower()] or _POWERS.get(unit.strip().lower()[:1], 0)
    exact = int(found[1]) if found[1].isdigit() else float(found[1])
    return int(exact * 1024**power)
