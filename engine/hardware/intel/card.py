"""What is said of one Intel card, and how busy a card or a tile of it is."""

from dataclasses import dataclass, fields
from typing import TypeVar

from ...specs.machine import DeviceProcess

BF16_FAMILIES = {"pvc": (0x0BD0, 0x0BFF), "dg2": (0x5690, 0x56CF), "bmg": (0xE200, 0xE2FF)}
"""PCI devices of the families with XMX matrix units, which do bf16 (Intel, Xe-HPC, Xe-HPG and Xe2 ISA): Data
Center GPU Max, Arc A and Flex, Arc B. The names are those of torch's TORCH_XPU_ARCH_LIST."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """How busy a card or a tile is."""

    utilization_percent: float | None = None
    used_bytes: int | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    clock_mhz: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """A card as xpu-smi or the kernel shows it; what is not said is ``None``."""

    number: int | None = None
    """xpu-smi's number of it."""
    bus_id: str | None = None
    uuid: str | None = None
    name: str | None = None
    device_id: int | None = None
    """PCI device."""
    total_bytes: int | None = None
    free_bytes: int | None = None
    num_tiles: int | None = None
    is_discrete: bool | None = None
    """Whether it has memory of its own."""
    pcie_generation: int | None = None
    pcie_width: int | None = None
    processes: tuple[DeviceProcess, ...] = ()


Reading = TypeVar("Reading", Card, Usage)


def over(upper: Reading, lower: Reading) -> Reading:
    """Return a reading with its gaps filled from another of the same thing."""
    values = {}
    for one in fields(upper):
        mine = getattr(upper, one.name)
        values[one.name] = getattr(lower, one.name) if mine is None or mine == () else mine
    return type(upper)(**values)


def family(device_id: int | None) -> str | None:
    """Return torch's name of the family of a PCI device."""
    for name, (first, last) in BF16_FAMILIES.items():
        if device_id is not None and first <= device_id <= last:
            return name
    return None
