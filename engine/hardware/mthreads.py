"""Moore Threads GPUs, read through the table that ``mthreads-gmi`` prints, which has no frame."""

import re
from dataclasses import replace

from ..specs.machine import Device, DeviceProcess, DeviceReading, Link
from .system import System
from .tables import MIB, Card, ask, chosen, device, has_pci_device, lines, readings
from .values import number, share, size, word
from .vendor import Found

VENDOR = "mthreads"
KIND = "musa"
TOOL = "mthreads-gmi"
VISIBLE_ENV = "MUSA_VISIBLE_DEVICES"
"""Taken to be read as CUDA_VISIBLE_DEVICES is: documentation only."""
NODES = "/dev/mtgpu.[0-9]*"
_PCI_VENDOR = "1ed5"
_CHIP = re.compile(r"(\d{1,4}) {1,8}(MTT [^|]{1,60})\|([^|]{1,60})\|([^|]{1,80})")
_MEMORY = re.compile(r"(\d{1,9})MiB\((\d{1,9})MiB\)")
_LANES = re.compile(r"\d{1,2}x\((\d{1,2})x\)")
_PROCESS = re.compile(r"(\d{1,4}) {1,12}(\d{1,7}) {1,12}(\S.{0,160}?) {1,80}(\d{1,9}) {0,4}MiB *$")
_BF16 = ((re.compile(r"MTT S[45]000"), True), (re.compile(r"MTT S80"), False))
"""S80: MooreThreads/torch_musa issue 122; others: huggingface/transformers pull request 40576."""


def is_present(system: System) -> bool:
    """Whether mthreads-gmi, a device node or a PCI device of the vendor is there."""
    return system.has(TOOL) or bool(system.glob(NODES)) or has_pci_device(system, _PCI_VENDOR)


def inventory(system: System) -> Found:
    """Return the devices that the runtime would show to a process with this environment."""
    widths: dict[int, int] = {}
    answer = ask(system, TOOL, read=lambda text: _read(text, widths))
    picked = (answer.cards[at] for at in chosen(system.environ.get(VISIBLE_ENV), answer.cards))
    devices = tuple(_device(index, card, widths.get(card.index)) for index, card in enumerate(picked))
    return Found(devices=devices, problems=answer.problems)


def usage(system: System, devices: tuple[Device, ...]) -> tuple[DeviceReading, ...]:
    """Return one reading per device."""
    mine = tuple(one for one in devices if one.vendor == VENDOR)
    return readings(mine, ask(system, TOOL, read=read_table)) if mine else ()


def links(_system: System, _devices: tuple[Device, ...]) -> tuple[Link, ...]:
    """Return none: no recording of MTLink's topology is known to us."""
    return ()


def read_table(text: str) -> list[Card]:
    """Return the cards of the table; each takes up to three lines, and the first holds its memory."""
    return _read(text, {})


def _read(text: str, widths: dict[int, int]) -> list[Card]:
    """Return the cards, and note the lanes of each card's slot."""
    cards: list[Card] = []
    is_below = False
    for line in lines(text):
        is_below = is_below or line.startswith("Processes")
        if is_below:
            _add_process(cards, line)
        elif (chip := _CHIP.match(line)) is not None:
            cards.append(_card(chip))
        elif cards and (lanes := _LANES.search(line)) is not None:
            widths[cards[-1].index] = int(lanes[1])
            temperature = number(line.rpartition("|")[2])
            cards[-1] = replace(cards[-1], temperature_celsius=temperature)
    return cards


def _card(row: re.Match[str]) -> Card:
    memory = _MEMORY.search(row[4])
    total = int(memory[2]) * MIB if memory else 0
    return Card(
        index=int(row[1]),
        name=word(row[2]) or "MTT",
        bus_id=word(row[3]),
        utilization_percent=share(row[4]),
        used_bytes=int(memory[1]) * MIB if memory and total else None,
        total_bytes=total or None,
    )


def _add_process(cards: list[Card], line: str) -> None:
    row = _PROCESS.match(line)
    for at, card in enumerate(cards if row else ()):
        if row is not None and card.index == int(row[1]):
            process = DeviceProcess(pid=int(row[2]), name=word(row[3]), used_bytes=size(row[4], "m"))
            cards[at] = replace(card, processes=(*card.processes, process))


def _device(index: int, card: Card, width: int | None) -> Device:
    return replace(
        device(card, index=index, vendor=VENDOR, kind=KIND, source=TOOL),
        architecture="musa",
        supports_bf16=next((known for pattern, known in _BF16 if pattern.match(card.name)), None),
        pcie_width=width,
    )
