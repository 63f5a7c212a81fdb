"""Reads `nvidia-smi topo`: how cards are joined, and which may read each other's memory. Pure."""

import re
from dataclasses import dataclass, field

from ...specs.machine import LinkKind

_ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_COLUMN = re.compile(r"(GPU|NIC|mlx\w*_)\d{1,4}")
_CARD = re.compile(r"GPU(\d{1,4})")
_NVLINKS = re.compile(r"NV(\d{1,3})")
_KINDS: dict[str, LinkKind] = {
    "PIX": "pix", "PXB": "pxb", "PHB": "phb", "NODE": "node", "SYS": "sys", "SOC": "sys",
}  # fmt: skip
"""SOC was the word for SYS until driver 384."""
_PEERS = {"OK": True, "CNS": False, "GNS": False, "TNS": False, "NS": False, "DR": False}
"""Chipset, GPU, topology, anything else not supported; disabled by the registry key. U is unknown."""

Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Topology:
    """Cards by their number in the tool's order; in a pair the smaller comes first."""

    cards: tuple[int, ...] = ()
    links: dict[Pair, tuple[LinkKind, int | None]] = field(default_factory=dict)
    numa_nodes: dict[int, int] = field(default_factory=dict)
    """Host node next to a card, where the tool tells one."""


def parse_matrix(text: str) -> Topology:
    """Return what `nvidia-smi topo -m` says; rows of network cards and the legend are passed over."""
    columns: list[str] = []
    cards: list[int] = []
    links: dict[Pair, tuple[LinkKind, int | None]] = {}
    numa_nodes: dict[int, int] = {}
    for cells in _rows(text):
        if not columns:
            columns = _columns(cells)
            continue
        match = _CARD.fullmatch(cells[0])
        if match is None:
            continue
        number = int(match[1])
        cards.append(number)
        for other, cell in zip(columns, cells[1:], strict=False):
            link, neighbour = _link(cell), _CARD.fullmatch(other)
            if link is not None and neighbour is not None and int(neighbour[1]) > number:
                links[number, int(neighbour[1])] = link
        affinity = cells[1 + len(columns) :]
        # "0-51  0  N/A": CPUs, host node, the card's own node
        if len(affinity) > 1 and affinity[1].isascii() and affinity[1].isdigit() and len(affinity[1]) < 6:  # noqa: PLR2004 - a node's number
            numa_nodes[number] = int(affinity[1])
    return Topology(cards=tuple(cards), links=links, numa_nodes=numa_nodes)


def parse_peers(text: str) -> dict[Pair, bool]:
    """Return who may read whose memory, from `nvidia-smi topo -p2p r`; unknown pairs are left out."""
    columns: list[str] = []
    found: dict[Pair, bool] = {}
    for cells in _rows(text):
        if not columns:
            columns = _columns(cells)
            continue
        match = _CARD.fullmatch(cells[0])
        for other, cell in zip(columns, cells[1:], strict=False):
            neighbour = _CARD.fullmatch(other)
            if match and neighbour and cell in _PEERS and int(match[1]) != int(neighbour[1]):
                first, second = sorted((int(match[1]), int(neighbour[1])))
                found[first, second] = _PEERS[cell] and found.get((first, second), True)
    return found


def _rows(text: str) -> list[list[str]]:
    """Return the cells of each line; the header is underlined with escapes even in a pipe."""
    lines = (_ESCAPE.sub("", line).split() for line in text.splitlines())
    return [cells for cells in lines if cells]


def _columns(cells: list[str]) -> list[str]:
    """Return the names of a header's columns of devices; nothing for any other line."""
    columns = []
    for cell in cells:
        if not _COLUMN.fullmatch(cell):
            break
        columns.append(cell)
    is_row = len(columns) < len(cells) and cells[len(columns)] in {"X", *_KINDS, *_PEERS}
    return [] if is_row or "GPU" not in "".join(columns) else columns


def _link(cell: str) -> tuple[LinkKind, int | None] | None:
    if joined := _NVLINKS.fullmatch(cell):
        return "nvlink", int(joined[1])
    kind = _KINDS.get(cell)
    return None if kind is None else (kind, None)
