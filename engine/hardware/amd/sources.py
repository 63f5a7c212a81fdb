"""Lays the kernel's and the tools' readings of AMD devices over each other; what fails becomes a Problem."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from ...specs.machine import Problem
from .. import pci
from ..system import System, ToolError
from . import amd_smi, kfd, rocm_smi, rocminfo
from .card import Card, join
from .facts import INTEGRATED, TRAINABLE_INTEGRATED

_NAMES = ("/usr/share/libdrm/amdgpu.ids", "/opt/amdgpu/share/libdrm/amdgpu.ids")
"""Market names by PCI device and revision: the list from which the runtime itself takes them."""

Value = TypeVar("Value")


def read_kernel(system: System) -> tuple[Card, ...]:
    """Return the cards of the KFD nodes, in the runtime's order, with memory, sensors and processes."""
    return tuple(_kernel_card(system, node) for node in kfd.read_nodes(system))


def ask_tools(system: System, *, is_kernel_read: bool) -> tuple[tuple[Card, ...], str, tuple[Problem, ...]]:
    """Return the cards of the first of AMD's tools that answers, its name, and what failed before.

    Args:
        system: Where the tools are.
        is_kernel_read: Only names and limits are wanted.
    """
    problems: list[Problem] = []
    if system.has(amd_smi.TOOL):
        cards = ask(system, amd_smi.TOOL, amd_smi.STATIC, amd_smi.parse_cards, problems=problems)
        if cards:
            return (cards if is_kernel_read else _measured(system, cards)), amd_smi.TOOL, tuple(problems)
    if system.has(rocm_smi.TOOL):
        cards = ask(system, rocm_smi.TOOL, rocm_smi.QUERY, rocm_smi.parse_cards, problems=problems)
        if cards:
            return _with_runtime_names(system, cards), rocm_smi.TOOL, tuple(problems)
    return (), "", tuple(problems)


def measure(system: System) -> tuple[Card, ...]:
    """Return how busy the cards are, by the tools: where the kernel's files cannot be read."""
    for tool, arguments, parse in (
        (amd_smi.TOOL, amd_smi.METRIC, amd_smi.parse_cards),
        (amd_smi.TOOL, amd_smi.MONITOR, amd_smi.parse_monitor),
        (rocm_smi.TOOL, rocm_smi.QUERY, rocm_smi.parse_cards),
    ):
        cards = ask(system, tool, arguments, parse) if system.has(tool) else None
        if cards:
            return cards
    return ()


def ask(
    system: System,
    tool: str,
    arguments: tuple[str, ...],
    parse: Callable[[str], Value],
    *,
    problems: list[Problem] | None = None,
) -> Value | None:
    """Return what a tool's output holds; its failure is appended to the problems.

    A tool that ends with an error may have printed everything all the same.
    """
    failure = None
    try:
        output = system.run(tool, *arguments)
    except ToolError as error:
        output, failure = error.output, error.why
    try:
        return parse(output)
    except ValueError as error:
        what = " ".join((tool, *itertools.takewhile(lambda word: not word.startswith("-"), arguments)))
        if problems is not None:
            problems.append(Problem(source=tool, message=f"{what}: {failure or error}"))
        return None


def _kernel_card(system: System, node: kfd.Node) -> Card:
    card = node.card
    processes = kfd.read_processes(system, node.gpu_id)
    if card.bus_id is None:
        return replace(card, processes=processes)
    sensors = kfd.read_sensors(system, card.bus_id)
    name = _market_name(system, card) or sensors.name
    if card.partition is not None:
        # of a slice sysfs has no figures: those there are the whole card's
        used = (
            sum(process.used_bytes or 0 for process in processes)
            if kfd.are_processes_listed(system)
            else None
        )
        whole = replace(sensors, total_bytes=None, utilization_percent=None, power_watts=None)
        return replace(card, name=name, used_bytes=used, processes=processes).over(whole)
    if card.architecture in INTEGRATED:
        card, sensors = _integrated(system, card, sensors)
    return replace(card, name=name, processes=processes).over(sensors)


def _integrated(system: System, card: Card, sensors: Card) -> tuple[Card, Card]:
    """Return the readings of a processor's GPU with the memory that training could have of it.

    Newer kernels let every such GPU have half of the host's memory; ROCm is for few of them, and the others
    have no more than what the BIOS sets aside.
    """
    if card.architecture not in TRAINABLE_INTEGRATED:
        return replace(card, total_bytes=sensors.total_bytes or card.total_bytes), sensors
    if (card.total_bytes or 0) > (sensors.total_bytes or 0) and sensors.used_bytes is not None:
        mapped = kfd.host_bytes_used(system, card.bus_id or "")
        sensors = replace(sensors, used_bytes=None if mapped is None else sensors.used_bytes + mapped)
    return card, sensors


def _measured(system: System, cards: tuple[Card, ...]) -> tuple[Card, ...]:
    """Add to amd-smi's static facts how much memory is used and by whom."""
    metric = ask(system, amd_smi.TOOL, amd_smi.METRIC, amd_smi.parse_cards)
    listed = ask(system, amd_smi.TOOL, amd_smi.PROCESS, amd_smi.parse_processes) or {}
    joined = join(cards, metric or ())
    return tuple(replace(card, processes=listed.get(card.number or 0, ())) for card in joined)


def _with_runtime_names(system: System, cards: tuple[Card, ...]) -> tuple[Card, ...]:
    """Prefer rocminfo's market name and gfx target: rocm-smi calls an RX 7800 XT gfx11001."""
    if not system.has(rocminfo.TOOL):
        return cards
    agents = ask(system, rocminfo.TOOL, (), rocminfo.parse_cards) or ()
    agents = tuple(replace(agent, total_bytes=None) for agent in agents)
    bare = tuple(Card(number=card.number, bus_id=card.bus_id, uuid=card.uuid) for card in cards)
    return tuple(named.over(card) for named, card in zip(join(bare, agents), cards, strict=True))


def _market_name(system: System, card: Card) -> str | None:
    if card.device_id is None or card.bus_id is None:
        return None
    revision = (system.read(f"{pci.DEVICES}/{card.bus_id}/revision") or "").lower().removeprefix("0x")
    wanted = [f"{card.device_id:04x}", revision.zfill(2)]
    for path in _NAMES:
        for line in (system.read(path) or "").splitlines():
            cells = [cell.strip() for cell in line.split(",", 2)]
            if len(cells) == 3 and [cells[0].lower(), cells[1].lower()] == wanted:  # noqa: PLR2004 - device, revision, name
                return cells[2] or None
    return None
