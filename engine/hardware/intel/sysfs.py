"""What the kernel's xe and i915 drivers show of Intel cards: memory, tiles and sensors."""

from .. import pci
from ..system import System
from ..values import hexadecimal, number, whole
from .card import Card, Usage

VENDOR = "0x8086"
_DRM = "/sys/class/drm"
_MICRO = 1e6


def read_cards(system: System) -> tuple[Card, ...]:
    """Return all Intel graphics in PCI order, those in processors too (``is_discrete`` is False)."""
    cards = (_card(system, name) for name in pci.graphics(system, VENDOR))
    return tuple(sorted((card for card in cards if card is not None), key=lambda card: card.bus_id or ""))


def read_usage(system: System, bus_id: str) -> Usage:
    """Return the sensors of a card; the drivers show no load, and energy instead of power."""
    folder = f"{pci.DEVICES}/{bus_id}/hwmon"
    hwmon = next((path.name for path in system.glob(f"{folder}/hwmon*")), "")

    def sensor(name: str, divisor: float) -> float | None:
        value = number(system.read(f"{folder}/{hwmon}/{name}"))
        return None if value is None else value / divisor

    package, board = sensor("temp2_input", 1e3), sensor("temp1_input", 1e3)
    return Usage(
        temperature_celsius=board if package is None else package,
        power_watts=sensor("power1_input", _MICRO),
        power_limit_watts=sensor("power1_max", _MICRO),
    )


def _card(system: System, name: str) -> Card | None:
    uevent = dict(
        line.split("=", 1)
        for line in (system.read(f"{_DRM}/{name}/device/uevent") or "").splitlines()
        if "=" in line
    )
    bus_id = pci.address(uevent.get("PCI_SLOT_NAME"))
    if bus_id is None or uevent.get("DRIVER") not in {"xe", "i915"}:
        return None
    tiles = _tile_sizes(system, name)
    shared = whole(system.read(f"{_DRM}/{name}/lmem_total_bytes"))
    total = sum(tiles) or shared or None
    generation, width = pci.link_limits(system, bus_id)
    return Card(
        bus_id=bus_id,
        device_id=hexadecimal(system.read(f"{_DRM}/{name}/device/device")),
        total_bytes=total,
        num_tiles=len(tiles) or None,
        # mainline i915 shows no memory: nothing can be said of a card there
        is_discrete=True if total else None if _may_be_discrete(bus_id) else False,
        pcie_generation=generation,
        pcie_width=width,
    )


def _tile_sizes(system: System, name: str) -> list[int]:
    """Return the memory of each tile that the xe driver shows."""
    folder = f"{_DRM}/{name}/device"
    sizes = []
    for path in system.glob(f"{folder}/tile[0-9]*"):
        tile = f"{folder}/{path.name}"
        read = whole(system.read(f"{tile}/physical_vram_size_bytes"))
        read = read or whole(system.read(f"{tile}/memory/physical_vram_size_bytes"))
        if read:
            sizes.append(read)
    return sizes


def _may_be_discrete(bus_id: str) -> bool:
    """Whether a card sits behind a bridge; a processor's graphics are always 00:02.0."""
    return not bus_id.endswith(":00:02.0")
