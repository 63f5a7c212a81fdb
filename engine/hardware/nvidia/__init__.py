"""NVIDIA devices: through NVML without a CUDA context, else `nvidia-smi -q -x`, else /proc/driver/nvidia.

Devices are in bus order, as far as the process may see them.
"""

import ctypes
from dataclasses import replace
from pathlib import Path

from ...specs.machine import Device, DeviceReading, Link, Problem
from .. import pci
from ..system import System, ToolError
from ..vendor import Found
from . import cards, facts, nvml, proc, readings, smi
from . import links as paths
from .facts import VENDOR
from .visibility import VISIBLE_ENV, Entry, choose, visible
from .visibility import problems as visibility_problems

__all__ = ["VENDOR", "inventory", "is_present", "links", "usage", "visible"]

_REST = smi.Rest()
_PCI_VENDOR, _DISPLAY_CLASS = "10de", "0x03"


def is_present(system: System) -> bool:
    """Whether the box has the driver, its library or tool, or a card without any of them."""
    if system.path("/proc/driver/nvidia").exists() or system.path("/dev/nvidiactl").exists():
        return True
    return system.has(smi.TOOL) or (_is_live(system) and _has_library()) or _has_card(system)


def inventory(system: System) -> Found:
    """Return what a process with this environment may use; cards that are cut into slices come last."""
    entries, problems = _entries(system)
    devices = choose(system.environ.get(VISIBLE_ENV), entries)
    told = visibility_problems(system.environ, entries, len(devices)) if entries else ()
    return Found(devices=devices, problems=(*problems, *told))


def usage(system: System, devices: tuple[Device, ...]) -> tuple[DeviceReading, ...]:
    """Return one reading per device; one that no longer answers stays, as lost."""
    own = tuple(device for device in devices if device.vendor == VENDOR)
    if _is_live(system):
        try:
            return readings.read(own)
        except nvml.NvmlError:
            pass  # told by the inventory
    known = _tool_readings(system) if system.has(smi.TOOL) and own else {}
    return tuple(_reading(device, known.get(device.uuid or device.bus_id)) for device in own)


def links(system: System, devices: tuple[Device, ...]) -> tuple[Link, ...]:
    """Return the best path between each two whole cards that answer."""
    own = tuple(
        device
        for device in devices
        if device.vendor == VENDOR
        and device.partition is None
        and not device.partitioned
        and not device.is_lost
    )
    if len(own) < 2:  # noqa: PLR2004 - a pair
        return ()
    found: tuple[Link, ...] = ()
    if _is_live(system):
        try:
            found = paths.ask_nvml(own)
        except nvml.NvmlError:
            found = ()
    return found or (paths.ask_tool(system, own) if system.has(smi.TOOL) else ())


def _entries(system: System) -> tuple[tuple[Entry, ...], tuple[Problem, ...]]:
    """Return every device of the box by the best way that works, and what the better ways said."""
    told: list[Problem] = []
    if _is_live(system):
        try:
            return cards.read(system)
        except nvml.NvmlError as error:
            told.append(_failure(system, error.code, error.call))
    if system.has(smi.TOOL):
        try:
            report, problems = smi.ask(system)
        except ToolError as error:
            told += _tool_failure(system, error, is_told=bool(told))
        except smi.SmiError as error:
            told.append(Problem(source=smi.TOOL, message=str(error)))
        else:
            instead = [replace(one, message=f"{one.message}; read through {smi.TOOL}") for one in told]
            return tuple(card.entry for card in report.cards), (*instead, *problems)
    if not told:
        told.append(facts.problem(facts.NO_LIBRARY, "nvmlInit"))
    return tuple(Entry(device=device) for device in proc.cards(system)), tuple(told)


def _failure(system: System, code: int, call: str, *, source: str = "NVML") -> Problem:
    evidence = ""
    if code == facts.MISMATCH and (version := proc.kernel_version(system)):
        evidence = f"the loaded kernel module is {version}"
    return facts.problem(code, call, source=source, evidence=evidence)


def _tool_failure(system: System, error: ToolError, *, is_told: bool) -> list[Problem]:
    """Return what the tool's failure tells beyond NVML's own; both fail alike where both are there."""
    code = facts.code_of(error.output)
    if code is None:
        return [Problem(source=smi.TOOL, message=str(error))]
    if is_told and _has_library():
        return []
    said = next((line.strip() for line in error.output.splitlines() if line.strip()), "")
    problem = _failure(system, code, "-q -x", source=smi.TOOL)
    return [Problem(source=smi.TOOL, message=f"{problem.message}: {said[:200]}", advice=problem.advice)]


def _tool_readings(system: System) -> dict[str | None, DeviceReading]:
    if _REST.is_on(system):
        return {}
    try:
        report, _ = smi.ask(system, with_capabilities=False)
    except (ToolError, smi.SmiError):
        _REST.begin(system)
        return {}
    return {card.entry.device.uuid or card.entry.device.bus_id: card.reading for card in report.cards}


def _reading(device: Device, known: DeviceReading | None) -> DeviceReading:
    if known is None:
        return DeviceReading(
            index=device.index,
            name=device.name,
            memory_total_bytes=device.total_bytes,
            is_lost=device.is_lost,
        )
    return replace(known, index=device.index, name=device.name)


def _is_live(system: System) -> bool:
    """NVML knows this computer only, not one whose files are recorded elsewhere."""
    return system.root == Path("/")


def _has_library() -> bool:
    try:
        ctypes.CDLL(nvml.LIBRARY)
    except OSError:
        return False
    return True


def _has_card(system: System) -> bool:
    """Whether a display controller of the vendor is on the bus; the kernel lists all devices in one file."""
    for line in (system.read("/proc/bus/pci/devices") or "").splitlines():
        words = line.split()
        if len(words) > 1 and words[1].lower().startswith(_PCI_VENDOR) and _is_display(system, words[0]):
            return True
    return False


def _is_display(system: System, where: str) -> bool:
    """Whether a device is a display or 3D controller, by bus and device as in ``3b00``."""
    try:
        slot = int(where[2:4], 16)
    except ValueError:
        return False
    name = f"*:{where[:2]}:{slot >> 3:02x}.{slot & 7}"
    return any(
        (system.read(f"{pci.DEVICES}/{path.parent.name}/class") or "").startswith(_DISPLAY_CLASS)
        for path in system.glob(f"{pci.DEVICES}/{name}/class")
    )
