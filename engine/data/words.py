"""How rows and values are called in messages, and the types that the room shares."""

from collections.abc import Mapping
from typing import Any

Row = Mapping[str, object]
Message = dict[str, Any]
TrainRow = dict[str, object]


def type_name(value: object) -> str:
    """Name a JSON value's type as a person would."""
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list"}
    return "null" if value is None else names.get(type(value), "an object")


def names_of(row: Row) -> str:
    """List the columns of a row, the first eight of them."""
    most = 8
    names = [short(name) for name in list(row)[:most]]
    return ", ".join(names) + (", ..." if len(row) > most else "")


def short(value: object) -> str:
    """Return a value on one line, cut where it is long."""
    most = 40
    text = str(value) if isinstance(value, str) and value.isidentifier() else repr(value)
    return text if len(text) <= most else text[: most - 3] + "..."
