"""Turns the framed tables of vendors' tools into cards, and cards into devices and readings.

For vendors whose only door is such a tool: Ascend, Gaudi, Cambricon, Moore Threads, MetaX. Nothing here
raises on what a tool prints.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..specs.machine import Device, DeviceProcess, DeviceReading, Link, LinkKind, Problem
from .system import System, ToolError
from .values import size, word

MIB = 1 << 20
MISSING = "not found"
"""What System says of a tool that is not there."""
_LONGEST_LINE = 400
_MOST_LINES = 20_000
_MOST_CARDS = 1024
_PAIR = re.compile(r"(\d{1,9}) {0,8}(?:MiB)? {0,8}/ {0,8}(\d{1,9})", re.IGNORECASE)
_INDEX = re.compile(r"[0-9]{1,6}")
_PCI_IDS = re.compile(r"pci:v0000([0-9A-F]{4})d0000([0-9A-F]{4}).*bc([0-9A-F]{2})sc")
PCI_PATHS: Mapping[str, LinkKind] = {
    "PIX": "pix",
    "PXB": "pxb",
    "PHB": "phb",
    "NODE": "node",
    "SYS": "sys",
}
"""The words that all vendors' matrices share with ``nvidia-smi topo -m``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """One device as its vendor's tool describes it; what the tool does not say is ``None``."""

    index: int
    """Position among all devices of the box, in the tool's order."""
    name: str
    uuid: str | None = None
    bus_id: str | None = None
    module: int | None = None
    """Where it sits on its board; Gaudi's devices are chosen by it."""
    used_bytes: int | None = None
    total_bytes: int | None = None
    utilization_percent: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    temperature_celsius: float | None = None
    clock_mhz: float | None = None
    processes: tuple[DeviceProcess, ...] = ()

    @property
    def free_bytes(self) -> int | None:
        """What is left of the memory, as reported."""
        if self.total_bytes is None or self.used_bytes is None:
            return None
        return max(0, self.total_bytes - self.used_bytes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a tool said: its cards by index, and what could not be read."""

    cards: tuple[Card, ...] = ()
    problems: tuple[Problem, ...] = ()
    is_whole: bool = True
    """The tool came to its end, so that a card that is not there is gone."""


def lines(text: str) -> Iterator[str]:
    """Yield the lines of an output, no longer and no more than any real table has."""
    for line in text.splitlines()[:_MOST_LINES]:
        yield line[:_LONGEST_LINE]


def cells(line: str) -> list[str]:
    """Return the stripped cells of ``| a | b |``."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def memory_bytes(text: str) -> tuple[int | None, int | None]:
    """Return used and total of ``826/65536 MiB`` or ``768MiB / 98304MiB``; a total of 0 is none."""
    found = _PAIR.search(text[:_LONGEST_LINE])
    if found is None or int(found[2]) == 0:
        return None, None
    return int(found[1]) * MIB, int(found[2]) * MIB


def ask(system: System, tool: str, *arguments: str, read: Callable[[str], Sequence[Card]]) -> Answer:
    """Run a tool and return its cards by index; also those that it printed before it broke down."""
    problems: list[Problem] = []
    try:
        text = system.run(tool, *arguments)
    except ToolError as error:
        text = error.output
        advice = f"{tool} comes with the driver; in a container, mount it" if error.why == MISSING else None
        problems.append(Problem(source=tool, message=word(str(error)) or tool, advice=advice))
    is_whole = not problems
    named: dict[int, Card] = {}
    for card in read(text):
        named.setdefault(card.index, card)
    cards = tuple(named[index] for index in sorted(named)[:_MOST_CARDS])
    if not cards and not problems:
        problems.append(Problem(source=tool, message=f"{tool}: no device can be read from its table"))
    problems += unread_memory(tool, cards)
    return Answer(cards=cards, problems=tuple(problems), is_whole=is_whole)


def unread_memory(tool: str, cards: Iterable[Card]) -> list[Problem]:
    """Return one line on the cards whose memory is not in the output."""
    missing = [str(card.index) for card in cards if card.total_bytes is None]
    if not missing:
        return []
    message = f"{tool}: memory of device {', '.join(missing[:16])} cannot be read"
    return [Problem(source=tool, message=message)]


def add_process(cards: list[Card], row: re.Match[str]) -> None:
    """Give a process to its card; the groups are the card's index, pid, name and MiB."""
    process = DeviceProcess(pid=int(row[2]), name=word(row[3]), used_bytes=size(row[4], "m"))
    for at, card in enumerate(cards):
        if card.index == int(row[1]):
            cards[at] = replace(card, processes=(*card.processes, process))


def device(card: Card, *, index: int, vendor: str, kind: str, source: str) -> Device:
    """Return the device that a card is, at its position among the visible ones."""
    return Device(
        kind=kind,
        vendor=vendor,
        index=index,
        physical_index=card.index,
        name=card.name,
        uuid=card.uuid,
        bus_id=card.bus_id,
        total_bytes=card.total_bytes,
        free_bytes=card.free_bytes,
        processes=card.processes,
        source=source,
    )


def readings(devices: Iterable[Device], answer: Answer) -> tuple[DeviceReading, ...]:
    """Return one reading per device; one that the tool no longer lists beside the others is lost."""
    listed_all = answer.is_whole and bool(answer.cards)
    return tuple(
        _reading(one, next((card for card in answer.cards if _is_same(one, card)), None), listed_all)
        for one in devices
    )


def _is_same(one: Device, card: Card) -> bool:
    if one.uuid is not None and card.uuid is not None:
        return one.uuid == card.uuid
    if one.bus_id is not None and card.bus_id is not None:
        return one.bus_id == card.bus_id
    return one.physical_index == card.index


def _reading(one: Device, card: Card | None, listed_all: bool) -> DeviceReading:  # noqa: FBT001 - private
    if card is None:
        return DeviceReading(
            index=one.index, name=one.name, memory_total_bytes=one.total_bytes, is_lost=listed_all
        )
    return DeviceReading(
        index=one.index,
        name=one.name,
        utilization_percent=card.utilization_percent,
        memory_used_bytes=card.used_bytes,
        memory_total_bytes=one.total_bytes if card.total_bytes is None else card.total_bytes,
        temperature_celsius=card.temperature_celsius,
        power_watts=card.power_watts,
        power_limit_watts=card.power_limit_watts,
        clock_mhz=card.clock_mhz,
        pids=tuple(process.pid for process in card.processes if process.pid is not None),
    )


def chosen(value: str | None, cards: Sequence[Card]) -> list[int]:
    """Return the positions that a list of indices or UUIDs picks, as the CUDA-like runtimes do it.

    Unset is all; the first entry that names no card ends the list; a card named twice leaves none at all.
    A UUID may be shortened as long as it is unique.
    """
    if value is None:
        return list(range(len(cards)))
    picked: list[int] = []
    for entry in value.split(","):
        position = _position(entry.strip(), cards)
        if position is None:
            break
        if position in picked:
            return []
        picked.append(position)
    return picked


def _position(entry: str, cards: Sequence[Card]) -> int | None:
    if _INDEX.fullmatch(entry):
        return int(entry) if int(entry) < len(cards) else None
    matching = [at for at, card in enumerate(cards) if entry and (card.uuid or "").startswith(entry)]
    return matching[0] if len(matching) == 1 else None


def matrix(text: str, label: re.Pattern[str]) -> Mapping[tuple[str, str], str]:
    """Return the words of a link matrix by row and column label; columns after the labels are left out."""
    columns: list[str] = []
    words: dict[tuple[str, str], str] = {}
    for line in lines(text):
        fields = line.split()
        if not fields or not label.fullmatch(fields[0]):
            continue
        if not columns:
            columns = [field for field in fields if label.fullmatch(field)]
        elif fields[0] in columns:
            words |= {(fields[0], column): one for column, one in zip(columns, fields[1:], strict=False)}
    return words


def links_of(
    words: Mapping[tuple[str, str], str],
    index_of: Mapping[str, int],
    kind_of: Mapping[str, LinkKind],
) -> tuple[Link, ...]:
    """Return the links between labelled devices; words that are no kind of link are passed over."""
    found: dict[tuple[int, int], LinkKind] = {}
    for (row, column), one in words.items():
        if one in kind_of and row in index_of and column in index_of and index_of[row] < index_of[column]:
            found[index_of[row], index_of[column]] = kind_of[one]
    return tuple(
        Link(first=first, second=second, kind=kind) for (first, second), kind in sorted(found.items())
    )


def has_pci_device(
    system: System, vendor: str, *, base_class: str | None = None, without: frozenset[str] = frozenset()
) -> bool:
    """Whether a PCI device of a vendor is there; ids and class as lower-case hex digits."""
    for path in system.glob("/sys/bus/pci/devices/*/modalias"):
        found = _PCI_IDS.match(system.read("/" + path.relative_to(system.root).as_posix()) or "")
        if found is None or found[1].lower() != vendor or found[2].lower() in without:
            continue
        if base_class is None or found[3].lower() == base_class:
            return True
    return False
