"""The best path between each two cards, asked of NVML, or else of `nvidia-smi topo`."""

from collections import Counter
from itertools import combinations

import pynvml

from ...specs.machine import Device, Link, LinkKind
from ..system import System, ToolError
from . import nvml, smi, topology
from .nvml import Card

_ANCESTORS: dict[int, LinkKind] = {
    pynvml.NVML_TOPOLOGY_INTERNAL: "pix",  # two chips of one board
    pynvml.NVML_TOPOLOGY_SINGLE: "pix",
    pynvml.NVML_TOPOLOGY_MULTIPLE: "pxb",
    pynvml.NVML_TOPOLOGY_HOSTBRIDGE: "phb",
    pynvml.NVML_TOPOLOGY_NODE: "node",
    pynvml.NVML_TOPOLOGY_SYSTEM: "sys",
}
_SWITCH = "switch"
_NO_SUCH_LINK = (pynvml.NVML_ERROR_INVALID_ARGUMENT, pynvml.NVML_ERROR_NOT_SUPPORTED)


def ask_nvml(devices: tuple[Device, ...]) -> tuple[Link, ...]:
    """Return the links between whole cards; slices have none.

    Raises:
        NvmlError: The driver cannot be used.
    """
    nvml.start()
    cards = {device.index: nvml.card_of(device.uuid) for device in devices if device.uuid is not None}
    ends = {index: _nvlink_ends(card) for index, card in cards.items()}
    addresses = {device.index: _key(device.bus_id) for device in devices}
    found = []
    for first, second in combinations(sorted(cards), 2):
        joined = ends[first][addresses[second]] or min(ends[first][_SWITCH], ends[second][_SWITCH])
        one, other = cards[first], cards[second]
        level = one.ask(pynvml.nvmlDeviceGetTopologyCommonAncestor, other.handle)
        kind = "nvlink" if joined else _ANCESTORS.get(-1 if level is None else level)
        if kind is not None:
            access = nvml.is_peer(one, other)
            link = Link(first=first, second=second, kind=kind, count=joined or None, peer_access=access)
            found.append(link)
    return tuple(found)


def ask_tool(system: System, devices: tuple[Device, ...]) -> tuple[Link, ...]:
    """Return the links that the tool tells of."""
    try:
        told = topology.parse_matrix(system.run(smi.TOOL, "topo", "-m"))
    except ToolError:
        return ()
    try:
        peers = topology.parse_peers(system.run(smi.TOOL, "topo", "-p2p", "r"))
    except ToolError:
        peers = {}
    found = []
    for one, other in combinations(sorted(devices, key=lambda device: device.index), 2):
        if one.physical_index is None or other.physical_index is None:
            continue
        pair = (min(one.physical_index, other.physical_index), max(one.physical_index, other.physical_index))
        if pair in told.links:
            kind, joined = told.links[pair]
            access = peers.get(pair)
            link = Link(first=one.index, second=other.index, kind=kind, count=joined, peer_access=access)
            found.append(link)
    return tuple(found)


def _nvlink_ends(card: Card) -> Counter[str]:
    """Return how many of a card's NVLinks are up, by the PCI address at their other end, or to a switch."""
    ends: Counter[str] = Counter()
    for number in range(pynvml.NVML_NVLINK_MAX_LINKS):
        state = card.ask(pynvml.nvmlDeviceGetNvLinkState, number)
        if state is None and (card.is_lost or card.code in _NO_SUCH_LINK):
            break
        if state != pynvml.NVML_FEATURE_ENABLED:
            continue
        remote = card.ask(pynvml.nvmlDeviceGetNvLinkRemoteDeviceType, number)
        if remote == pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH:
            ends[_SWITCH] += 1
        elif address := card.ask(pynvml.nvmlDeviceGetNvLinkRemotePciInfo, number):
            ends[_key(nvml.text_of(address.busId))] += 1
    return ends


def _key(bus_id: str | None) -> str:
    return (bus_id or "").lower()
