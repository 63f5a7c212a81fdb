"""Apple silicon for torch's mps: one device that shares the host's memory, by macOS's own tools.

Written from documentation and published outputs; no Mac was at hand.
"""

import re

from ..specs.machine import Device, DeviceReading, Link, Problem
from .system import System, ToolError
from .values import load_json, mapping, mappings, share, size, whole, word
from .vendor import Found

VENDOR = "apple"
KIND = "mps"
FACTS = ("machdep.cpu.brand_string", "hw.memsize", "hw.optional.arm64")
WIRED_LIMIT = "iogpu.wired_limit_mb"
"""What the user allows the GPU; 0 or missing is the system's own limit."""
WITHOUT_BF16 = re.compile(r"Apple M[12]\b")
"""Their bf16 is emulated, from macOS 14 on; of the later ones nothing was verified."""
_SMALL_BYTES = 32 << 30
"""Metal's recommendedMaxWorkingSetSize: two thirds of the memory up to here (21845 MiB of 32 GiB and 16384 of
24 GiB were published), three quarters above."""
_FIELD = re.compile(r"^\s*([\w.\"' -]{1,60}?)\s*:\s*(.+?)\s*$")
_PAGE = re.compile(r"page size of (\d{3,7}) bytes")
_BUSY = re.compile(r'"Device Utilization %"\s*=\s*(\d{1,3})\b')
_IN_USE = re.compile(r'"In use system memory"\s*=\s*(\d{1,16})\b')
_FREE_PAGES = ("Pages free", "Pages inactive", "Pages speculative")
"""Purgeable pages are counted among the active and inactive ones."""
_IOREG = ("-r", "-d", "1", "-c", "IOAccelerator")
_MOST_LINES = 2_000


def is_present(system: System) -> bool:
    """Whether this is macOS: no other system has its profiler."""
    return system.has("system_profiler") and system.has("sysctl")


def inventory(system: System) -> Found:
    """Return the one device of Apple silicon; the graphics of older Macs are none."""
    problems: list[Problem] = []
    facts = parse_sysctl(_said(system, problems, "sysctl", *FACTS))
    total = whole(facts.get("hw.memsize")) or None
    name = word(facts.get("machdep.cpu.brand_string"))
    if facts.get("hw.optional.arm64") != "1" and not (name or "").startswith("Apple"):
        return Found(problems=tuple(problems))
    profile = _said(system, problems, "system_profiler", "SPDisplaysDataType", "-json")
    wired = size(parse_sysctl(_said(system, [], "sysctl", WIRED_LIMIT)).get(WIRED_LIMIT), "m")
    budget = None if total is None else wired or recommended_bytes(total)
    available = parse_vm_stat(_said(system, problems, "vm_stat"))
    device = Device(
        kind=KIND,
        vendor=VENDOR,
        index=0,
        physical_index=0,
        name=parse_profile(profile) or name or "Apple GPU",
        total_bytes=total,
        free_bytes=None if budget is None or available is None else min(budget, available),
        unified_memory=True,
        architecture="apple",
        supports_bf16=False if WITHOUT_BF16.match(name or "") else None,
        supports_fp8=False,
        supports_flash_attention_2=False,
        supports_flash_attention_3=False,
        source="sysctl, system_profiler",
        note=None if budget is None else f"shares the host's memory; Metal gives it about {budget >> 20} MiB",
    )
    return Found(devices=(device,), problems=tuple(problems))


def usage(system: System, devices: tuple[Device, ...]) -> tuple[DeviceReading, ...]:
    """Return load and memory of the device; power and temperature are for root only."""
    ours = [device for device in devices if device.vendor == VENDOR]
    said = _said(system, [], "ioreg", *_IOREG) if ours else ""
    busy, used = _BUSY.search(said), _IN_USE.search(said)
    return tuple(
        DeviceReading(
            index=device.index,
            name=device.name,
            utilization_percent=None if busy is None else share(busy[1]),
            memory_used_bytes=None if used is None else int(used[1]),
            memory_total_bytes=device.total_bytes,
        )
        for device in ours
    )


def links(_system: System, _devices: tuple[Device, ...]) -> tuple[Link, ...]:
    """Return nothing: there is one device."""
    return ()


def recommended_bytes(total: int) -> int:
    """Return how much of the memory Metal recommends to use, by what was published of it."""
    return total * 2 // 3 if total <= _SMALL_BYTES else total * 3 // 4


def parse_sysctl(output: str) -> dict[str, str]:
    """Return the values of ``sysctl name ...``; names that it does not know are missing."""
    found = (_FIELD.match(line[:1024]) for line in output.splitlines()[:_MOST_LINES])
    return {field[1]: field[2] for field in found if field is not None}


def parse_profile(output: str) -> str | None:
    """Return the GPU's name of ``system_profiler SPDisplaysDataType -json``."""
    try:
        value = mapping(load_json(output))
    except ValueError:
        return None
    for entry in mappings(value.get("SPDisplaysDataType")):
        name = word(entry.get("sppci_model"))
        if name is not None:
            return name
    return None


def parse_vm_stat(output: str) -> int | None:
    """Return the bytes that ``vm_stat`` calls free or that can be freed at once."""
    page = _PAGE.search(output[:1024])
    pages = parse_sysctl(output)
    counts = [whole(pages.get(name, "").rstrip(".")) for name in _FREE_PAGES]
    known = [count for count in counts if count is not None]
    return int(page[1]) * sum(known) if page is not None and counts[0] is not None else None


def _said(system: System, problems: list[Problem], tool: str, *arguments: str) -> str:
    """Return what a tool prints; of one that fails, what it had printed, and a problem."""
    try:
        return system.run(tool, *arguments)
    except ToolError as error:
        problems.append(Problem(source=tool, message=f"{error}"))
        return error.output
