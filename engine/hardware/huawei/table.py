"""The table of ``npu-smi info`` in all its layouts, as frozen values.

One parser, because the layouts differ in headings only: the driver's (20 to 26) and the chip's generation
(310, 910A, 910B, A3 with two dies, A5 without chip column) vary independently. Pure: text in, values out.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from ..tables import MIB, cells, lines
from ..values import number, share, word

_VERSION = re.compile(r"npu-smi[^|]*?Version: {0,8}([^\s|]{1,64})")
_ID = re.compile(r"[0-9]{1,6}")
_PID = re.compile(r"[0-9]{1,7}")
_PAIR = re.compile(r"(\d{1,9}) {0,8}/ {0,8}(\d{1,9})")
_MEMORY = re.compile(r"(HBM|Memory)-Usage")
_IDLE = re.compile(r"No running processes found in NPU (\d{1,6})")
_FEWEST_CELLS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """One row of the process table."""

    npu: int
    chip: int
    pid: int
    """In the host's numbering."""
    container_pid: int | None = None
    """In the numbering of the container that it runs in (drivers 26 and newer)."""
    name: str | None = None
    used_bytes: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Chip:
    """One chip: an NPU has up to four, and each is a device of its own."""

    npu: int
    chip: int = 0
    physical: int | None = None
    """Column ``Phy-ID`` or ``Device``."""
    name: str
    health: str | None = None
    bus_id: str | None = None
    power_watts: float | None = None
    temperature_celsius: float | None = None
    utilization_percent: float | None = None
    used_bytes: int | None = None
    """Of the HBM where there is any, else of the DDR."""
    total_bytes: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """What ``npu-smi info`` says."""

    version: str | None = None
    chips: tuple[Chip, ...] = ()
    processes: tuple[Process, ...] = ()
    told: frozenset[int] = frozenset()
    """NPUs whose processes are listed, or said to be none."""


@dataclass(slots=True)
class _Reader:
    """Goes through the lines once; the headings say what the rows below them mean."""

    chips: list[Chip] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    told: set[int] = field(default_factory=set)
    section: str = ""
    has_name_cell: bool = False
    has_physical: bool = False
    memories: list[str] = field(default_factory=list)
    upper: Chip | None = None
    """What the first of a chip's two lines said."""

    def heading(self, line: str) -> bool:
        """Take note of a line of headings."""
        if "Health" in line and "Power" in line:
            self.section, self.has_name_cell = "chips", cells(line)[0] == "NPU ID"
        elif "Bus-Id" in line:
            self.has_physical = re.search(r"Phy-ID|Device", cells(line)[0]) is not None
            self.memories = _MEMORY.findall(line)
        elif "Process id" in line:
            self.section = "processes"
        else:
            return False
        return True

    def close(self) -> None:
        """Keep a chip whose second line is missing."""
        if self.upper is not None:
            self.chips.append(self.upper)
            self.upper = None

    def row(self, row: Sequence[str]) -> None:
        """Take one row of the section."""
        if self.section == "processes":
            process = _process(row)
            if process is not None:
                self.processes.append(process)
                self.told.add(process.npu)
        elif self.section == "chips" and len(row) >= _FEWEST_CELLS:
            if self.upper is None:
                self.upper = _upper(row, has_name_cell=self.has_name_cell)
            else:
                self.chips.append(self._lower(self.upper, row))
                self.upper = None

    def _lower(self, upper: Chip, row: Sequence[str]) -> Chip:
        ids = [] if self.has_name_cell else _ids(row[0])
        chip = replace(
            upper,
            chip=ids[0] if ids else 0,
            physical=ids[1] if self.has_physical and len(ids) > 1 else None,
            bus_id=word(row[-2]),
            utilization_percent=share(row[-1]),
        )
        memory = dict(zip(self.memories, _PAIR.findall(row[-1]), strict=False))
        for kind in ("HBM", "Memory"):
            used, total = memory.get(kind, ("0", "0"))
            if int(total) > 0:
                return replace(chip, used_bytes=int(used) * MIB, total_bytes=int(total) * MIB)
        return chip


def read_table(text: str) -> Table:
    """Return what can be read of ``npu-smi info``; of cut-off or foreign text that may be nothing."""
    reader = _Reader()
    version: str | None = None
    for line in lines(text):
        version = version or _version(line)
        framed = line.lstrip()
        if not framed.startswith("|"):
            reader.close()
            continue
        idle = _IDLE.search(framed)
        if idle is not None:
            reader.told.add(int(idle[1]))
        elif not reader.heading(framed):
            reader.row(cells(framed))
    reader.close()
    return Table(
        version=version,
        chips=tuple(_unique(reader.chips)),
        processes=tuple(reader.processes),
        told=frozenset(reader.told),
    )


def _version(line: str) -> str | None:
    found = _VERSION.search(line)
    return found[1] if found else None


def _unique(chips: Sequence[Chip]) -> Iterator[Chip]:
    seen: set[tuple[int, int]] = set()
    for chip in chips:
        if (chip.npu, chip.chip) not in seen:
            seen.add((chip.npu, chip.chip))
            yield chip


def _ids(cell: str) -> list[int]:
    """Return the leading whole numbers of a cell: ``0     12`` is NPU or chip, then chip or Phy-ID."""
    found: list[int] = []
    for part in cell.split():
        if not _ID.fullmatch(part):
            break
        found.append(int(part))
    return found


def _upper(row: Sequence[str], *, has_name_cell: bool) -> Chip | None:
    first, _, rest = row[0].partition(" ")
    if not _ID.fullmatch(first):
        return None
    name, health = (row[1], row[2]) if has_name_cell else (rest, row[1])
    power, temperature, *_ = [*row[-1].split(), "", ""]
    return Chip(
        npu=int(first),
        name=word(name) or "NPU",
        health=word(health),
        power_watts=number(power),
        temperature_celsius=number(temperature),
    )


def _process(row: Sequence[str]) -> Process | None:
    """Read ``| NPU Chip | Process id | Process name | Process memory(MB) | Process id in container |``."""
    ids = _ids(row[0])
    if not ids or len(row) <= _FEWEST_CELLS or not _PID.fullmatch(row[1]):
        return None
    used = number(row[3])
    container = row[4] if len(row) > _FEWEST_CELLS + 1 else ""
    return Process(
        npu=ids[0],
        chip=ids[1] if len(ids) > 1 else 0,
        pid=int(row[1]),
        container_pid=int(container) if _PID.fullmatch(container) else None,
        name=word(row[2]),
        used_bytes=None if used is None else int(used) * MIB,
    )
