"""Detects what is in the box and reads how busy it is, without torch and without raising."""

import os
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

from ..specs.machine import Device, DeviceReading, Disk, HostReading, Link, Machine, Problem
from . import amd, apple, cambricon, habana, huawei, hygon, intel, metax, mthreads, nvidia
from .catalogue import with_facts
from .disks import places, read_disks
from .host import HostSampler, read_host
from .network import read_ports
from .system import System
from .together import NoAnswer, ask_together
from .vendor import Found, Vendor

__all__ = ["VENDORS", "HostSampler", "detect", "host_reading", "sample"]

VENDORS: tuple[Vendor, ...] = (
    nvidia,
    huawei,
    amd,
    hygon,
    habana,
    intel,
    cambricon,
    mthreads,
    metax,
    apple,
)
"""Asked in this order: the devices of the first that has any come first, and are the ones trained on."""
VENDOR_SECONDS = 20.0
"""A driver that has to wake eight cards takes ten; vendors' tools are given up much earlier."""
DISK_SECONDS = 5.0
_DISKS = "disks"

_SAMPLER = HostSampler()


def detect(environ: Mapping[str, str] | None = None, *, root: Path = Path("/")) -> Machine:
    """Return this machine as a process with ``environ`` (default: our own) may use it. Never raises.

    Args:
        environ: Decides which devices are visible, where tools are looked for, and what SLURM gives.
        root: Stands for ``/`` of /proc, /sys and /dev.
    """
    system = System(os.environ if environ is None else environ, root)
    disks, disk_problems = _disks(system)
    found, links = _devices(system)
    return Machine(
        host=read_host(system),
        devices=tuple(with_facts(device) for device in found.devices),
        links=links,
        disks=disks,
        ports=read_ports(system),
        problems=(*found.problems, *disk_problems),
    )


def sample(machine: Machine) -> tuple[DeviceReading, ...]:
    """Return one reading for each device of the machine, in its order. Never raises.

    A device that cannot be read stays, with every figure ``None``.
    """
    system = System()
    readings: dict[tuple[str | None, int], DeviceReading] = {}
    for vendor in VENDORS:
        own = tuple(device for device in machine.devices if device.vendor == vendor.VENDOR)
        if own:
            readings |= {(vendor.VENDOR, reading.index): reading for reading in _usage(vendor, system, own)}
    return tuple(readings.get((device.vendor, device.index)) or _unread(device) for device in machine.devices)


def host_reading(pids: Collection[int] = ()) -> HostReading:
    """Return how busy this host is; percentages are means since this process last asked, None at first."""
    return _SAMPLER.read(pids)


def _devices(system: System) -> tuple[Found, tuple[Link, ...]]:
    """Return the devices of all vendors, and the links of those that are trained on."""
    asked = {vendor.VENDOR: partial(_ask, vendor, system) for vendor in VENDORS}
    answers = ask_together(asked, seconds=VENDOR_SECONDS)
    devices: list[Device] = []
    problems: list[Problem] = []
    links: tuple[Link, ...] = ()
    for name, answer in answers.items():
        if isinstance(answer, Exception):
            problems.append(_problem(name, answer, VENDOR_SECONDS))
            continue
        found, found_links = answer
        links = links if devices else found_links
        devices += found.devices
        problems += found.problems
    return Found(devices=tuple(devices), problems=tuple(problems)), links


def _ask(vendor: Vendor, system: System) -> tuple[Found, tuple[Link, ...]]:
    if not vendor.is_present(system):
        return Found(), ()
    found = vendor.inventory(system)
    return found, vendor.links(system, found.devices) if len(found.devices) > 1 else ()


def _disks(system: System) -> tuple[tuple[Disk, ...], tuple[Problem, ...]]:
    question = {_DISKS: partial(read_disks, system, places(system.environ))}
    answer = ask_together(question, seconds=DISK_SECONDS)[_DISKS]
    if isinstance(answer, Exception):
        return (), (_problem(_DISKS, answer, DISK_SECONDS),)
    return answer, ()


def _problem(name: str, error: Exception, seconds: float) -> Problem:
    if isinstance(error, NoAnswer):
        message = f"{name}: no answer in {seconds:.0f} s; left out"
        advice = "a driver or file server hangs: look at the end of `dmesg`"
        return Problem(source=name, message=message, advice=advice)
    said = " ".join(str(error).split())[:200]
    return Problem(source=name, message=f"{name}: unexpected {type(error).__name__} {said}; left out")


def _usage(vendor: Vendor, system: System, devices: tuple[Device, ...]) -> tuple[DeviceReading, ...]:
    try:
        return vendor.usage(system, devices)
    except Exception:  # noqa: BLE001 - a broken driver costs its figures, never the run that is watched
        return ()


def _unread(device: Device) -> DeviceReading:
    return DeviceReading(
        index=device.index, name=device.name, memory_total_bytes=device.total_bytes, is_lost=device.is_lost
    )
