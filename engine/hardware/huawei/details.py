"""What ``npu-smi`` says about one thing: ``info -m`` and ``info -t usages|common|proc-mem``.

Pure: text in, frozen values out.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..tables import MIB, lines
from ..values import number, share, whole, word
from .table import Process

_GAP = re.compile(r"\s{2,}|\t")
_ID = re.compile(r"[0-9]{1,6}")
_LOGIC = "Chip Logic ID"
_FEWEST_FIELDS = 3
_PROCESS = re.compile(
    r"Process id: {0,8}(\d{1,7})\s+Process name:(.*?)\s*Process memory\(MB\): {0,8}(\d{1,9})"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """One row of ``npu-smi info -m``."""

    npu: int
    chip: int
    logic: int
    """What ASCEND_RT_VISIBLE_DEVICES and torch_npu count by."""
    name: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Details:
    """One NPU's answer to ``-t usages`` or ``-t common``: its chips' fields by chip id."""

    npu: int | None = None
    num_chips: int | None = None
    chips: Mapping[int, Mapping[str, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Activity:
    """How busy a chip is, out of its fields."""

    utilization_percent: float | None
    total_bytes: int | None
    memory_percent: float | None
    power_watts: float | None
    temperature_celsius: float | None
    clock_mhz: float | None


def read_places(text: str) -> tuple[Place, ...]:
    """Return the chips of ``info -m``; the controller (``Mcu``) and tables without logic ids give none."""
    places: list[Place] = []
    at = 2
    for line in lines(text):
        fields = _GAP.split(line.strip())
        if fields[0].startswith("NPU"):
            at = fields.index(_LOGIC) if _LOGIC in fields else -1
        elif at > 0 and len(fields) > at and all(_ID.fullmatch(fields[i]) for i in (0, 1, at)):
            name = word(fields[-1]) if len(fields) > _FEWEST_FIELDS else None
            places.append(Place(npu=int(fields[0]), chip=int(fields[1]), logic=int(fields[at]), name=name))
    return tuple(places)


def read_details(text: str) -> Details:
    """Return the fields of every chip.

    ``usages`` names the chip after its fields, ``common`` before them, and the latter appends the fields of
    the board's controller, which are left out.
    """
    top: dict[str, str] = {}
    fields: list[tuple[str, str]] = []
    for line in lines(text):
        key, colon, value = (part.strip() for part in line.partition(":"))
        if key == "Chip Name" and value.lower() == "mcu":
            break
        if key in {"NPU ID", "Chip Count"}:
            top.setdefault(key, value)
        elif colon:
            fields.append((key, value))
    return Details(
        npu=whole(top.get("NPU ID")), num_chips=whole(top.get("Chip Count")), chips=_by_chip(fields)
    )


def _by_chip(fields: list[tuple[str, str]]) -> dict[int, dict[str, str]]:
    names_first = bool(fields) and fields[0][0] == "Chip ID"
    chips: dict[int, dict[str, str]] = {}
    current: dict[str, str] = {}
    for key, value in fields:
        if key != "Chip ID":
            current[key] = value
        elif _ID.fullmatch(value):
            if names_first:
                current = {}
            chips.setdefault(int(value), current)
            if not names_first:
                current = {}
    return chips


def activity(fields: Mapping[str, str]) -> Activity:
    """Return the figures among a chip's fields: of the HBM where there is any, else of the DDR."""
    capacity = whole(fields.get("HBM Capacity(MB)"))
    memory = "HBM" if capacity or "HBM Usage Rate(%)" in fields else "DDR"
    total = whole(fields.get(f"{memory} Capacity(MB)"))
    return Activity(
        utilization_percent=share(fields.get("Aicore Usage Rate(%)")),
        total_bytes=total * MIB if total else None,
        memory_percent=share(fields.get(f"{memory} Usage Rate(%)")),
        power_watts=number(fields.get("NPU Real-time Power(W)")),
        temperature_celsius=number(fields.get("Temperature(C)")),
        clock_mhz=number(fields.get("Aicore curFreq(MHZ)")),
    )


def read_processes(text: str, npu: int) -> tuple[Process, ...]:
    """Return the rows of ``info -t proc-mem -i NPU``; each chip's id stands below its processes."""
    processes: list[Process] = []
    waiting: list[tuple[str, str, str]] = []
    for line in lines(text):
        row = _PROCESS.search(line)
        if row is not None:
            waiting.append((row[1], row[2], row[3]))
            continue
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "Chip ID" and _ID.fullmatch(value):
            processes += (
                Process(npu=npu, chip=int(value), pid=int(pid), name=word(name), used_bytes=int(used) * MIB)
                for pid, name, used in waiting
            )
            waiting = []
    return tuple(processes)
