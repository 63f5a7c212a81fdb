"""What transformers takes a key for that a config.json leaves out; many files leave out what is usual."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("defaults.json")


def of(model_type: str) -> Mapping[str, object]:
    """Return the defaults of an architecture, empty when it is not in the table."""
    found: Mapping[str, object] = _table()["values"].get(model_type, {})
    return found


def section(model_type: str, name: str, config: Mapping[str, object]) -> str:
    """Return the model type of a section.

    Most models build one kind of part whatever their section says; some let it choose.
    """
    own = config.get("model_type")
    said = own if isinstance(own, str) else ""
    known: Mapping[str, Any] | None = _table()["sections"].get(model_type, {}).get(name)
    if known is None:
        return said
    kind: str = known["type"]
    return said or kind if known["is_open"] else kind


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(FILE.read_bytes())
    return table
