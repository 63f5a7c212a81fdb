"""How AMD devices are joined: xGMI by the kernel or AMD's tools, else what lies between them on PCI."""

import itertools
from collections.abc import Iterable

from ...specs.machine import Device, Link, LinkKind
from .. import pci
from ..system import System
from . import amd_smi, kfd, rocm_smi
from .sources import ask

Pairs = set[frozenset[int]]
"""Physical indices of devices that xGMI joins."""


def find_links(system: System, devices: tuple[Device, ...]) -> tuple[Link, ...]:
    """Return the best path between each two devices, where it is known."""
    return links_between(system, devices, _joined(system, devices))


def links_between(system: System, devices: tuple[Device, ...], joined: Pairs) -> tuple[Link, ...]:
    """Return xGMI for the pairs that it joins, and for the others what lies between on PCI."""
    found = []
    for first, second in itertools.combinations(devices, 2):
        places = first.physical_index, second.physical_index
        is_xgmi = None not in places and frozenset(place for place in places if place is not None) in joined
        kind: LinkKind | None = "xgmi" if is_xgmi else _on_pci(system, first, second)
        if kind is not None:
            low, high = sorted((first.index, second.index))
            found.append(Link(first=low, second=high, kind=kind, peer_access=True if is_xgmi else None))
    return tuple(found)


def _joined(system: System, devices: tuple[Device, ...]) -> Pairs:
    nodes = kfd.read_nodes(system)
    if nodes:
        places = {node.node: place for place, node in enumerate(nodes)}
        return {
            frozenset((places[node.node], places[other]))
            for node in nodes
            for other in kfd.read_xgmi(system, node.node)
            if other in places
        }
    if system.has(amd_smi.TOOL):
        told = ask(system, amd_smi.TOOL, amd_smi.TOPOLOGY, amd_smi.parse_topology)
        if told is not None:
            buses = {device.bus_id: device.physical_index for device in devices}
            return _pairs(
                (buses.get(a), buses.get(b)) for (a, b), kind in told.items() if kind == amd_smi.XGMI
            )
    return joined_by_rocm_smi(system, rocm_smi.TOOL)


def joined_by_rocm_smi(system: System, tool: str) -> Pairs:
    """Return the pairs that rocm-smi, or a tool after its pattern, calls joined by xGMI."""
    numbers = ask(system, tool, rocm_smi.TOPOLOGY, rocm_smi.parse_links) if system.has(tool) else None
    return _pairs(pair for pair, kind in (numbers or {}).items() if kind == amd_smi.XGMI)


def _pairs(pairs: Iterable[tuple[int | None, int | None]]) -> Pairs:
    return {frozenset((a, b)) for a, b in pairs if a is not None and b is not None and a != b}


def _on_pci(system: System, first: Device, second: Device) -> LinkKind | None:
    if first.bus_id is None or second.bus_id is None:
        return None
    if first.bus_id == second.bus_id:
        return "pix"  # two slices of one card
    return pci.path_between(system, first.bus_id, second.bus_id)
