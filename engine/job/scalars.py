"""What an unquoted word in the job file means: the core schema of YAML 1.2, and nothing that guesses."""

import math
import re

Scalar = str | int | float | bool | None

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"([-+]?)\.(inf|Inf|INF)")
_NAN = frozenset({".nan", ".NaN", ".NAN"})
_OCTAL_LOOK = re.compile(r"[-+]?0[0-9]+")
_MAX_DIGITS = 400  # longer than any float64 can tell apart, and far from Python's own limit of 4300


def resolve(word: str) -> Scalar:
    """Return the value of an unquoted word.

    Raises:
        ValueError: The word means different things to different readers, or is a number of absurd length.
    """
    if word in _NULL:
        return None
    if word in _BOOL:
        return _BOOL[word]
    if len(word) > _MAX_DIGITS:
        if _FLOAT.fullmatch(word):
            raise ValueError(f"a number of {len(word):,} digits is too long")
        return word
    if _OCTAL_LOOK.fullmatch(word):
        plain = int(word)
        raise ValueError(f"{word} is octal to some readers and {plain} to others; write {plain}, or quote it")
    return _number(word)


def _number(word: str) -> str | int | float:
    if _INT.fullmatch(word):
        return int(word)
    if _BASED.fullmatch(word):
        return int(word, 0)
    if _FLOAT.fullmatch(word):
        return float(word)
    infinite = _INFINITE.fullmatch(word)
    if infinite:
        return -math.inf if infinite[1] == "-" else math.inf
    return math.nan if word in _NAN else word
