"""Huawei Ascend NPUs, read through ``npu-smi``; each chip is a device, and A3's NPUs have two.

Without npu-smi, as in many containers, the device nodes still tell how many there are.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ...specs.machine import Device, DeviceReading, Link, LinkKind, Problem
from ..system import System, ToolError
from ..tables import (
    MISSING,
    PCI_PATHS,
    Answer,
    Card,
    has_pci_device,
    links_of,
    matrix,
    readings,
    unread_memory,
)
from ..values import word
from ..vendor import Found
from .details import Place, activity, read_details, read_places, read_processes
from .devices import KIND, VENDOR, Box, card, card_of_activity, device, uuid
from .table import Process, Table, read_table
from .visibility import ENV, visible

__all__ = ["VENDOR", "inventory", "is_present", "links", "usage"]

TOOL = "npu-smi"
NODES = "/dev/davinci[0-9]*"
_TOOL_FOLDERS = ("/usr/local/bin", "/usr/local/sbin")
"""Where the driver puts npu-smi, which is often not on a service's PATH."""
_PCI_VENDOR = "19e5"
_PCI_ACCELERATOR = "12"
_KUNPENG = frozenset(("a250", "a251", "a255", "a256"))
"""Compression and crypto engines of Huawei's CPUs, of the same class."""
_MOST_NPUS = 64
_LABEL = re.compile(r"(?:NPU|Phy-ID)[0-9]{1,4}")
_UUID = re.compile(r"NPU ([0-9]{1,6}) chip")
_LINKS: Mapping[str, LinkKind] = {**PCI_PATHS, "HCCS": "hccs", "HCCS_SW": "hccs", "SIO": "hccs"}
"""HCCS_SW goes through a switch; SIO joins the two dies of an A3 NPU and is faster still."""


def is_present(system: System) -> bool:
    """Whether a device node, npu-smi or a PCI device of the class is there."""
    return (
        bool(system.glob(NODES))
        or _with_tool_folders(system).has(TOOL)
        or has_pci_device(system, _PCI_VENDOR, base_class=_PCI_ACCELERATOR, without=_KUNPENG)
    )


def inventory(system: System) -> Found:
    """Return the chips that the CANN runtime would show to a process with this environment."""
    tools = _with_tool_folders(system)
    table, problems = _table(tools)
    if not table.chips:
        return _by_nodes(system, problems)
    box = Box(system=system, table=_with_processes(tools, table), places=_places(tools))
    chips = box.by_logic_id()
    seen = visible(system.environ.get(ENV), len(chips))
    problems += unread_memory(TOOL, [card(logic, chip) for logic, chip in enumerate(chips)])
    nodes = len(system.glob(NODES))
    if nodes > len(chips):
        problems.append(_problem(f"{len(chips)} chips in its table for {nodes} nodes {NODES}"))
    return Found(
        devices=tuple(device(index, logic, chips[logic], box) for index, logic in enumerate(seen.logic_ids)),
        problems=(*problems, *_refusal(seen.refused)),
    )


def usage(system: System, devices: tuple[Device, ...]) -> tuple[DeviceReading, ...]:
    """Return one reading per chip: from the table, or NPU by NPU where the table cannot be had."""
    mine = tuple(one for one in devices if one.vendor == VENDOR)
    if not mine:
        return ()
    tools = _with_tool_folders(system)
    table, problems = _table(tools)
    box = Box(system=system, table=table, places={})
    cards = tuple(
        replace(card(at, chip), processes=box.processes(chip)) for at, chip in enumerate(table.chips)
    )
    return readings(mine, Answer(cards=cards or _one_by_one(tools, mine), is_whole=not problems))


def links(system: System, devices: tuple[Device, ...]) -> tuple[Link, ...]:
    """Return the links of ``npu-smi info -t topo``."""
    mine = tuple(one for one in devices if one.vendor == VENDOR)
    if not mine:
        return ()
    words = matrix(_text(_with_tool_folders(system), "-t", "topo"), _LABEL)
    return links_of(words, _indices({row for row, _ in words}, mine), _LINKS)


def _with_tool_folders(system: System) -> System:
    folders = [
        system.environ.get("PATH", os.defpath),
        *(str(system.path(folder)) for folder in _TOOL_FOLDERS),
    ]
    return replace(system, environ={**system.environ, "PATH": os.pathsep.join(folders)})


