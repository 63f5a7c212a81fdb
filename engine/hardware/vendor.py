"""The questions that every vendor's file answers."""

from dataclasses import dataclass
from typing import Protocol

from ..specs.machine import Device, DeviceReading, Link, Problem
from .system import System


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """The devices of one vendor that this process may use, in its order, and what could not be read."""

    devices: tuple[Device, ...] = ()
    problems: tuple[Problem, ...] = ()


class Vendor(Protocol):
    """A module of this room that reads one vendor's devices.

    What fails is ``None`` in a device, or a ``Problem`` in one line that names tool and field. Nothing
    raises.
    """

    @property
    def VENDOR(self) -> str:  # noqa: N802 - a module constant
        """The vendor's name in ``Device.vendor``."""

    def is_present(self, system: System) -> bool:
        """Whether the box has the vendor's driver, tool or PCI device; cheap, under a few milliseconds."""

    def inventory(self, system: System) -> Found:
        """Return what a process with the system's environment may use."""

    def usage(self, system: System, devices: tuple[Device, ...]) -> tuple[DeviceReading, ...]:
        """Return one reading per given device of this vendor; devices of others are passed over."""

    def links(self, system: System, devices: tuple[Device, ...]) -> tuple[Link, ...]:
        """Return the best path between each two of the given devices of this vendor, where it is known."""
