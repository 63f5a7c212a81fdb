"""What the kernel knows of NVIDIA cards without their library, and of a memory they share with it."""

import os
import re
from dataclasses import replace

from ...specs.machine import Device
from .. import pci
from ..system import System
from ..values import size, word
from . import facts

SOURCE = "/proc/driver/nvidia"
_VERSION = re.compile(r"Kernel Module\D*?(?:for \S+\s+)?(\d+(?:\.\d+)+)")
_UNSET_UUID = "?"
_MEMORY_KEYS = ("MemTotal", "MemAvailable")


def cards(system: System) -> tuple[Device, ...]:
    """Return the cards that the kernel module drives, in bus order; their memory is not told there."""
    texts = {path.parent.name: path for path in system.glob(f"{SOURCE}/gpus/*/information")}
    found = [
        parse_information(system.read(f"{SOURCE}/gpus/{name}/information") or "", bus_id=name)
        for name in texts
    ]
    found.sort(key=lambda device: device.bus_id or "")
    return tuple(
        replace(device, index=index, physical_index=index, numa_node=_node(system, device))
        for index, device in enumerate(found)
    )


def parse_information(text: str, *, bus_id: str) -> Device:
    """Return the card that one ``information`` file describes.

    Args:
        text: The file, whole or cut.
        bus_id: The folder's name, for a text that does not tell the address.
    """
    fields = {
        key.strip(): value.strip()
        for key, colon, value in (line.partition(":") for line in text.splitlines())
        if colon
    }
    uuid = word(fields.get("GPU UUID"))
    return Device(
        kind=facts.KIND,
        vendor=facts.VENDOR,
        index=0,
        name=word(fields.get("Model")) or facts.UNNAMED,
        uuid=None if uuid is None or _UNSET_UUID in uuid else uuid,
        bus_id=long_address(fields.get("Bus Location") or bus_id),
        source=SOURCE,
    )


def kernel_version(system: System) -> str | None:
    """Return the version of the loaded kernel module."""
    found = _VERSION.search(system.read(f"{SOURCE}/version") or "")
    return found[1] if found else None


def long_address(address: str | None) -> str | None:
    """Return an address as NVIDIA writes it, ``00000000:3B:00.0``."""
    short = pci.address(address)
    return None if short is None else f"0000{short}".upper()


def host_memory(system: System) -> tuple[int | None, int | None]:
    """Return total and available bytes of the host; swap is no memory for a device."""
    found = dict(line.partition(":")[::2] for line in (system.read("/proc/meminfo") or "").splitlines())
    total, available = (size(found.get(key, "").strip()) for key in _MEMORY_KEYS)
    return total, available


def with_host_memory(system: System, device: Device) -> Device:
    """Return a device whose memory is the host's."""
    total, available = host_memory(system)
    note = "device and host share one memory; what is free for one is free for both"
    return replace(device, total_bytes=total, free_bytes=available, unified_memory=True, note=note)


def name_of(system: System, pid: int) -> str | None:
    """Return the name of a process of this container."""
    return word(system.read(f"/proc/{pid}/comm"))


def architecture(system: System) -> str:
    """Return the machine that the root is of: ``x86_64``, ``aarch64``."""
    return system.read("/proc/sys/kernel/arch") or os.uname().machine


def _node(system: System, device: Device) -> int | None:
    address = pci.address(device.bus_id)
    return pci.numa_node(system, address) if address else None
