"""What is in the box and how busy it is, read from the drivers without torch: one file per vendor."""

import os
from collections.abc import Collection, Mapping

from ..specs.machine import DeviceReading, HostReading, Machine
from . import nvidia
from .host import HostSampler, read_host
from .system import System
from .vendor import Vendor

__all__ = ["VENDORS", "HostSampler", "detect", "host_reading", "sample"]

VENDORS: tuple[Vendor, ...] = (nvidia,)
"""Asked in this order: the devices of the first that has any come first, and are the ones trained on."""

_SAMPLER = HostSampler()


def detect(environ: Mapping[str, str] | None = None) -> Machine:
    """Return this machine as a process with ``environ`` (default: our own) may use it. Never raises."""
    system = System(os.environ if environ is None else environ)
    present = [vendor for vendor in VENDORS if vendor.is_present(system)]
    found = [(vendor, vendor.inventory(system)) for vendor in present]
    return Machine(
        host=read_host(),
        devices=tuple(device for _, one in found for device in one.devices),
        links=tuple(link for vendor, one in found for link in vendor.links(system, one.devices)),
        problems=tuple(problem for _, one in found for problem in one.problems),
    )


def sample(machine: Machine) -> tuple[DeviceReading, ...]:
    """Return one reading for each device of the machine. Never raises."""
    system = System()
    return tuple(reading for vendor in VENDORS for reading in vendor.usage(system, machine.devices))


def host_reading(pids: Collection[int] = ()) -> HostReading:
    """Return how busy this host is; percentages are means since this process last asked, None at first."""
    return _SAMPLER.read(pids)
