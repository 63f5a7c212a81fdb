"""Intel Gaudi (Habana) devices, read through ``hl-smi``: its CSV answers, and its table for the processes.

HABANA_VISIBLE_DEVICES is for the container runtime, which has done its work before we look: hl-smi then lists
what was let in. A process chooses by HABANA_VISIBLE_MODULES, the places on the board, which ranks take in
that order (docs.habana.ai, Gaudi-to-process Assignment).
"""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..specs.machine import Device, DeviceProcess, DeviceReading, Link, Problem
from .system import System, ToolError
from .tables import Answer, Card, ask, cells, device, has_pci_device, lines, memory_bytes, readings
from .values import number, share, size, whole, word
from .vendor import Found

VENDOR = "habana"
KIND = "hpu"
TOOL = "hl-smi"
MODULES_ENV = "HABANA_VISIBLE_MODULES"
NODES = "/dev/hl[0-9]*"
_PCI_VENDOR = "1da3"
COLUMNS = (
    "index",
    "module_id",
    "uuid",
    "name",
    "bus_id",
    "memory.total",
    "memory.used",
    "power.draw",
    "power.max",
    "temperature.aip",
    "utilization.aip",
)
"""What is asked for; the answer names its columns in its first line."""
_CHIP = re.compile(r"\| {0,8}(\d{1,4}) {1,8}(HL-[0-9A-Za-z-]{1,32}) ")
_FIGURES = re.compile(r"(\d{1,4})C .{0,40}?(\d{1,5})W {0,4}/ {0,4}(\d{1,5})W")
_PROCESS = re.compile(r"\| {1,8}(\d{1,4}) {1,12}(\d{1,7}) {1,8}\S{1,8} {1,8}(\S[^|]{0,120})")
_SIZE = re.compile(r"(\d{1,9}) {0,4}MiB", re.IGNORECASE)
_GENERATIONS = (
    (re.compile(r"HL-(?:1|20)\d"), "gaudi"),
    (re.compile(r"HL-2[1-9]\d"), "gaudi2"),
    (re.compile(r"HL-3\d\d"), "gaudi3"),
)
"""HL-205 has 32 GiB and is the first Gaudi, although some tools call it Gaudi 2."""
_NO_FP16 = "no fp16: train in bf16"
"""Of the first Gaudi; accelerate's is_fp16_available says the same."""


def is_present(system: System) -> bool:
    """Whether hl-smi, a device node or a PCI device of the vendor is there."""
    return system.has(TOOL) or bool(system.glob(NODES)) or has_pci_device(system, _PCI_VENDOR)


def inventory(system: System) -> Found:
    """Return the devices that a process with this environment may take, in the order of its ranks."""
    answer = _ask(system)
    try:
        processes = read_processes(system.run(TOOL))
    except ToolError as error:
        processes = read_processes(error.output)
    picked, problems = _picked(system.environ.get(MODULES_ENV), answer.cards)
    return Found(
        devices=tuple(_device(index, card, processes) for index, card in enumerate(picked)),
        problems=(*answer.problems, *problems),
    )


def usage(system: System, devices: tuple[Device, ...]) -> tuple[DeviceReading, ...]:
    """Return one reading per Gaudi."""
    mine = tuple(one for one in devices if one.vendor == VENDOR)
    return readings(mine, _ask(system)) if mine else ()


def links(_system: System, _devices: tuple[Device, ...]) -> tuple[Link, ...]:
    """Return none: Gaudis are joined by Ethernet ports of their own, which hl-smi does not lay out."""
    return ()


def read_csv(text: str, columns: Sequence[str] = COLUMNS) -> list[Card]:
    """Return the cards of ``hl-smi -Q ... -f csv``; ``columns`` are those of an answer without headings."""
    cards: list[Card] = []
    for line in lines(text):
        try:
            fields = [field.strip() for field in next(csv.reader([line], skipinitialspace=True), [])]
        except csv.Error:
            continue
        if fields and fields[0] == "index":
            columns = [field.partition(" ")[0] for field in fields]
            continue
        values = dict(zip(columns, fields, strict=False))
        index, name = whole(values.get("index")), word(values.get("name"))
        if index is not None and name is not None and name.startswith("HL-"):
            cards.append(_card(index, name, values))
    return cards


