"""Reads `nvidia-smi -q -x`: the same facts as NVML, for a box whose tool works and whose library does not.

Layouts v10 to v13. Names of slices come from `nvidia-smi -L`, compute capabilities from `--query-gpu`.
"""

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import cast
from xml.etree import ElementTree as ET

from ...specs.machine import Device, DeviceProcess, DeviceReading, Problem
from ..system import System, ToolError
from ..values import number, share, size, whole, word
from . import facts, proc
from .visibility import Entry

TOOL = "nvidia-smi"
SOURCE = "nvidia-smi -q -x"
_START, _END = "<nvidia_smi_log", "</nvidia_smi_log>"
_LOST = "GPU is lost"
_CARD = re.compile(r"^GPU\s+(\d+):.*\(UUID:\s*(GPU-[^)\s]+)\)")
_SLICE = re.compile(r"^\s+MIG\s+(\S+)\s+Device\s+(\d+):\s*\(UUID:\s*(MIG-[^)\s]+)\)")
_CAPABILITY = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})")
_CAPABILITIES = {
    "Kepler": (3, 0), "Maxwell": (5, 0), "Pascal": (6, 0), "Volta": (7, 0), "Turing": (7, 5),
    "Ampere": (8, 0), "Ada Lovelace": (8, 9), "Hopper": (9, 0), "Blackwell": (10, 0),
}  # fmt: skip
"""The first of each architecture, for drivers whose tool does not tell; all of its cards answer the questions
of ``facts`` alike."""
_REASONS = (
    ("power", ("sw_power_cap", "hw_power_brake_slowdown")),
    ("heat", ("sw_thermal_slowdown", "hw_thermal_slowdown")),
)


REST_SECONDS = 60.0


class SmiError(ValueError):
    """Not the XML of nvidia-smi; the message is one line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SmiCard:
    """A card or slice with its reading; a slice follows its card."""

    entry: Entry
    reading: DeviceReading
    slot: int | None = None
    """Number of a slice on its card, as `nvidia-smi -L` counts it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What one `nvidia-smi -q -x` tells."""

    cards: tuple[SmiCard, ...]
    driver_version: str | None = None
    cuda_version: str | None = None
    is_cut: bool = False
    """The text ends, or breaks, before its end."""


class Rest:
    """Leaves a tool alone for a while after it failed: one that hangs leaves a process behind each time."""

    def __init__(self, seconds: float = REST_SECONDS) -> None:
        self._seconds = seconds
        self._until: dict[str, float] = {}

    def is_on(self, system: System) -> bool:
        """Whether the tool of this system failed a moment ago."""
        return time.monotonic() < self._until.get(_where(system), 0.0)

    def begin(self, system: System) -> None:
        """Note that the tool failed now."""
        self._until[_where(system)] = time.monotonic() + self._seconds


def ask(system: System, *, with_capabilities: bool = True) -> tuple[Report, tuple[Problem, ...]]:
    """Return what the tool reports, slices named.

    Args:
        system: Where the tool is.
        with_capabilities: Ask once more for the compute capabilities, which the report leaves out.

    Raises:
        ToolError: It is missing, fails or hangs.
        SmiError: It printed something else.
    """
    report = parse(system.run(TOOL, "-q", "-x"))
    problems = [
        facts.problem(facts.LOST, f"card {card.reading.index}", source=TOOL)
        for card in report.cards
        if card.reading.is_lost and card.slot is None
    ]
    if report.is_cut:
        message = f"{SOURCE}: ends early; {len(report.cards)} devices were read"
        problems.append(Problem(source=TOOL, message=message))
    table = _quietly(system, "--query-gpu=uuid,compute_cap", "--format=csv") if with_capabilities else ""
    known = capabilities(parse_table(table))
    has_slices = any(card.slot is not None for card in report.cards)
    names = parse_list(_quietly(system, "-L")) if has_slices else {}
    uuids = [card.entry.device.uuid or "" for card in report.cards if card.slot is None]
    cards = tuple(
        _completed(system, card, capability=known.get(uuid), named=names.get((uuid, card.slot)))
        for card in report.cards
        for uuid in uuids[card.reading.index : card.reading.index + 1]
    )
    return replace(report, cards=cards), tuple(problems)


def parse(text: str) -> Report:
    """Return the report of an output; of a cut one, the cards that are whole.

    Raises:
        SmiError: Nothing of it is a report.
    """
    start, end = text.find(_START), text.rfind(_END)
    if start < 0:
        said = word(text) or "nothing"
        raise SmiError(f"{SOURCE}: no <nvidia_smi_log> in its output: {said}")
    # warnings stand before and after the document, and its head names a DTD that is nowhere to be had
    document = text[start : end + len(_END)] if end > start else text[start:]
    elements, is_cut = _elements(document)
    cards: list[SmiCard] = []
    gpus = [element for element in elements if element.tag == "gpu"]
    for position, gpu in enumerate(gpus):
        cards += _card(gpu, position)
    top = {element.tag: element.text for element in elements if element.tag != "gpu"}
    if is_cut and not cards:
        raise SmiError(f"{SOURCE}: broken XML without a whole <gpu>")
    return Report(
        cards=tuple(cards),
        driver_version=word(top.get("driver_version")),
        cuda_version=word(top.get("cuda_version")),
        is_cut=is_cut,
    )


def parse_list(text: str) -> dict[tuple[str, int | None], tuple[str, str]]:
    """Return profile and UUID of every slice in `nvidia-smi -L`, by its card's UUID and its number there."""
    found: dict[tuple[str, int | None], tuple[str, str]] = {}
    card = None
    for line in text.splitlines():
        if match := _CARD.match(line):
            card = match[2]
        elif card is not None and (match := _SLICE.match(line)) and len(match[2]) < 9:  # noqa: PLR2004 - digits
            found[card, int(match[2])] = (match[1], match[3])
    return found


