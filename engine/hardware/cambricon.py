"""Cambricon MLUs, read through the table that ``cnmon`` prints (v4 and v5)."""

import re
from dataclasses import replace

from ..specs.machine import Device, DeviceReading, Link, Problem
from .system import System
from .tables import (
    Card,
    add_process,
    ask,
    cells,
    chosen,
    device,
    has_pci_device,
    lines,
    memory_bytes,
    readings,
)
from .values import share
from .vendor import Found

VENDOR = "cambricon"
KIND = "mlu"
TOOL = "cnmon"
VISIBLE_ENVS = ("CN_VISIBLE_DEVICES", "MLU_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")
"""The first that is set counts, as in torch_mlu's _parse_visible_devices."""
NODES = "/dev/cambricon_dev[0-9]*"
_PCI_VENDOR = "cabc"
_CHIP = re.compile(r"\| {0,8}(\d{1,4}) {1,8}(?:\d{1,4} {0,4})?/ {1,8}(MLU\S{1,32})")
_BUS = re.compile(r"[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]")
_FIGURES = re.compile(r"(\d{1,4})C {1,16}(\d{1,5}) {0,4}W {0,4}/ {0,4}(\d{1,5}) {0,4}W")
_PROCESS = re.compile(
    r"\| {1,8}(\d{1,4}) {1,8}\S{1,8} {1,8}(\d{1,7}) {1,8}(\S[^|]{0,160}?) {1,80}(\d{1,9}) {0,4}MiB"
)
_SERIES = re.compile(r"MLU(\d)\d\d")
_FIRST_BF16_SERIES = 5
"""torch_mlu's is_bf16_supported asks for major version 5: MLU590 and its like, not MLU370."""
_SHORTEST_UUID_LIST = 36


def is_present(system: System) -> bool:
    """Whether cnmon, a device node or a PCI device of the vendor is there."""
    return system.has(TOOL) or bool(system.glob(NODES)) or has_pci_device(system, _PCI_VENDOR)


def inventory(system: System) -> Found:
    """Return the devices that the runtime would show to a process with this environment."""
    answer = ask(system, TOOL, read=read_table)
    name = next((name for name in VISIBLE_ENVS if name in system.environ), None)
    value = system.environ.get(name) if name else None
    problems = answer.problems
    if name and value and answer.cards and "-" in value and len(value) >= _SHORTEST_UUID_LIST:
        message = f"{name} lists UUIDs, which cnmon's table does not show: all devices are listed"
        problems, value = (*problems, Problem(source=TOOL, message=message)), None
    picked = (answer.cards[at] for at in chosen(value, answer.cards))
    devices = tuple(_device(index, card) for index, card in enumerate(picked))
    return Found(devices=devices, problems=problems)


def usage(system: System, devices: tuple[Device, ...]) -> tuple[DeviceReading, ...]:
    """Return one reading per MLU."""
    mine = tuple(one for one in devices if one.vendor == VENDOR)
    return readings(mine, ask(system, TOOL, read=read_table)) if mine else ()


def links(_system: System, _devices: tuple[Device, ...]) -> tuple[Link, ...]:
    """Return none: no recording of cnmon's topology is known to us."""
    return ()


def read_table(text: str) -> list[Card]:
    """Return the cards of both layouts; v4 has no bus ids and a second pair, of virtual memory."""
    cards: list[Card] = []
    upper: Card | None = None
    for line in lines(text):
        row = cells(line)
        chip = _CHIP.match(line)
        if chip is not None:
            bus = _BUS.search(row[1]) if len(row) > 1 else None
            upper = Card(index=int(chip[1]), name=chip[2], bus_id=bus[0] if bus else None)
            upper = replace(upper, utilization_percent=share(row[-1]))
            cards.append(upper)
        elif upper is not None and len(row) > 1 and "/" in row[1]:
            cards[-1] = _with_figures(upper, row)
            upper = None
        elif (process := _PROCESS.match(line)) is not None:
            add_process(cards, process)
    return cards


def _with_figures(upper: Card, row: list[str]) -> Card:
    used, total = memory_bytes(row[1])
    figures = _FIGURES.search(row[0])
    return replace(
        upper,
        used_bytes=used,
        total_bytes=total,
        temperature_celsius=float(figures[1]) if figures else None,
        power_watts=float(figures[2]) if figures else None,
        power_limit_watts=float(figures[3]) if figures else None,
    )


def _device(index: int, card: Card) -> Device:
    series = _SERIES.match(card.name)
    return replace(
        device(card, index=index, vendor=VENDOR, kind=KIND, source=TOOL),
        architecture=series[0].lower() if series else None,
        supports_bf16=int(series[1]) >= _FIRST_BF16_SERIES if series else None,
    )