def read_table(text: str) -> list[Card]:
    """Return the cards of plain ``hl-smi``; units are ``MiB`` or, in old versions, ``Mib``."""
    cards: list[Card] = []
    upper: Card | None = None
    for line in lines(text):
        chip = _CHIP.match(line.lstrip())
        if chip is not None:
            bus = cells(line)[1:2]
            bus_id = bus[0].split() if bus else []
            upper = Card(index=int(chip[1]), name=chip[2], bus_id=bus_id[0] if bus_id else None)
            cards.append(upper)
        elif upper is not None and line.lstrip().startswith("|") and "/" in line:
            cards[-1] = _with_figures(upper, line)
            upper = None
        elif "Processes" in line:
            break
    return cards


def read_processes(text: str) -> dict[int, tuple[DeviceProcess, ...]]:
    """Return the processes of plain ``hl-smi`` by device; a long row's memory stands on the next line."""
    found: dict[int, list[DeviceProcess]] = {}
    last: int | None = None
    is_below = False
    for line in lines(text):
        is_below = is_below or "Processes" in line
        if not is_below:
            continue
        row = _PROCESS.match(line)
        used = _SIZE.search(line)
        if row is not None:
            last = int(row[1])
            name = word(_SIZE.sub("", row[3]))
            found.setdefault(last, []).append(DeviceProcess(pid=int(row[2]), name=name))
        elif line.lstrip().startswith("|"):
            last = None
        if used is not None and last is not None:
            found[last][-1] = replace(found[last][-1], used_bytes=size(used[1], "m"))
    return {index: tuple(processes) for index, processes in found.items()}


def _ask(system: System) -> Answer:
    """Ask for values; an hl-smi that does not know one of the fields still prints its table."""
    answer = ask(system, TOOL, "-Q", ",".join(COLUMNS), "-f", "csv", read=read_csv)
    return answer if answer.cards or not system.has(TOOL) else ask(system, TOOL, read=read_table)


def _picked(value: str | None, cards: Sequence[Card]) -> tuple[list[Card], tuple[Problem, ...]]:
    if value is None or value.strip().lower() == "all" or not cards:
        return list(cards), ()
    if any(card.module is None for card in cards):
        message = f"{MODULES_ENV}={value[:64]}: hl-smi does not tell module ids, so all devices are listed"
        return list(cards), (Problem(source=TOOL, message=word(message) or TOOL),)
    by_module = {str(card.module): card for card in cards}
    picked: list[Card] = []
    for entry in value.split(","):
        card = by_module.get(entry.strip())
        if card is None or card in picked:
            break
        picked.append(card)
    return picked, ()


def _card(index: int, name: str, values: Mapping[str, str]) -> Card:
    return Card(
        index=index,
        name=name,
        uuid=word(values.get("uuid")),
        bus_id=word(values.get("bus_id")),
        module=whole(values.get("module_id")),
        used_bytes=size(values.get("memory.used", ""), "m"),
        total_bytes=size(values.get("memory.total", ""), "m") or None,
        utilization_percent=share(values.get("utilization.aip")),
        power_watts=number(values.get("power.draw")),
        power_limit_watts=number(values.get("power.max")),
        temperature_celsius=number(values.get("temperature.aip")),
    )


def _with_figures(upper: Card, line: str) -> Card:
    row = cells(line)
    used, total = memory_bytes(row[1]) if len(row) > 1 else (None, None)
    figures = _FIGURES.search(row[0])
    return replace(
        upper,
        used_bytes=used,
        total_bytes=total,
        utilization_percent=share(row[-1]),
        temperature_celsius=float(figures[1]) if figures else None,
        power_watts=float(figures[2]) if figures else None,
        power_limit_watts=float(figures[3]) if figures else None,
    )


def _device(index: int, card: Card, processes: Mapping[int, tuple[DeviceProcess, ...]]) -> Device:
    architecture = next((known for pattern, known in _GENERATIONS if pattern.match(card.name)), None)
    return replace(
        device(card, index=index, vendor=VENDOR, kind=KIND, source=TOOL),
        processes=processes.get(card.index, ()),
        architecture=architecture,
        supports_bf16=True if architecture else None,
        note=_NO_FP16 if architecture == "gaudi" else None,
    )
