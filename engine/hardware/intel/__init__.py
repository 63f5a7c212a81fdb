"""Intel GPUs for torch's xpu: xpu-smi and the kernel's files; each tile of a card is a device of its own.

Graphics inside a processor have no memory of their own and are no devices here.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from ...specs.machine import Device, DeviceReading, Link, LinkKind, Problem
from .. import pci
from ..system import System, ToolError
from ..values import word
from ..vendor import Found
from . import sysfs, xpu_smi
from .card import BF16_FAMILIES, Card, Usage, family, over
from .visibility import Place, visible

__all__ = ["VENDOR", "inventory", "is_present", "links", "usage"]

VENDOR = "intel"
KIND = "xpu"
_LINKS: dict[str, LinkKind] = {"SYS": "sys", "NODE": "node", "MDF": "xelink"}
_TILE = "tile "

Value = TypeVar("Value")


def is_present(system: System) -> bool:
    """Whether the kernel shows Intel graphics that may have memory of their own, or Intel's tool is there."""
    return system.has(xpu_smi.TOOL) or any(card.is_discrete is not False for card in sysfs.read_cards(system))


def inventory(system: System) -> Found:
    """Return what SYCL shows to a process with this environment: tiles of cards in xpu-smi's order."""
    problems: list[Problem] = []
    cards, source = _cards(system, problems)
    chosen = visible(system.environ, [card.num_tiles or 1 for card in cards])
    if chosen.problem is not None:
        problems.append(Problem(source="SYCL", message=chosen.problem))
    busy = [_if_needed(system, card) for card in cards]
    devices = tuple(
        replace(_device(cards, place, busy[place[0]]), index=index, source=source)
        for index, place in enumerate(chosen.places)
    )
    return Found(devices=devices, problems=tuple(problems))


def usage(system: System, devices: tuple[Device, ...]) -> tuple[DeviceReading, ...]:
    """Return one reading per tile or card; the tool is asked once a card."""
    ours = tuple(device for device in devices if device.vendor == VENDOR)
    cards = {device.bus_id for device in ours if device.bus_id is not None}
    known = {bus_id: _card_usage(system, bus_id) for bus_id in sorted(cards)}
    return tuple(_reading(device, known.get(device.bus_id or "", {})) for device in ours)


def links(system: System, devices: tuple[Device, ...]) -> tuple[Link, ...]:
    """Return Xe Link by xpu-smi's matrix, or what lies between on PCI."""
    ours = tuple(device for device in devices if device.vendor == VENDOR)
    if len(ours) < 2:  # noqa: PLR2004 - a pair
        return ()
    told = _ask(system, xpu_smi.TOPOLOGY, xpu_smi.parse_topology) or {}
    cards = _ask(system, xpu_smi.DISCOVERY, xpu_smi.parse_discovery) or () if told else ()
    numbers = {card.bus_id: card.number for card in cards if card.bus_id is not None}
    found = []
    for first, second in itertools.combinations(ours, 2):
        kind = _told_kind(told, _tile(first, numbers), _tile(second, numbers)) or _on_pci(
            system, first, second
        )
        if kind is not None:
            low, high = sorted((first.index, second.index))
            found.append(Link(first=low, second=high, kind=kind))
    return tuple(found)


def _cards(system: System, problems: list[Problem]) -> tuple[tuple[Card, ...], str]:
    """Return the cards with memory of their own, and what was read."""
    kernel = sysfs.read_cards(system)
    by_bus = {card.bus_id: card for card in kernel}
    if not system.has(xpu_smi.TOOL):
        found = tuple(card for card in kernel if card.is_discrete is not False)
        if found:
            message = "xpu-smi: not found: free memory and load stay unknown"
            problems.append(Problem(source=xpu_smi.TOOL, message=message, advice="install xpu-smi"))
        return found, "sysfs"
    told = _ask(system, xpu_smi.DISCOVERY, xpu_smi.parse_discovery, problems)
    if told is None:
        return tuple(card for card in kernel if card.is_discrete is not False), "sysfs"
    processes = _ask(system, xpu_smi.PROCESSES, xpu_smi.parse_processes) or {}
    cards = []
    for card in told:
        known = by_bus.get(card.bus_id, Card())
        if known.is_discrete is False:
            continue
        full = over(_in_full(system, card), known)
        cards.append(replace(full, processes=processes.get(card.number or 0, ())))
    return tuple(cards), xpu_smi.TOOL


def _in_full(system: System, card: Card) -> Card:
    """Return a card of the list with its memory and tiles, which only the question for one card gives."""
    if card.number is None or card.total_bytes is not None:
        return card
    asked = _ask(system, ("discovery", "-d", f"{card.number}", "-j"), xpu_smi.parse_discovery)
    return over(asked[0], card) if asked else card


