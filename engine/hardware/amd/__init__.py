"""AMD devices for torch on ROCm: the kernel's topology for order and memory, AMD's tools for the rest."""

import os
import re

from ...specs.machine import Device, DeviceReading, Link, Problem
from .. import pci
from ..system import System
from ..values import size
from ..vendor import Found
from . import amd_smi, kfd, rocm_smi
from .card import Card, join
from .facts import abilities, is_unified
from .links import find_links
from .sources import ask_tools, measure, read_kernel
from .visibility import HIP, ROCR, visible

__all__ = ["VENDOR", "inventory", "is_present", "links", "usage"]

VENDOR = "amd"
KIND = "cuda"
"""torch on ROCm keeps CUDA's name."""
LEAST_BYTES = 4 << 30
"""Less is the graphics core of a processor, whatever its name is: a 32 GB MI50 has the same one."""
_PCI_VENDOR = "0x1002"
_DRIVER = "/dev/kfd"
_ONLY_A_NUMBER = re.compile(r"0x[0-9a-fA-F]+$")


def is_present(system: System) -> bool:
    """Whether the kernel shows an AMD GPU, or AMD's tool is there."""
    if pci.graphics(system, _PCI_VENDOR) or kfd.read_nodes(system):
        return True
    return system.has(amd_smi.TOOL) or (system.has(rocm_smi.TOOL) and not system.has("hy-smi"))


def inventory(system: System) -> Found:
    """Return what HIP shows to a process with this environment, in its order; not small graphics cores."""
    kernel = read_kernel(system)
    if kernel and not os.access(system.path(_DRIVER), os.F_OK):
        return Found(problems=(_no_driver(),))
    told, tool, problems = ask_tools(system, is_kernel_read=bool(kernel))
    cards = _laid_over(kernel, told) if kernel else told
    source = ", ".join(filter(None, ("KFD" if kernel else "", tool)))
    chosen = visible(system.environ, [card.uuid for card in cards])
    devices = [
        _device(system, cards[position], index=index, position=position, source=source)
        for index, position in enumerate(chosen.positions)
    ]
    kept = [device for device in devices if device.total_bytes is None or device.total_bytes >= LEAST_BYTES]
    if chosen.problem is not None:
        advice = f"set only one of {ROCR} and {HIP}"
        problems += (Problem(source="ROCm", message=chosen.problem, advice=advice),)
    if kept:
        problems += tuple(_left_out(device, kept) for device in devices if device not in kept)
    if kernel and not os.access(system.path(_DRIVER), os.R_OK | os.W_OK):
        problems += (_no_permission(),)
    return Found(devices=tuple(kept), problems=problems)


def usage(system: System, devices: tuple[Device, ...]) -> tuple[DeviceReading, ...]:
    """Return one reading per AMD device: from sysfs, which costs little, or else from AMD's tools."""
    ours = tuple(device for device in devices if device.vendor == VENDOR)
    if not ours:
        return ()
    kernel = read_kernel(system)
    if kernel:
        return tuple(_reading(device, _find(device, kernel)) for device in ours)
    told = measure(system)
    keys = (Card(number=device.physical_index, bus_id=device.bus_id, uuid=device.uuid) for device in ours)
    found = join(tuple(keys), told)
    return tuple(_reading(device, card) for device, card in zip(ours, found, strict=True))


def links(system: System, devices: tuple[Device, ...]) -> tuple[Link, ...]:
    """Return xGMI where the kernel or the tools know of it, else what lies between on PCI."""
    ours = tuple(device for device in devices if device.vendor == VENDOR)
    return find_links(system, ours) if len(ours) > 1 else ()


def _laid_over(kernel: tuple[Card, ...], told: tuple[Card, ...]) -> tuple[Card, ...]:
    """Return the kernel's cards with what the tools add; of a slice their figures are the whole card's."""
    joined = []
    for card, full in zip(kernel, join(kernel, told), strict=True):
        name = next((one.name for one in told if one.bus_id == card.bus_id and _is_name(one.name)), None)
        both = Card(name=name).over(card if card.partition else full)
        joined.append(both)
    return tuple(joined)


def _device(system: System, card: Card, *, index: int, position: int, source: str) -> Device:
    total = card.total_bytes
    free = None if total is None or card.used_bytes is None else max(0, total - card.used_bytes)
    unified = is_unified(card.architecture, card.device_id)
    if unified and free is not None:
        free = min(free, _available_bytes(system) or free)
    can = abilities(card.architecture)
    return Device(
        kind=KIND,
        vendor=VENDOR,
        index=index,
        physical_index=position,
        name=card.name if card.name and _is_name(card.name) else f"AMD {card.architecture or 'GPU'}",
        uuid=card.uuid,
        bus_id=card.bus_id,
        total_bytes=total,
        free_bytes=free,
        processes=card.processes,
        unified_memory=unified,
        partition=card.partition,
        architecture=card.architecture,
        supports_bf16=can.bf16,
        supports_fp8=can.fp8,
        supports_flash_attention_2=can.flash_attention_2,
        supports_flash_attention_3=can.flash_attention_3,
        numa_node=card.numa_node,
        pcie_generation=card.pcie_generation,
        pcie_width=card.pcie_width,
        source=source,
        note="shares its memory with the host" if unified else None,
    )


def _reading(device: Device, card: Card | None) -> DeviceReading:
    if card is None:
        return DeviceReading(
            index=device.index, name=device.name, memory_total_bytes=device.total_bytes, is_lost=True
        )
    return DeviceReading(
        index=device.index,
        name=device.name,
        utilization_percent=card.utilization_percent,
        memory_used_bytes=card.used_bytes,
        memory_total_bytes=device.total_bytes if card.total_bytes is None else card.total_bytes,
        temperature_celsius=card.temperature_celsius,
        power_watts=card.power_watts,
        power_limit_watts=card.power_limit_watts,
        clock_mhz=card.clock_mhz,
        pids=tuple(process.pid for process in card.processes if process.pid is not None),
    )


def _find(device: Device, kernel: tuple[Card, ...]) -> Card | None:
    """Return the kernel's card by UUID and slice: positions shift when a card falls off the bus."""
    for card in kernel:
        is_same = card.uuid == device.uuid if device.uuid is not None else card.bus_id == device.bus_id
        if is_same and card.partition == device.partition:
            return card
    return None


def _is_name(text: str | None) -> bool:
    """Whether it is a name; rocm-smi of ROCm 4 prints PCI numbers for names that it does not know."""
    return text is not None and not _ONLY_A_NUMBER.match(text)


def _available_bytes(system: System) -> int | None:
    for line in (system.read("/proc/meminfo") or "").splitlines():
        if line.startswith("MemAvailable:"):
            return size(line.partition(":")[2])
    return None


def _left_out(device: Device, kept: list[Device]) -> Problem:
    names = ",".join(one.uuid or f"{one.physical_index}" for one in kept)
    mebibytes = (device.total_bytes or 0) >> 20
    return Problem(
        source="ROCm",
        message=f"cuda:{device.index} ({device.name}) has {mebibytes} MiB: left out, but torch counts it",
        advice=f"set {HIP}={names}",
    )


def _no_driver() -> Problem:
    return Problem(
        source="KFD",
        message=f"{_DRIVER} is missing: ROCm cannot open the devices that the kernel lists",
        advice="start the container with --device=/dev/kfd --device=/dev/dri",
    )


def _no_permission() -> Problem:
    return Problem(
        source="KFD",
        message=f"{_DRIVER} cannot be opened by this user",
        advice="add the user to the groups render and video, and log in again",
    )
