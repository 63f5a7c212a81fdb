"""Hygon DCUs: ``hy-smi``, which prints as rocm-smi does with other keys and units, and rocminfo.

torch for DCUs is a build for ROCm, so the kind is ``cuda`` and HIP's variables pick the devices.
"""

from dataclasses import replace

from ..specs.machine import Device, DeviceReading, Link, Problem
from . import pci
from .amd import kfd, rocm_smi, rocminfo
from .amd.card import Card, join
from .amd.links import joined_by_rocm_smi, links_between
from .amd.sources import ask
from .amd.visibility import HIP, ROCR, visible
from .system import System
from .vendor import Found

VENDOR = "hygon"
KIND = "cuda"
TOOL = "hy-smi"
QUERY = (
    *("-i", "--showproductname", "--showuniqueid", "--showmeminfo", "vram", "--showuse", "--showtemp"),
    *("--showpower", "--json"),
)
_PCI_VENDOR = "0x1d94"


def is_present(system: System) -> bool:
    """Whether the kernel shows a DCU, or Hygon's tool is there."""
    return system.has(TOOL) or bool(pci.graphics(system, _PCI_VENDOR))


def inventory(system: System) -> Found:
    """Return what HIP shows to a process with this environment, in its order."""
    problems: list[Problem] = []
    cards, source = _read(system, problems), _tool(system)
    if not cards:
        cards, source = tuple(node.card for node in kfd.read_nodes(system, int(_PCI_VENDOR, 16))), "KFD"
    chosen = visible(system.environ, [card.uuid for card in cards])
    if chosen.problem is not None:
        advice = f"set only one of {ROCR} and {HIP}"
        problems.append(Problem(source="DTK", message=chosen.problem, advice=advice))
    devices = tuple(
        _device(cards[position], index=index, position=position, source=source)
        for index, position in enumerate(chosen.positions)
    )
    return Found(devices=devices, problems=tuple(problems))


def usage(system: System, devices: tuple[Device, ...]) -> tuple[DeviceReading, ...]:
    """Return one reading per DCU."""
    ours = tuple(device for device in devices if device.vendor == VENDOR)
    if not ours:
        return ()
    cards = ask(system, _tool(system), QUERY, rocm_smi.parse_cards) or ()
    keys = tuple(Card(uuid=device.uuid, number=device.physical_index) for device in ours)
    return tuple(_reading(device, card) for device, card in zip(ours, join(keys, cards), strict=True))


def links(system: System, devices: tuple[Device, ...]) -> tuple[Link, ...]:
    """Return xGMI between DCUs, or what lies between on PCI."""
    ours = tuple(device for device in devices if device.vendor == VENDOR)
    return links_between(system, ours, joined_by_rocm_smi(system, _tool(system))) if len(ours) > 1 else ()


def _tool(system: System) -> str:
    """Return the name of the tool: the DTK brings both, a container perhaps one."""
    return TOOL if system.has(TOOL) else rocm_smi.TOOL


def _read(system: System, problems: list[Problem]) -> tuple[Card, ...]:
    """Return the tool's cards, with the gfx target that only rocminfo knows."""
    tool = _tool(system)
    if not system.has(tool):
        problems.append(
            Problem(source=TOOL, message=f"{TOOL}: not found", advice="put the DTK's bin on PATH")
        )
        return ()
    cards = ask(system, tool, QUERY, rocm_smi.parse_cards, problems=problems) or ()
    agents = ask(system, rocminfo.TOOL, (), rocminfo.parse_cards) if system.has(rocminfo.TOOL) else None
    if not agents:
        return cards
    nameless = tuple(replace(agent, number=place) for place, agent in enumerate(agents))
    return join(cards, nameless)


def _device(card: Card, *, index: int, position: int, source: str) -> Device:
    total, used = card.total_bytes, card.used_bytes
    return Device(
        kind=KIND,
        vendor=VENDOR,
        index=index,
        physical_index=position,
        name=card.name or "Hygon DCU",
        uuid=card.uuid,
        bus_id=card.bus_id,
        total_bytes=total,
        free_bytes=None if total is None or used is None else max(0, total - used),
        architecture=card.architecture,
        numa_node=card.numa_node,
        source=source,
    )


def _reading(device: Device, card: Card) -> DeviceReading:
    return DeviceReading(
        index=device.index,
        name=device.name,
        utilization_percent=card.utilization_percent,
        memory_used_bytes=card.used_bytes,
        memory_total_bytes=device.total_bytes,
        temperature_celsius=card.temperature_celsius,
        power_watts=card.power_watts,
        power_limit_watts=card.power_limit_watts,
    )
