"""Facts that no driver tells, from a table with sources: bandwidth, FLOPS, what an architecture can do.

Never memory: two cards of one name may have different memory, and only a reading knows. (A machine that is
only written down has no reading; there the usual size of the card is all there is.)
"""

import json
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from ..specs.machine import Device

FILE = Path(__file__).with_name("accelerators.json")
_GB = 1e9
_TERA = 1e12


@dataclass(frozen=True, kw_only=True, slots=True)
class Accelerator:
    """One row of the table. Unknown is ``None``."""

    name: str
    """As its driver says it."""
    vendor: str
    match: str
    """Fits somewhere in the name that a driver reports."""
    also: str = ""
    """More words by which people call it."""
    architecture: str | None
    memory_gb: float | None
    """As its maker says; the driver reports less, or more."""
    memory_mib: int | None
    """As its driver reports; of several variants the usual one."""
    unified_memory: bool = False
    bandwidth_gb_per_second: float | None
    dense_bf16_tflops: float | None
    sources: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """What every chip of an architecture can do in hardware. Unknown is ``None``."""

    match: str
    """Fits a whole ``Device.architecture``."""
    bf16: bool | None
    fp8: bool | None
    flash_attention_2: bool | None
    flash_attention_3: bool | None
    sources: tuple[str, ...]


@cache
def accelerators() -> tuple[Accelerator, ...]:
    """Return the table; its order is the order of preference."""
    return tuple(Accelerator(**_row(row)) for row in _table()["accelerators"])


@cache
def architectures() -> tuple[Architecture, ...]:
    """Return what is known of architectures; the first that fits counts."""
    return tuple(Architecture(**_row(row)) for row in _table()["architectures"])


def find(name: str, vendor: str | None = None) -> Accelerator | None:
    """Return the row of a name that a driver reports, or ``None``: an unknown card gets no guess."""
    rows = (row for row in accelerators() if vendor is None or row.vendor == vendor)
    return next((row for row in rows if re.search(row.match, name, re.IGNORECASE)), None)


def find_architecture(architecture: str) -> Architecture | None:
    """Return what is known of an architecture."""
    rows = architectures()
    return next((row for row in rows if re.fullmatch(row.match, architecture, re.IGNORECASE)), None)


def with_facts(device: Device) -> Device:
    """Return the device with what the table knows and its driver did not say.

    What a chip can do comes from its architecture, never from its name. Rates are those of the whole chip,
    so a slice of one gets none.
    """
    row = None if device.partition else find(device.name, device.vendor)
    chip = find_architecture(device.architecture) if device.architecture else None
    known: dict[str, Any] = {}
    if row is not None:
        known["bandwidth_bytes_per_second"] = _times(row.bandwidth_gb_per_second, _GB)
        known["dense_bf16_flops_per_second"] = _times(row.dense_bf16_tflops, _TERA)
    if chip is not None:
        known["supports_bf16"] = chip.bf16
        known["supports_fp8"] = chip.fp8
        known["supports_flash_attention_2"] = chip.flash_attention_2
        known["supports_flash_attention_3"] = chip.flash_attention_3
    return replace(device, **{key: value for key, value in known.items() if getattr(device, key) is None})


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(FILE.read_bytes())
    return table


def _row(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"sources": tuple(row["sources"])}


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