def _if_needed(system: System, card: Card) -> dict[int | None, Usage]:
    """Return how busy a card is where its own facts do not say how much of it is free."""
    is_told = card.free_bytes is not None and (card.num_tiles or 1) == 1
    return {} if is_told or card.bus_id is None else _card_usage(system, card.bus_id)


def _device(cards: tuple[Card, ...], place: Place, busy: Mapping[int | None, Usage]) -> Device:
    number, tile = place
    card = cards[number]
    tiles = (card.num_tiles or 1) if tile is not None else 1
    total = None if card.total_bytes is None else card.total_bytes // tiles
    used = busy.get(tile, Usage()).used_bytes
    free = card.free_bytes if tile is None else None
    if free is None and total is not None and used is not None:
        free = max(0, total - used)
    arch = family(card.device_id)
    return Device(
        kind=KIND,
        vendor=VENDOR,
        index=0,
        physical_index=sum(one.num_tiles or 1 for one in cards[:number]) + (tile or 0),
        name=card.name or "Intel GPU",
        uuid=card.uuid,
        bus_id=card.bus_id,
        total_bytes=total,
        free_bytes=free,
        processes=card.processes,
        partition=None if tile is None else f"{_TILE}{tile}",
        architecture=arch,
        supports_bf16=True if arch in BF16_FAMILIES else None,
        supports_flash_attention_2=False,
        supports_flash_attention_3=False,
        pcie_generation=card.pcie_generation,
        pcie_width=card.pcie_width,
        note=None if tile is None else f"tile {tile} of {tiles} of one card",
    )


def _reading(device: Device, known: Mapping[int | None, Usage]) -> DeviceReading:
    card = known.get(None, Usage())
    place = (device.partition or "").removeprefix(_TILE)
    tile = int(place) if place.isdigit() else None
    own = card if tile is None else known.get(tile, Usage())
    return DeviceReading(
        index=device.index,
        name=device.name,
        utilization_percent=own.utilization_percent,
        memory_used_bytes=own.used_bytes,
        memory_total_bytes=device.total_bytes,
        temperature_celsius=card.temperature_celsius
        if own.temperature_celsius is None
        else own.temperature_celsius,
        power_watts=own.power_watts,
        power_limit_watts=own.power_limit_watts,
        clock_mhz=own.clock_mhz,
        pids=tuple(process.pid for process in device.processes if process.pid is not None),
    )


def _card_usage(system: System, bus_id: str) -> dict[int | None, Usage]:
    """Return how busy a card and its tiles are: by the tool, with the kernel's sensors in the gaps."""
    told = _ask(system, ("stats", "-d", bus_id, "-j"), xpu_smi.parse_stats) or {}
    whole = over(told.get(None, Usage()), sysfs.read_usage(system, bus_id))
    if whole.used_bytes is None:
        parts = [
            one.used_bytes for tile, one in told.items() if tile is not None and one.used_bytes is not None
        ]
        whole = replace(whole, used_bytes=sum(parts)) if parts else whole
    if len(told) == 2:  # noqa: PLR2004 - the card and its only tile: older versions give some figures by tile
        whole = over(whole, next(one for tile, one in told.items() if tile is not None))
    return {**told, None: whole}


def _told_kind(
    told: Mapping[tuple[xpu_smi.Tile, xpu_smi.Tile], str], *ends: xpu_smi.Tile | None
) -> LinkKind | None:
    first, second = ends
    if first is None or second is None:
        return None
    name = told.get((first, second)) or told.get((second, first)) or ""
    return "xelink" if name.startswith("XL") else _LINKS.get(name)


def _tile(device: Device, numbers: Mapping[str, int | None]) -> xpu_smi.Tile | None:
    card = numbers.get(device.bus_id or "")
    place = (device.partition or "").removeprefix(_TILE)
    return None if card is None else (card, int(place) if place.isdigit() else 0)


def _on_pci(system: System, first: Device, second: Device) -> LinkKind | None:
    if first.bus_id is None or second.bus_id is None:
        return None
    return (
        "xelink" if first.bus_id == second.bus_id else pci.path_between(system, first.bus_id, second.bus_id)
    )


def _ask(
    system: System,
    arguments: tuple[str, ...],
    parse: Callable[[str], Value],
    problems: list[Problem] | None = None,
) -> Value | None:
    """Return what the tool's output holds; its failure is appended to the problems."""
    failure = None
    try:
        output = system.run(xpu_smi.TOOL, *arguments)
    except ToolError as error:
        output, failure = error.output, error.why
    try:
        return parse(output)
    except ValueError as error:
        if problems is not None:
            message = f"{xpu_smi.TOOL} {arguments[0]}: {failure or word(f'{error}') or 'cannot be read'}"
            problems.append(Problem(source=xpu_smi.TOOL, message=message))
        return None
