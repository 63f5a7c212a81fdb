"""The questions that every vendor's file answers."""

from collections.abc import Mapping
from typing import Protocol

from ..specs.machine import Device, DeviceReading


class Vendor(Protocol):
    """A module of this room that reads one vendor's devices. It never raises: what fails is ``None``."""

    def is_present(self) -> bool:
        """Whether the vendor's driver answers."""

    def inventory(self, environ: Mapping[str, str]) -> tuple[Device, ...]:
        """Return the devices that a process with this environment may use, in its order."""

    def usage(self, devices: tuple[Device, ...]) -> tuple[DeviceReading, ...]:
        """Return one reading per given device of this vendor; devices of others are passed over."""
