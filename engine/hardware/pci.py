"""What /sys knows of any PCI device: where it sits, how wide its slot is, and what lies between two."""

import os
import re

from ..specs.machine import LinkKind
from .system import System
from .values import number, whole

DEVICES = "/sys/bus/pci/devices"
_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]$")
_HOST_BRIDGE = re.compile(r"pci[0-9a-f]{4,8}:[0-9a-f]{2}$")
_GENERATIONS = {2.5: 1, 5.0: 2, 8.0: 3, 16.0: 4, 32.0: 5, 64.0: 6}
"""By GT/s of a lane."""
_ONE_SWITCH = 4
"""Devices behind one switch differ in its downstream ports and in themselves; a card may bring a switch."""


def address(value: str | None) -> str | None:
    """Return an address as the kernel writes it, ``0000:3b:00.0``; ``None`` for anything else."""
    text = (value or "").strip().lower()
    found = re.fullmatch(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f])", text)
    return None if found is None else f"{(found[1] or '0')[-4:]:0>4}:{found[2]}"


def graphics(system: System, vendor: str) -> tuple[str, ...]:
    """Return the names (``card0``) of a vendor's display and compute devices."""
    cards = (path.parent.parent.name for path in system.glob("/sys/class/drm/card*/device/vendor"))
    return tuple(card for card in cards if system.read(f"/sys/class/drm/{card}/device/vendor") == vendor)


def numa_node(system: System, bus_id: str) -> int | None:
    """Return the NUMA node; the kernel says -1 where there is only one."""
    return whole(system.read(f"{DEVICES}/{bus_id}/numa_node"))


def link_limits(system: System, bus_id: str) -> tuple[int | None, int | None]:
    """Return the newest PCIe generation and the width that the device can do."""
    speed = number(system.read(f"{DEVICES}/{bus_id}/max_link_speed"))
    width = whole(system.read(f"{DEVICES}/{bus_id}/max_link_width"))
    return None if speed is None else _GENERATIONS.get(speed), width or None


def path_between(system: System, first: str, second: str) -> LinkKind | None:
    """Return what a transfer between two devices goes through, in the words of ``nvidia-smi topo``."""
    one, other = _ancestry(system, first), _ancestry(system, second)
    if not one or not other or first == second:
        return None
    common = 0
    while common < min(len(one), len(other)) and one[common] == other[common]:
        common += 1
    if common == 0:
        nodes = [numa_node(system, bus_id) for bus_id in (first, second)]
        return None if None in nodes else "node" if nodes[0] == nodes[1] else "sys"
    if common == 1:
        return "phb"
    return "pix" if max(len(one), len(other)) - common <= _ONE_SWITCH else "pxb"


def _ancestry(system: System, bus_id: str) -> list[str]:
    """Return host bridge, bridges and device: ``pci0000:3a 0000:3a:00.0 0000:3b:00.0``."""
    try:
        real = os.path.realpath(system.path(f"{DEVICES}/{bus_id}"), strict=True)
    except OSError:
        return []
    return [part for part in real.split("/") if _HOST_BRIDGE.match(part) or _ADDRESS.match(part)]
