"""MetaX GPUs, read through ``mx-smi``; torch sees them as ``cuda``, as their MACA runtime imitates CUDA."""

import re
from dataclasses import replace

from ..specs.machine import Device, DeviceReading, Link, LinkKind
from .system import System, ToolError
from .tables import (
    PCI_PATHS,
    Card,
    add_process,
    ask,
    cells,
    chosen,
    device,
    has_pci_device,
    lines,
    links_of,
    matrix,
    memory_bytes,
    readings,
)
from .values import number, share, word
from .vendor import Found

VENDOR = "metax"
KIND = "cuda"
TOOL = "mx-smi"
VISIBLE_ENV = "CUDA_VISIBLE_DEVICES"
NODES = "/dev/mxcd"
_PCI_VENDOR = "9999"
_NAME = re.compile(r"(?:MetaX |MX)[A-Z]?\d{2,4}\w{0,8}")
_WHOLE = re.compile(r"\d{1,4}")
_TEMPERATURE = re.compile(r"(\d{1,3})C\b")
_POWER = re.compile(r"(\d{1,5})W(?: {0,4}/ {0,4}(\d{1,5})W)?")
_PROCESS = re.compile(r"\| {1,8}(\d{1,4}) {1,40}(\d{1,7}) {1,20}(\S[^|]{0,80}?) {1,60}(\d{1,9}) *\|")
_LISTED = re.compile(r"GPU#(\d{1,4})\s.{0,120}UUID: {0,4}([0-9A-Za-z-]{4,64})")
_LABEL = re.compile(r"GPU[0-9]{1,4}")
_LINKS: dict[str, LinkKind] = {**PCI_PATHS, "MX": "mxlink"}
_FEWEST_CELLS = 3


def is_present(system: System) -> bool:
    """Whether mx-smi, the driver's node or a PCI device of the vendor is there."""
    return system.has(TOOL) or bool(system.glob(NODES)) or has_pci_device(system, _PCI_VENDOR)


def inventory(system: System) -> Found:
    """Return the devices that the runtime would show to a process with this environment."""
    answer = ask(system, TOOL, read=read_table)
    try:
        uuids = read_uuids(system.run(TOOL, "-L")) if answer.cards else {}
    except ToolError:
        uuids = {}
    cards = [replace(card, uuid=uuids.get(card.index)) for card in answer.cards]
    picked = (cards[at] for at in chosen(system.environ.get(VISIBLE_ENV), cards))
    devices = tuple(_device(index, card) for index, card in enumerate(picked))
    return Found(devices=devices, problems=answer.problems)


def usage(system: System, devices: tuple[Device, ...]) -> tuple[DeviceReading, ...]:
    """Return one reading per device."""
    mine = tuple(one for one in devices if one.vendor == VENDOR)
    return readings(mine, ask(system, TOOL, read=read_table)) if mine else ()


def links(system: System, devices: tuple[Device, ...]) -> tuple[Link, ...]:
    """Return the links of ``mx-smi topo -m``: MetaXLink inside a group of cards, PCIe between groups."""
    index_of = {f"GPU{one.physical_index}": one.index for one in devices if one.vendor == VENDOR}
    if not index_of:
        return ()
    try:
        text = system.run(TOOL, "topo", "-m")
    except ToolError as error:
        text = error.output
    return links_of(matrix(text, _LABEL), index_of, _LINKS)


def read_table(text: str) -> list[Card]:
    """Return the cards of ``mx-smi``; 2.1 has three cells a row, 2.2 four, with the board first."""
    cards: list[Card] = []
    upper: Card | None = None
    for line in lines(text):
        row = cells(line)
        if upper is None and len(row) >= _FEWEST_CELLS and (name := _NAME.search(row[0])) is not None:
            upper = _upper(row, name[0])
            cards += [upper] if upper else []
        elif upper is not None and len(row) >= _FEWEST_CELLS:
            cards[-1] = _with_figures(upper, row)
            upper = None
        elif (process := _PROCESS.match(line)) is not None:
            add_process(cards, process)
    return cards


def read_uuids(text: str) -> dict[int, str]:
    """Return the UUIDs of ``mx-smi -L`` by index."""
    return {int(found[1]): found[2] for line in lines(text) if (found := _LISTED.match(line.strip()))}


def _upper(row: list[str], name: str) -> Card | None:
    index = _WHOLE.match(row[1] if len(row) > _FEWEST_CELLS else row[0])
    if index is None:
        return None
    return Card(index=int(index[0]), name=name, bus_id=word(row[-2]), utilization_percent=share(row[-1]))


def _with_figures(upper: Card, row: list[str]) -> Card:
    figures = " ".join(row[:-2])
    temperature, power = _TEMPERATURE.search(figures), _POWER.search(figures)
    used, total = memory_bytes(row[-2])
    return replace(
        upper,
        used_bytes=used,
        total_bytes=total,
        temperature_celsius=float(temperature[1]) if temperature else None,
        power_watts=float(power[1]) if power else None,
        power_limit_watts=number(power[2]) if power else None,
    )


def _device(index: int, card: Card) -> Device:
    return replace(
        device(card, index=index, vendor=VENDOR, kind=KIND, source=TOOL),
        architecture="maca",
    )
