"""How fast devices talk: to each other, to the host, to other nodes. Unknown links are assumed, and said."""

import re
from dataclasses import dataclass

from ..specs.machine import Device, Machine

_GIGA = 1e9

NVLINK_BYTES = {"sm_60": 20e9, "sm_100": 50e9, "sm_103": 50e9}
"""Per link and direction. NVLink 1: 20, NVLink 2 to 4: 25, NVLink 5: 50 (NVIDIA's data sheets)."""
NVLINK_COUNT = {"sm_70": 6, "sm_80": 12, "sm_90": 18, "sm_100": 18, "sm_103": 18}
"""Of SXM modules; for machines that are only written down (NVIDIA's data sheets)."""
PCIE_BYTES = {3: 0.985e9, 4: 1.969e9, 5: 3.938e9, 6: 7.563e9}
"""Per lane and direction (PCI-SIG)."""
PCIE_OF = ((r"sm_(6|7)", 3), (r"sm_8", 4), (r"sm_(9|10|12)", 5), (r"gfx9", 4), (r"Ascend", 4))
"""Generation of a card whose driver does not say it."""
OTHER_LINK_BYTES = {"xgmi": 64e9, "hccs": 28e9, "mxlink": 32e9, "xelink": 26e9}
"""Per link and direction, by their makers: AMD Infinity Fabric of MI300X, HCCS of Ascend 910B."""
COLLECTIVE_SHARE = {"nvlink": 0.78, "xgmi": 0.7, "hccs": 0.6, "mxlink": 0.6, "xelink": 0.6, "pcie": 0.5}
"""What collectives get of a link's rate. nvlink: rings of 8 A100 reach 235 of 300 GB/s, of 8 H200 368 of 450;
xgmi: 8 MI300X 313 of 448 (stas00/ml-engineering 744d01e, network). pcie: cards of NVIDIA's GeForce have no
peer access, so all passes through host memory: 8 RTX 5090 reach 28 of 63 GB/s and 4 of them 35 (NVIDIA/nccl
issue 1639). hccs, mxlink, xelink: assumed, +-0.2."""
HOST_COPY_SHARE = 0.88
"""Of the PCIe rate that a pinned copy reaches: 55.4 of 63 GB/s (nvbandwidth on 8 H200, ml-engineering)."""
BUS = "PCIe"
DESKTOP = re.compile(r"GeForce")
DESKTOP_CARDS = 2
DESKTOP_LANES = 8
"""Of two cards on a desktop board, whose CPU has 16 lanes for them: Intel's and AMD's split them 2 x 8."""
NODE_BITS = 100e9
"""Of a node's network when it is not known. Assumed: what a 100 Gbit/s adapter carries."""
NETWORK_SHARE = 0.7
"""Assumed, +-0.15."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Links:
    """Bytes per second and direction that a rank gets, and what that rests on."""

    between_devices: float
    to_host: float
    between_nodes: float
    """Of a whole node."""
    text: str
    notes: tuple[str, ...] = ()


def links(machine: Machine) -> Links:
    """Return the rates of a machine's links, with an assumption for each that is unknown."""
    if not machine.devices:
        memory = 20 * _GIGA
        return Links(between_devices=memory, to_host=memory, between_nodes=memory, text="host memory")
    device = machine.devices[0]
    lane, lane_note = _pcie(device, len(machine.devices))
    rate, share, text, notes = _fastest(machine, device, lane)
    network, network_note = _network(machine)
    return Links(
        between_devices=rate * share,
        to_host=lane * HOST_COPY_SHARE,
        between_nodes=network * NETWORK_SHARE,
        text=text,
        notes=tuple(note for note in (*notes, lane_note, network_note) if note),
    )


def _pcie(device: Device, num_devices: int) -> tuple[float, str | None]:
    generation, width = device.pcie_generation, device.pcie_width
    is_told = generation is not None and width is not None
    if generation is None:
        found = [number for pattern, number in PCIE_OF if re.match(pattern, device.architecture or "")]
        generation = found[0] if found else 4
    is_desktop = num_devices == DESKTOP_CARDS and DESKTOP.search(device.name) is not None
    width = width or (DESKTOP_LANES if is_desktop else 16)
    why = ", as two cards share a desktop's 16 lanes" if is_desktop else ": the driver does not say it"
    note = None if is_told else f"PCIe {generation} x{width} is assumed{why}"
    return PCIE_BYTES.get(generation, PCIE_BYTES[4]) * width, note


def _fastest(machine: Machine, device: Device, lane: float) -> tuple[float, float, str, list[str]]:
    """The slowest of the best paths decides: a ring passes through all of them."""
    architecture = device.architecture or ""
    kinds = {link.kind for link in machine.links}
    if machine.links and kinds == {"nvlink"}:
        count = min(link.count or 1 for link in machine.links)
        each = NVLINK_BYTES.get(architecture, 25e9)
        return each * count, COLLECTIVE_SHARE["nvlink"], f"NVLink, {count} links", []
    if machine.links and len(kinds) == 1 and (kind := next(iter(kinds))) in OTHER_LINK_BYTES:
        count = min(link.count or 1 for link in machine.links) * max(1, len(machine.devices) - 1)
        return OTHER_LINK_BYTES[kind] * count, COLLECTIVE_SHARE[kind], f"{kind}, {count} links", []
    is_module = re.search(r"SXM|HBM3|H200|B200|GB200", device.name) is not None
    if not machine.links and is_module and architecture in NVLINK_COUNT:
        count = NVLINK_COUNT[architecture]
        rate = NVLINK_BYTES.get(architecture, 25e9) * count
        note = f"NVLink with {count} links is assumed for {device.name}"
        return rate, COLLECTIVE_SHARE["nvlink"], f"NVLink, {count} links", [note]
    return lane, COLLECTIVE_SHARE["pcie"], BUS, []


def _network(machine: Machine) -> tuple[float, str | None]:
    rates = [port.bits_per_second for port in machine.ports if port.is_active and port.bits_per_second]
    if rates:
        return sum(rates) / 8, None
    note = (
        f"a network of {NODE_BITS / _GIGA:.0f} Gbit/s per node is assumed" if machine.num_nodes > 1 else None
    )
    return NODE_BITS / 8, note