def _text(tools: System, *arguments: str) -> str:
    """Return what ``npu-smi info`` prints; of a failure, what it printed before."""
    try:
        return tools.run(TOOL, "info", *arguments)
    except ToolError as error:
        return error.output


def _table(tools: System) -> tuple[Table, list[Problem]]:
    try:
        table = read_table(tools.run(TOOL, "info"))
    except ToolError as error:
        return read_table(error.output), [_problem(error.why)]
    return table, [] if table.chips else [_problem("no chip can be read from the table of `npu-smi info`")]


def _problem(what: str) -> Problem:
    advice = None
    if "shared libraries" in what:
        advice = "add /usr/local/Ascend/driver/lib64/driver and ../common to LD_LIBRARY_PATH"
    elif what == MISSING:
        advice = "in a container: mount npu-smi and /usr/local/Ascend/driver of the host"
    return Problem(source=TOOL, message=f"{TOOL}: {word(what)}", advice=advice)


def _refusal(refused: str | None) -> tuple[Problem, ...]:
    if refused is None:
        return ()
    advice = f"unset {ENV}, or list each id once and in ascending order: 0,1,2"
    return (Problem(source=ENV, message=word(refused) or ENV, advice=advice),)


def _by_nodes(system: System, problems: Sequence[Problem]) -> Found:
    """Return nameless devices, one for each node: nothing else is known without npu-smi."""
    count = len(system.glob(NODES))
    if count == 0:
        return Found(problems=tuple(problems))
    seen = visible(system.environ.get(ENV), count)
    devices = tuple(
        Device(
            kind=KIND,
            vendor=VENDOR,
            index=index,
            physical_index=logic,
            name="Ascend NPU",
            source=NODES,
            note="npu-smi cannot be read: name and memory are unknown",
        )
        for index, logic in enumerate(seen.logic_ids)
    )
    return Found(devices=devices, problems=(*problems, *_refusal(seen.refused)))


def _places(tools: System) -> dict[tuple[int, int], Place]:
    return {(place.npu, place.chip): place for place in read_places(_text(tools, "-m"))}


def _with_processes(tools: System, table: Table) -> Table:
    """Return the table with the processes of old drivers, whose table has no place for them."""
    if table.told:
        return table
    processes: list[Process] = []
    told: set[int] = set()
    for npu in sorted({chip.npu for chip in table.chips})[:_MOST_NPUS]:
        try:
            processes += read_processes(tools.run(TOOL, "info", "-t", "proc-mem", "-i", str(npu)), npu)
        except ToolError:
            break
        told.add(npu)
    return replace(table, processes=tuple(processes), told=frozenset(told))


def _one_by_one(tools: System, devices: Sequence[Device]) -> tuple[Card, ...]:
    """Ask each NPU on its own: one that is broken may spoil the table of all."""
    wanted = {one.uuid: one for one in devices if one.uuid is not None}
    npus = sorted({int(found[1]) for name in wanted if (found := _UUID.match(name))})
    cards: list[Card] = []
    for npu in npus[:_MOST_NPUS]:
        for topic in ("common", "usages"):
            chips = read_details(_text(tools, "-t", topic, "-i", str(npu))).chips
            known = {chip: wanted[uuid(npu, chip)] for chip in chips if uuid(npu, chip) in wanted}
            cards += (card_of_activity(one, activity(chips[chip])) for chip, one in known.items())
            if known:
                break
    return tuple(cards)


def _indices(labels: set[str], devices: Sequence[Device]) -> dict[str, int]:
    """Return the index of each label: ``NPU4`` is NPU 4, but where NPUs have two chips, chips are counted."""
    by_uuid = {one.uuid: one.index for one in devices}
    by_logic = {one.physical_index: one.index for one in devices}
    counts_chips = any(not (name or "").endswith("chip 0") for name in by_uuid)
    numbers = {label: int(re.sub(r"[^0-9]", "", label)) for label in labels}
    indices: dict[str, int] = {}
    for position, label in enumerate(sorted(labels, key=numbers.__getitem__)):
        is_npu = label.startswith("NPU") and not counts_chips
        index = by_uuid.get(uuid(numbers[label], 0)) if is_npu else by_logic.get(position)
        if index is not None:
            indices[label] = index
    return indices
