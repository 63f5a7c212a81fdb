"""What is in the box and how busy it is, read from the drivers without torch: one file per vendor."""

import os
from collections.abc import Collection, Mapping

from ..specs.machine import DeviceReading, HostReading, Machine
from . import nvidia
from .host import HostSampler, read_host
from .vendor import Vendor

__all__ = ["VENDORS", "HostSampler", "detect", "host_reading", "sample"]

VENDORS: tuple[Vendor, ...] = (nvidia,)
"""Asked in this order; the devices of the first that has any are the machine's."""

_SAMPLER = HostSampler()


def detect(environ: Mapping[str, str] | None = None) -> Machine:
    """Return this machine as a process with ``environ`` (default: our own) may use it. Never raises."""
    environ = os.environ if environ is None else environ
    found = (vendor.inventory(environ) for vendor in VENDORS)
    return Machine(host=read_host(), devices=next((devices for devices in found if devices), ()))


def sample(machine: Machine) -> tuple[DeviceReading, ...]:
    """Return one reading for each device of the machine. Never raises."""
    return tuple(reading for vendor in VENDORS for reading in vendor.usage(machine.devices))


def host_reading(pids: Collection[int] = ()) -> HostReading:
    """Return how busy this host is; percentages are means since this process last asked, None at first."""
    return _SAMPLER.read(pids)
