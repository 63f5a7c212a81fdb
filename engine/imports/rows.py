"""The nouns of the tables: one row for each key of another tool, and how it becomes one of ours."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class How(StrEnum):
    """What happens to a key."""

    TAKE = "taken"
    """Its value becomes the value of a key of ours."""
    USE = "used"
    """Its value goes into one of ours together with others: micro batch x accumulation."""
    DROP = "dropped"
    """Nothing of ours answers to it, and the training stays the same without it; the reason says why."""
    SECRET = "secret"  # noqa: S105 - the name of what happens to a key
    """Dropped, and its value never shown."""
    REFUSE = "refused"
    """It changes the training, and ftwiz does not do it."""
    FOLLOW = "followed"
    """It names another file, or holds what could be one; that is imported too."""


class Role(StrEnum):
    """What a value is, that is counted together with others."""

    MICRO = "micro batch"
    ACCUMULATION = "accumulation"
    RANKS = "ranks"
    TOTAL = "global batch"
    DATA = "data"
    EVAL_DATA = "held-out data"
    DATA_FOLDER = "folder of the data"
    MIXING = "how data is mixed"
    SHARES = "shares of the data"
    LOSS = "loss of preferences"
    PISSA_STEPS = "iterations of PiSSA"
    BETA = "weight of the reference"
    EVAL_WHEN = "when to evaluate"
    SAVE_WHEN = "when to save"


class NotYet(Exception):  # noqa: N818 - read as a sentence: raise NotYet("...")
    """A value that ftwiz does not do; the text says what to do instead."""


class Wrong(Exception):  # noqa: N818
    """A value that the tool itself would not take; the text says what it takes."""


Convert = Callable[[object], object]
"""From their value to ours. Raises ``NotYet`` or ``Wrong``."""
NOTHING = object()
"""What a converter returns when the value asks for what we do anyhow."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One key of another tool."""

    key: str
    """Theirs, dotted where it is nested: ``zero_optimization.stage``."""
    how: How
    target: str = ""
    """Ours, dotted: ``train.max_length``; for ``USE`` one of ``Role``."""
    reason: str = ""
    """Why it is dropped or refused, and what to use instead; for ``TAKE`` what is worth knowing."""
    convert: Convert | None = None
    off: tuple[object, ...] = (None,)
    """Values that ask for nothing: with them the key is as good as absent."""
    default: object = None
    """What the tool does when the key is absent and we would do something else; ``None``: the same."""


Table = Mapping[str, Row]


def table(*rows: "Row | tuple[Row, ...]", under: str = "") -> Table:
    """Return rows by key. ``under`` is put before every key.

    A key stands in a table once; that is ours to keep.
    """
    found: dict[str, Row] = {}
    for row in (row for part in rows for row in (part if isinstance(part, tuple) else (part,))):
        key = f"{under}{row.key}"
        assert key not in found, key
        found[key] = row if not under else _moved(row, key)
    return found


def _moved(row: Row, key: str) -> Row:
    return Row(
        key=key, how=row.how, target=row.target, reason=row.reason, convert=row.convert, off=row.off,
        default=row.default,
    )  # fmt: skip


def take(
    key: str,
    target: str,
    convert: Convert | None = None,
    *,
    off: tuple[object, ...] = (None,),
    default: object = None,
    reason: str = "",
) -> Row:
    """A key that has one of ours."""
    return Row(
        key=key, how=How.TAKE, target=target, convert=convert, off=off, default=default, reason=reason
    )  # fmt: skip


def use(key: str, role: Role, *, default: object = None) -> Row:
    """A key whose value is counted together with others."""
    return Row(key=key, how=How.USE, target=role, default=default)


def drop(reason: str, *keys: str) -> tuple[Row, ...]:
    """Keys without which the training is the same."""
    return tuple(Row(key=key, how=How.DROP, reason=reason) for key in keys)


def secret(reason: str, *keys: str) -> tuple[Row, ...]:
    """Keys that hold a secret."""
    return tuple(Row(key=key, how=How.SECRET, reason=reason) for key in keys)


def refuse(reason: str, *keys: str, off: tuple[object, ...] = (None, False)) -> tuple[Row, ...]:
    """Keys that ask, unless their value is ``off``, for what ftwiz does not do."""
    return tuple(Row(key=key, how=How.REFUSE, reason=reason, off=off) for key in keys)


def only_with(master: str, *keys: str) -> tuple[Row, ...]:
    """Options of something that is refused when it is on: without it they mean nothing."""
    return drop(f"counts only with {master}", *keys)


def extra(*keys: str, off: tuple[object, ...] = (None,)) -> tuple[Row, ...]:
    """Arguments that the trainer takes under the same name."""
    return tuple(Row(key=key, how=How.TAKE, target=f"train.extra.{key}", off=off) for key in keys)


def follow(key: str, reason: str) -> Row:
    """A key that names another file."""
    return Row(key=key, how=How.FOLLOW, reason=reason)