def parse_table(text: str) -> list[dict[str, str | None]]:
    """Return the rows of `nvidia-smi --query-gpu=... --format=csv` by field; what is not told is None.

    A unit may stand in the head (``memory.total [MiB]``) and is left out of the field's name.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return []
    fields = [cell.partition(" [")[0].strip() for cell in lines[0].split(",")]
    return [dict(zip(fields, map(_cell, line.split(",")), strict=False)) for line in lines[1:]]


def capabilities(rows: Iterable[Mapping[str, str | None]]) -> dict[str, tuple[int, int]]:
    """Return the compute capability by UUID from rows with ``uuid`` and ``compute_cap``."""
    found = {}
    for row in rows:
        match = _CAPABILITY.fullmatch(row.get("compute_cap") or "")
        if match and (uuid := row.get("uuid")):
            found[uuid] = (int(match[1]), int(match[2]))
    return found


def _cell(text: str) -> str | None:
    """Return a cell; ``[N/A]``, ``[Not Supported]``, ``[GPU is lost]`` are none."""
    value = text.strip()
    return None if value.startswith("[") or value in {"", "N/A"} else value


def _elements(document: str) -> tuple[list[ET.Element], bool]:
    """Return the children of the root that are whole, and whether the document breaks off."""
    # the text is the driver's own tool's, and without a DTD there are no entities to expand
    parser: ET.XMLPullParser[ET.Element] = ET.XMLPullParser(events=("start", "end"))
    is_cut = False
    try:
        parser.feed(document)
        parser.close()
    except ET.ParseError:
        is_cut = True
    depth, found = 0, []
    try:
        for event, element in cast("Iterator[tuple[str, ET.Element]]", parser.read_events()):
            depth += 1 if event == "start" else -1
            if event == "end" and depth == 1:
                found.append(element)
    except ET.ParseError:
        is_cut = True
    return found, is_cut


def _card(gpu: ET.Element, position: int) -> list[SmiCard]:
    mig = word(gpu.findtext("mig_mode/current_mig"))
    device = _with_memory(gpu, _device(gpu, position, is_split=mig == "Enabled"))
    whole_card = SmiCard(entry=Entry(device=device), reading=_reading(gpu, device))
    slots = gpu.findall("mig_devices/mig_device") if device.partitioned else []
    return [whole_card, *(_slice(slot, device, gpu) for slot in slots)]


def _device(gpu: ET.Element, position: int, *, is_split: bool) -> Device:
    link = "pci/pci_gpu_link_info"
    name = word(gpu.findtext("product_name")) or facts.UNNAMED
    said = (
        gpu.findtext(key) or "" for key in ("product_name", "fb_memory_usage/total", "temperature/gpu_temp")
    )
    capability = _CAPABILITIES.get(word(gpu.findtext("product_architecture")) or "")
    device = Device(
        kind=facts.KIND,
        vendor=facts.VENDOR,
        index=position,
        physical_index=position,
        name=facts.UNNAMED if _LOST in name else name,
        is_lost=any(_LOST in text for text in said),
        uuid=word(gpu.findtext("uuid")),
        bus_id=proc.long_address(gpu.get("id")) or proc.long_address(gpu.findtext("pci/pci_bus_id")),
        processes=_processes(gpu),
        partitioned=is_split,
        pcie_generation=whole(gpu.findtext(f"{link}/pcie_gen/max_link_gen")),
        pcie_width=whole(gpu.findtext(f"{link}/link_widths/max_link_width")),
        source=SOURCE,
    )
    # an architecture has several capabilities, so which one it is stays unknown
    return replace(facts.with_capability(device, capability), architecture=None)


def _with_memory(element: ET.Element, device: Device) -> Device:
    total, free, reserved = (
        size(element.findtext(f"fb_memory_usage/{key}")) for key in ("total", "free", "reserved")
    )
    if not total:
        return device
    return replace(device, total_bytes=total, free_bytes=free, reserved_bytes=reserved)


def _slice(slot: ET.Element, card: Device, gpu: ET.Element) -> SmiCard:
    number_on_card, instance, compute = (
        whole(slot.findtext(key)) for key in ("index", "gpu_instance_id", "compute_instance_id")
    )
    own = tuple(
        process
        for process, info in zip(card.processes, gpu.findall("processes/process_info"), strict=False)
        if whole(info.findtext("gpu_instance_id")) == instance
        and whole(info.findtext("compute_instance_id")) == compute
    )
    empty = replace(
        card, partitioned=False, partition="slice", uuid=None, processes=own,
        total_bytes=None, free_bytes=None, reserved_bytes=None,
    )  # fmt: skip
    device = _with_memory(slot, empty)
    known = None not in (card.uuid, instance, compute)
    alias = f"MIG-{card.uuid}/{instance}/{compute}" if known else None
    reading = replace(
        _reading(gpu, card),
        memory_total_bytes=device.total_bytes,
        memory_used_bytes=size(slot.findtext("fb_memory_usage/used")),
        utilization_percent=None,
        power_watts=None,
        power_limit_watts=None,
        pids=tuple(process.pid for process in own if process.pid is not None),
    )
    return SmiCard(entry=Entry(device=device, alias=alias), reading=reading, slot=number_on_card)


def _processes(gpu: ET.Element) -> tuple[DeviceProcess, ...]:
    return tuple(
        DeviceProcess(
            pid=whole(info.findtext("pid")),
            name=_process_name(info.findtext("process_name")),
            used_bytes=size(info.findtext("used_memory")),
        )
        for info in gpu.findall("processes/process_info")
    )


def _process_name(text: str | None) -> str | None:
    name = word(text)
    return None if name is None or name.startswith("[") else name


def _reading(gpu: ET.Element, device: Device) -> DeviceReading:
    power = next(
        (found for key in ("gpu_power_readings", "power_readings") if (found := gpu.find(key)) is not None),
        None,
    )
    draws = ("power_draw", "instant_power_draw", "average_power_draw")
    limits = ("current_power_limit", "enforced_power_limit", "power_limit")
    return DeviceReading(
        index=device.index,
        name=device.name,
        is_lost=device.is_lost,
        utilization_percent=share(gpu.findtext("utilization/gpu_util")),
        memory_used_bytes=size(gpu.findtext("fb_memory_usage/used")),
        memory_total_bytes=device.total_bytes,
        temperature_celsius=number(gpu.findtext("temperature/gpu_temp")),
        power_watts=_first(power, draws),
        power_limit_watts=_first(power, limits),
        clock_mhz=number(gpu.findtext("clocks/sm_clock")),
        throttle_reasons=_reasons(gpu),
        pids=tuple(process.pid for process in device.processes if process.pid is not None),
    )


def _first(element: ET.Element | None, keys: tuple[str, ...]) -> float | None:
    values = (number(element.findtext(key)) for key in keys) if element is not None else ()
    return next((value for value in values if value is not None), None)


def _reasons(gpu: ET.Element) -> tuple[str, ...]:
    """Return why the clock is held back; the reasons were called throttle reasons before driver 535."""
    active = {
        reason.tag.partition("_reason_")[2]
        for group in ("clocks_event_reasons", "clocks_throttle_reasons")
        for reason in gpu.findall(f"{group}/*")
        if word(reason.text) == "Active"
    }
    found = [name for name, keys in _REASONS if active & set(keys)]
    if "hw_slowdown" in active and not active & {"hw_thermal_slowdown", "hw_power_brake_slowdown"}:
        found.append("hardware")
    return tuple(found)


def _completed(
    system: System,
    card: SmiCard,
    *,
    capability: tuple[int, int] | None,
    named: tuple[str, str] | None,
) -> SmiCard:
    """Return a card with what other calls of the tool, and the host, tell of it."""
    device = facts.with_capability(card.entry.device, capability)
    reading = card.reading
    if named is not None:
        device = replace(device, partition=named[0], uuid=named[1])
    machine = proc.architecture(system)
    if facts.has_unified_memory(device.name, is_memory_unknown=device.total_bytes is None, machine=machine):
        device = proc.with_host_memory(system, device)
        reading = replace(reading, memory_total_bytes=device.total_bytes, memory_used_bytes=_held(device))
    return replace(card, entry=replace(card.entry, device=device), reading=reading)


def _held(device: Device) -> int | None:
    known = [process.used_bytes for process in device.processes if process.used_bytes is not None]
    return sum(known) if len(known) == len(device.processes) else None


def _where(system: System) -> str:
    return f"{system.root} {system.environ.get('PATH')}"


def _quietly(system: System, *arguments: str) -> str:
    """Return what the tool prints; whatever it manages to say when it fails."""
    try:
        return system.run(TOOL, *arguments)
    except ToolError as error:
        return error.output
