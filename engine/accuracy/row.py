"""A row of a file of measurements, read with distrust: what cannot be used says why."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BadInput

MAX_FILE_BYTES = 64 * 2**20
UNIT_BYTES = {
    "bytes": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
}  # fmt: skip
MAX_MEASURED_BYTES = 2**50
HINT = "a file of measurements is a JSON list of objects, as docs/accuracy.md describes them"
DIMENSIONS = {
    "h": 1 << 20, "L": 4096, "f": 1 << 22, "nh": 1 << 14, "kv": 1 << 14, "hd": 1 << 14, "V": 1 << 24,
}  # fmt: skip
"""Names in ``arch_dims`` and the largest value that is believed."""


class NotScored(Exception):  # noqa: N818 - read as a sentence: raise NotScored("no sequence length")
    """A row that has no place in the figures; the message says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dims:
    """Widths of a transformer, as measurements name them."""

    hidden_size: int
    num_layers: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    is_tied: bool
    is_gated: bool
    has_qkv_bias: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One measurement. Its fields are read on demand; a wrong one raises ``NotScored``."""

    id: str
    fields: Mapping[str, Any]

    def text(self, name: str) -> str:
        """Return a field as lower-case text; empty when it is absent."""
        value = self.fields.get(name)
        if value is None or value is False:
            return ""
        if isinstance(value, str):
            return value.lower()
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            return " ".join(value).lower()
        raise NotScored(f"{name} is no text")

    def flag(self, name: str) -> bool | None:
        """Return a field that is true, false or unknown."""
        value = self.fields.get(name)
        if value is None or isinstance(value, bool):
            return value
        raise NotScored(f"{name} is neither true nor false")

    def count(self, name: str, *, high: int, default: int | None = None) -> int:
        """Return a field that is a whole number from 1 to ``high``."""
        value = self.fields.get(name)
        if value is None:
            if default is None:
                raise NotScored(f"{name} was not published")
            return default
        return _count(value, name, high)

    def targets(self, name: str = "lora_targets") -> tuple[str, ...]:
        """Return a field that is a list of names."""
        value = self.fields.get(name)
        names = [value] if isinstance(value, str) else value
        if names is None:
            return ()
        if isinstance(names, list) and all(isinstance(part, str) for part in names):
            return tuple(names)
        raise NotScored(f"{name} is no list of names")

    @property
    def measured_bytes(self) -> int:
        """What was measured: ``measured_bytes``, or else ``measured`` in ``unit``."""
        value = self.fields.get("measured_bytes")
        if value is not None:
            return _amount(value, 1, "measured_bytes")
        unit = self.text("unit").strip()
        if unit not in UNIT_BYTES:
            raise NotScored(f"unit {unit!r} is not known" if unit else "unit was not published")
        return _amount(self.fields.get("measured"), UNIT_BYTES[unit], "measured")

    @property
    def dims(self) -> Dims | None:
        """Widths of the model; ``None`` when the row has none."""
        found = self.fields.get("arch_dims")
        if found is None:
            return None
        if not isinstance(found, dict):
            raise NotScored("arch_dims is no object")
        sizes = {
            name: _count(found.get(name), f"arch_dims.{name}", high) for name, high in DIMENSIONS.items()
        }
        return Dims(
            hidden_size=sizes["h"],
            num_layers=sizes["L"],
            intermediate_size=sizes["f"],
            num_heads=sizes["nh"],
            num_kv_heads=sizes["kv"],
            head_dim=sizes["hd"],
            vocab_size=sizes["V"],
            is_tied=found.get("tied") is True,
            is_gated=found.get("gated") is not False,
            has_qkv_bias=found.get("qkv_bias") is True,
        )


def read_rows(path: Path) -> list[Row]:
    """Read a file of measurements.

    Raises:
        BadInput: It cannot be read, is no JSON, or is no list of rows.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BadInput(f"{path}: larger than {MAX_FILE_BYTES // 2**20} MiB", hint=HINT)
        found = json.loads(path.read_text(encoding="utf8"))
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or 'cannot be read'}") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path}: not UTF-8", hint=HINT) from None
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}:{error.lineno}: not JSON: {error.msg}", hint=HINT) from None
    except (ValueError, RecursionError):
        raise BadInput(
            f"{path}: not JSON that can be read: a number or a nesting without end", hint=HINT
        ) from None
    if not isinstance(found, list):
        raise BadInput(f"{path}: a JSON {type(found).__name__}, not a list of rows", hint=HINT)
    if not found:
        raise BadInput(f"{path}: no rows", hint=HINT)
    return [_row(number, value) for number, value in enumerate(found, start=1)]


def _row(number: int, value: object) -> Row:
    if not isinstance(value, dict):
        return Row(id=f"row {number}", fields={"": value})
    name = value.get("id")
    return Row(id=name if isinstance(name, str) and name else f"row {number}", fields=value)


def _number(value: object, name: str) -> float:
    if value is None:
        raise NotScored(f"{name} was not published")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NotScored(f"{name} is no number")
    if isinstance(value, float) and not math.isfinite(value):
        raise NotScored(f"{name} is {value}")
    return value


def _count(value: object, name: str, high: int) -> int:
    number = _number(value, name)
    if number != int(number):
        raise NotScored(f"{name} is no whole number")
    if not 1 <= number <= high:
        raise NotScored(f"{name} is out of bounds (1 to {high:,})")
    return int(number)


def _amount(value: object, unit: int, name: str) -> int:
    number = _number(value, name)
    if not 0 < number <= MAX_MEASURED_BYTES / unit:
        raise NotScored(f"{name} is out of bounds")
    return round(number * unit)
