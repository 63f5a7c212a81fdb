"""The kernel's own view of AMD devices: KFD topology, memory and sensors in sysfs.

KFD is what ROCm's runtime itself enumerates, so its order is HIP's, a partition of a card is a node of its
own with its own memory (where rocm-smi shows the whole card's), and each half of an MI250 is a device.
"""

import os
from dataclasses import dataclass, replace

from ...specs.machine import DeviceProcess
from .. import pci
from ..system import System
from ..values import number, share, whole, word
from .card import Card, gpu_uuid
from .facts import from_target_version

NODES = "/sys/class/kfd/kfd/topology/nodes"
AMD_VENDOR = 0x1002
_PROCESSES = "/sys/class/kfd/kfd/proc"
_HEAPS_OF_DEVICE = (1, 2)
"""HSA's heap types for memory of the device: seen by the host, and not."""
_XGMI = 11
"""HSA's type of io_link."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A GPU of the KFD topology."""

    node: int
    gpu_id: int
    card: Card


def read_nodes(system: System, vendor: int = AMD_VENDOR) -> tuple[Node, ...]:
    """Return a vendor's GPUs in the runtime's order; those that a container may not see are passed over."""
    folders = [path.name for path in system.glob(f"{NODES}/*") if path.name.isdigit()]
    nodes = [node for name in sorted(folders, key=int) if (node := _node(system, name, vendor)) is not None]
    return _with_partitions(system, nodes)


def parse_properties(text: str) -> dict[str, int]:
    """Return a file of KFD: a name and a whole number on each line."""
    values = {}
    for line in text.splitlines():
        name, _, value = line.strip().partition(" ")
        if name and value.isascii() and value.isdigit() and len(value) <= 20:  # noqa: PLR2004 - 64 bits
            values[name] = int(value)
    return values


def bus_address(domain: int, location: int) -> str:
    """Return the PCI address; a partition's number lies in the function's or in the highest bits."""
    return f"{domain & 0xFFFF:04x}:{location >> 8 & 0xFF:02x}:{location >> 3 & 0x1F:02x}.{location & 7}"


def read_sensors(system: System, bus_id: str) -> Card:
    """Return what amdgpu shows of a whole card in sysfs."""
    folder = f"{pci.DEVICES}/{bus_id}"
    generation, width = pci.link_limits(system, bus_id)
    hwmon = next((path.name for path in system.glob(f"{folder}/hwmon/hwmon*")), None)

    def sensor(name: str, divisor: float) -> float | None:
        value = number(system.read(f"{folder}/hwmon/{hwmon}/{name}"))
        return None if value is None else value / divisor

    return Card(
        bus_id=bus_id,
        name=word(system.read(f"{folder}/product_name")),
        total_bytes=whole(system.read(f"{folder}/mem_info_vram_total")),
        used_bytes=whole(system.read(f"{folder}/mem_info_vram_used")),
        utilization_percent=share(system.read(f"{folder}/gpu_busy_percent")),
        temperature_celsius=_first(sensor("temp2_input", 1e3), sensor("temp1_input", 1e3)),
        power_watts=_first(sensor("power1_average", 1e6), sensor("power1_input", 1e6)),
        power_limit_watts=sensor("power1_cap", 1e6),
        clock_mhz=sensor("freq1_input", 1e6),
        numa_node=pci.numa_node(system, bus_id),
        pcie_generation=generation,
        pcie_width=width,
    )


def host_bytes_used(system: System, bus_id: str) -> int | None:
    """Return how much of the host's memory (GTT) the device has mapped."""
    return whole(system.read(f"{pci.DEVICES}/{bus_id}/mem_info_gtt_used"))


def read_xgmi(system: System, node: int) -> tuple[int, ...]:
    """Return the nodes at the other ends of a node's xGMI links."""
    folder = f"{NODES}/{node}/io_links"
    numbers = [path.parent.name for path in system.glob(f"{folder}/*/properties")]
    files = [parse_properties(system.read(f"{folder}/{number}/properties") or "") for number in numbers]
    return tuple(values["node_to"] for values in files if values.get("type") == _XGMI and "node_to" in values)


def are_processes_listed(system: System) -> bool:
    """Whether the kernel shows who uses the devices; an empty list is an answer too."""
    return os.access(system.path(_PROCESSES), os.R_OK)


def read_processes(system: System, gpu_id: int) -> tuple[DeviceProcess, ...]:
    """Return who holds memory of a node; the kernel lists every process that opened /dev/kfd."""
    found = []
    for path in system.glob(f"{_PROCESSES}/*/vram_{gpu_id}"):
        pid = path.parent.name
        used = whole(system.read(f"{_PROCESSES}/{pid}/{path.name}"))
        if pid.isdigit() and used:
            name = word(system.read(f"/proc/{pid}/comm"))
            found.append(DeviceProcess(pid=int(pid), name=name, used_bytes=used))
    return tuple(sorted(found, key=lambda process: process.pid or 0))


def _node(system: System, name: str, vendor: int) -> Node | None:
    """Return a node when it is a GPU of the vendor that this process may open."""
    folder = f"{NODES}/{name}"
    values = parse_properties(system.read(f"{folder}/properties") or "")
    if not values.get("simd_count") or values.get("vendor_id") != vendor:
        return None
    memory = [
        parse_properties(system.read(f"{folder}/mem_banks/{path.parent.name}/properties") or "")
        for path in system.glob(f"{folder}/mem_banks/*/properties")
    ]
    total = sum(bank.get("size_in_bytes", 0) for bank in memory if bank.get("heap_type") in _HEAPS_OF_DEVICE)
    unique = values.get("unique_id", 0)
    bus_id = None
    if "location_id" in values:
        bus_id = bus_address(values.get("domain", 0), values["location_id"])
    return Node(
        node=int(name),
        gpu_id=whole(system.read(f"{folder}/gpu_id")) or 0,
        card=Card(
            bus_id=bus_id,
            uuid=gpu_uuid(f"{unique:x}"),
            architecture=from_target_version(values.get("gfx_target_version", 0)),
            device_id=values.get("device_id"),
            total_bytes=total or values.get("local_mem_size") or None,
        ),
    )


def _with_partitions(system: System, nodes: list[Node]) -> tuple[Node, ...]:
    """Give nodes that share one card its address and their place on it."""
    slots = [None if node.card.bus_id is None else node.card.bus_id.rpartition(".")[0] for node in nodes]
    placed = []
    for position, (node, slot) in enumerate(zip(nodes, slots, strict=True)):
        if slot is not None and slots.count(slot) > 1:
            bus_id = f"{slot}.0"
            mode = word(system.read(f"{pci.DEVICES}/{bus_id}/current_compute_partition")) or "partition"
            place = slots[:position].count(slot)
            card = replace(node.card, bus_id=bus_id, partition=f"{mode} {place}")
            placed.append(replace(node, card=card))
        else:
            placed.append(node)
    return tuple(placed)


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)
