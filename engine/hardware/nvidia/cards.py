"""Every card and slice of the box as NVML describes it, before the environment hides any."""

import re
from dataclasses import replace

import pynvml

from ...specs.machine import Device, DeviceProcess, Problem
from .. import pci
from ..system import System
from . import facts, nvml, proc
from .nvml import Card
from .visibility import Entry

SOURCE = "NVML"
_PROFILE = re.compile(r"^(.*?)\s+MIG\s+(\S+)$")
_WORD = 64
_COHERENT = "the host's processes can use this memory too, as a NUMA node of its own (ATS over NVLink-C2C)"


def read(system: System) -> tuple[tuple[Entry, ...], tuple[Problem, ...]]:
    """Return all cards in bus order, each followed by its slices.

    Raises:
        NvmlError: The driver cannot be used at all.
    """
    nvml.start()
    entries: list[Entry] = []
    problems: list[Problem] = []
    num_cards = nvml.count()
    for position in range(num_cards):
        card = nvml.card_at(position)
        if card.handle is None and card.code in (facts.NO_PERMISSION, facts.NO_RESOURCES):
            problems.append(facts.problem(card.code, f"card {position}"))
            continue
        found = _entries(system, card, position)
        if card.is_lost or card.handle is None:
            known = proc.cards(system)
            named = known[position] if len(known) == num_cards else None
            found = [replace(found[0], device=_lost(found[0].device, named))]
            problems.append(facts.problem(card.code or facts.UNKNOWN, f"card {position}"))
        elif found[0].device.partitioned and len(found) == 1:
            problems.append(_unsliced(position))
        entries += found
    return tuple(entries), tuple(problems)


def _lost(read_so_far: Device, known: Device | None) -> Device:
    """Return what is left of a lost card; the kernel still knows the name of one that NVML has given up."""
    return replace(
        read_so_far,
        name=known.name if known and read_so_far.name == facts.UNNAMED else read_so_far.name,
        uuid=read_so_far.uuid or (known.uuid if known else None),
        bus_id=read_so_far.bus_id or (known.bus_id if known else None),
        free_bytes=None,
        is_lost=True,
    )


def _unsliced(position: int) -> Problem:
    return Problem(
        source=SOURCE,
        message=f"NVML card {position}: MIG mode is on and no slice is made, so nothing can run on it",
        advice="make slices with `nvidia-smi mig -cgi PROFILE -C`, or turn MIG off with `nvidia-smi -mig 0`",
    )


def _entries(system: System, card: Card, position: int) -> list[Entry]:
    """Return a card, and its slices after it."""
    mode = card.ask(pynvml.nvmlDeviceGetMigMode)
    is_split = mode is not None and mode[0] == pynvml.NVML_DEVICE_MIG_ENABLE
    device = replace(_device(system, card, position), partitioned=is_split)
    pieces = nvml.slices(card) if is_split else []
    return [Entry(device=device), *(_slice(system, piece, device) for piece in pieces)]


def _device(system: System, card: Card, position: int) -> Device:
    name = card.text(pynvml.nvmlDeviceGetName) or facts.UNNAMED
    address = card.ask(pynvml.nvmlDeviceGetPciInfo)
    bus_id = None if address is None else nvml.text_of(address.busId)
    found = card.ask(pynvml.nvmlDeviceGetCudaComputeCapability)
    device = Device(
        kind=facts.KIND,
        vendor=facts.VENDOR,
        index=position,
        physical_index=position,
        name=name,
        uuid=card.text(pynvml.nvmlDeviceGetUUID),
        bus_id=bus_id,
        processes=_processes(system, card),
        numa_node=_numa_node(system, card, bus_id),
        pcie_generation=card.ask(pynvml.nvmlDeviceGetMaxPcieLinkGeneration),
        pcie_width=card.ask(pynvml.nvmlDeviceGetMaxPcieLinkWidth),
        source=SOURCE,
    )
    capability = None if found is None else (int(found[0]), int(found[1]))
    return _with_memory(system, card, facts.with_capability(device, capability))


def _with_memory(system: System, card: Card, device: Device) -> Device:
    memory = nvml.memory(card)
    is_unknown = not card.is_lost and (
        card.code == facts.NOT_SUPPORTED if memory is None else not memory.total
    )
    if facts.has_unified_memory(device.name, is_memory_unknown=is_unknown, machine=proc.architecture(system)):
        return proc.with_host_memory(system, device)
    if memory is None or not memory.total:
        return device
    device = replace(device, total_bytes=memory.total, free_bytes=memory.free, reserved_bytes=memory.reserved)
    is_coherent = card.ask(pynvml.nvmlDeviceGetAddressingMode) == pynvml.NVML_DEVICE_ADDRESSING_MODE_ATS
    return replace(device, note=_COHERENT) if is_coherent else device


def _slice(system: System, piece: Card, whole: Device) -> Entry:
    """Return a slice: memory and processes are its own, the rest is the card's."""
    named = _PROFILE.match(piece.text(pynvml.nvmlDeviceGetName) or "")
    memory = nvml.memory(piece)
    instance = piece.ask(pynvml.nvmlDeviceGetGpuInstanceId)
    compute = piece.ask(pynvml.nvmlDeviceGetComputeInstanceId)
    device = replace(
        whole,
        partitioned=False,
        partition=named[2] if named else _profile(piece),
        uuid=piece.text(pynvml.nvmlDeviceGetUUID),
        total_bytes=memory.total if memory else None,
        free_bytes=memory.free if memory else None,
        reserved_bytes=memory.reserved if memory else None,
        processes=_processes(system, piece),
        note=None,
    )
    known = None not in (whole.uuid, instance, compute)
    return Entry(device=device, alias=f"MIG-{whole.uuid}/{instance}/{compute}" if known else None)


def _profile(piece: Card) -> str:
    """Return ``1g.10gb`` from the slice's attributes, for drivers whose name of it does not end so."""
    found = piece.ask(pynvml.nvmlDeviceGetAttributes_v2)
    if found is None:
        return "slice"
    whole, part = int(found.gpuInstanceSliceCount), int(found.computeInstanceSliceCount)
    shared = f"{part}c." if part < whole else ""
    return f"{shared}{whole}g.{round(int(found.memorySizeMB) / 1024)}gb"


def _processes(system: System, card: Card) -> tuple[DeviceProcess, ...]:
    held = nvml.processes(card)
    return tuple(
        DeviceProcess(pid=pid, name=nvml.process_name(pid) or proc.name_of(system, pid), used_bytes=used)
        for pid, used in sorted(held.items())
    )


def _numa_node(system: System, card: Card, bus_id: str | None) -> int | None:
    """Return the node whose memory is nearest; ``None`` when that is every node's, or unknown."""
    address = pci.address(bus_id)
    node = pci.numa_node(system, address) if address else None
    if node is not None:
        return node
    masks = card.ask(pynvml.nvmlDeviceGetMemoryAffinity, 4, pynvml.NVML_AFFINITY_SCOPE_NODE)
    nodes = [
        at * _WORD + bit for at, mask in enumerate(masks or ()) for bit in range(_WORD) if mask >> bit & 1
    ]
    return nodes[0] if len(nodes) == 1 else None
