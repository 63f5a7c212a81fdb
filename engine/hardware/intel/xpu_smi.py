"""What ``xpu-smi`` prints: discovery, stats, topology and ps, as JSON of its several shapes or as tables.

Kunlunxin ships another tool of the same name; its output names no Intel device and is refused.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from ...specs.machine import DeviceProcess
from .. import pci
from ..values import hexadecimal, load_json, mapping, mappings, number, share, size, whole, word
from .card import Card, Usage

TOOL = "xpu-smi"
DISCOVERY = ("discovery", "-j")
TOPOLOGY = ("topology", "-m")
PROCESSES = ("ps", "-j")
Tile = tuple[int, int]
"""xpu-smi's number of a card, and the tile."""

_PREFIX = "XPUM_STATS_"
_ROW = re.compile(r"^\|([^|]*)\|([^|]*)\|\s*$")
_GPU = re.compile(r"GPU (\d{1,4})(?:/(\d{1,4}))?\s*$")
_PROCESS_LISTS = ("device_util_by_proc_list", "process_list")
_CODE = re.compile(r"\[(0x[0-9a-fA-F]{4})\]")
"""A name that the driver does not know: ``Intel(R) Graphics [0x020a]``."""
_MOST_LINES = 20_000
_MOST_MEBIBYTES = 1 << 24
"""Older versions give used memory in bytes, newer ones in MiB; no card has 16 TiB."""


def parse_discovery(output: str) -> tuple[Card, ...]:
    """Return the cards of a list (a JSON list, ``device_list`` or ``devices``), of one card, or of a table.

    Raises:
        ValueError: It names no device.
    """
    try:
        entries = [*_entries(load_json(output))]
    except ValueError:
        entries = [entry for entry in _tables(output) if "device_name" in entry]
    if not entries:
        raise ValueError("no device in it")
    return tuple(_card(entry) for entry in entries)


def parse_stats(output: str) -> dict[int | None, Usage]:
    """Return how busy a card (``None``) and each of its tiles are.

    Raises:
        ValueError: It is no such output.
    """
    try:
        value = mapping(load_json(output))
    except ValueError:
        return {None: _usage_of_table(output)}
    found: dict[int | None, Usage] = {}
    for level in mappings(value.get("tile_level")):
        tile = whole(level.get("tile_id"))
        if tile is not None:
            found[tile] = _usage(_metrics(level.get("data_list")))
    device = _metrics(value.get("device_level"))
    if not device and not found:
        raise ValueError("no statistics in it")
    return {None: _usage(device), **found}


def parse_topology(output: str) -> dict[tuple[Tile, Tile], str]:
    """Return the matrix of ``xpu-smi topology -m``: ``MDF``, ``XL16``, ``XL*``, ``SYS``, ``NODE``.

    Raises:
        ValueError: There is no matrix in it.
    """
    heads: list[Tile | None] = []
    links = {}
    for line in output.splitlines()[:_MOST_LINES]:
        cells = [cell.strip() for cell in line[:4096].split("|")]
        tiles = [_tile(cell) for cell in cells]
        if not heads:
            heads = tiles if tiles[0] is not None and len(cells) > 1 else []
        elif (first := tiles[0]) is not None:
            for second, kind in zip(heads, cells[1:], strict=False):
                if second is not None and second != first and kind:
                    links[first, second] = kind
    if not heads:
        raise ValueError("no matrix in it")
    return links


def parse_processes(output: str) -> dict[int, tuple[DeviceProcess, ...]]:
    """Return the processes of ``xpu-smi ps -j`` by the number of the card, without the tool itself.

    Raises:
        ValueError: It is no such output.
    """
    value = mapping(load_json(output))
    listed = [value[key] for key in _PROCESS_LISTS if key in value]
    if not listed:
        raise ValueError("no list of processes in it")
    found: dict[int, list[DeviceProcess]] = {}
    for entry in mappings(listed[0]):
        card, pid, name = (
            whole(entry.get("device_id")),
            whole(entry.get("process_id")),
            word(entry.get("process_name")),
        )
        kilobytes = whole(entry.get("mem_size"))
        if card is not None and pid is not None and name != TOOL:
            used = None if kilobytes is None else kilobytes * 1000
            found.setdefault(card, []).append(DeviceProcess(pid=pid, name=name, used_bytes=used))
    return {card: tuple(processes) for card, processes in found.items()}


def _entries(value: object) -> Iterator[Mapping[str, object]]:
    one = mapping(value)
    listed = one.get("device_list", one.get("devices", value if isinstance(value, list) else [value]))
    yield from (entry for entry in mappings(listed) if "device_name" in entry)


def _tables(output: str) -> Iterator[Mapping[str, object]]:
    """Yield the devices of the table, with the keys of the JSON form."""
    entry: dict[str, object] = {}
    for first, second in _rows(output):
        if first.isascii() and first.isdigit():
            if entry:
                yield entry
            entry = {"device_id": first}
        key, colon, value = second.partition(":")
        if entry and colon:
            entry.setdefault(key.strip().lower().replace(" ", "_"), value.strip())
    if entry:
        yield entry


def _card(entry: Mapping[str, object]) -> Card:
    total = size(entry.get("memory_physical_size_byte")) or size(entry.get("memory_physical_size"), "m")
    name = word(entry.get("device_name"))
    code = _CODE.search(name or "")
    return Card(
        number=whole(entry.get("device_id")),
        bus_id=pci.address(word(entry.get("pci_bdf_address"))),
        uuid=word(entry.get("uuid")),
        name=name,
        device_id=hexadecimal(entry.get("pci_device_id") or (code and code[1])),
        total_bytes=total or None,
        free_bytes=size(entry.get("memory_free_size_byte")),
        num_tiles=whole(entry.get("number_of_tiles")) or None,
        pcie_generation=whole(entry.get("pcie_generation")) or None,
        pcie_width=whole(entry.get("pcie_max_link_width")) or None,
    )


def _metrics(listed: object) -> dict[str, object]:
    """Return the newest value of each metric; the averages since the last question are not of now."""
    found = {}
    for metric in mappings(listed):
        name = word(metric.get("metrics_type"))
        if name is not None:
            found[name.removeprefix(_PREFIX)] = metric.get("value")
    return found


def _usage(metrics: Mapping[str, object]) -> Usage:
    used = number(metrics.get("MEMORY_USED"))
    if used is not None and used < _MOST_MEBIBYTES:
        used *= 1 << 20
    utilization = metrics.get("GPU_UTILIZATION", metrics.get("ENGINE_GROUP_COMPUTE_ALL_UTILIZATION"))
    return Usage(
        utilization_percent=share(utilization),
        used_bytes=None if used is None or used < 0 else int(used),
        temperature_celsius=number(metrics.get("GPU_CORE_TEMPERATURE")),
        power_watts=number(metrics.get("POWER")),
        clock_mhz=number(metrics.get("GPU_FREQUENCY")),
    )


def _usage_of_table(output: str) -> Usage:
    values: dict[str, str] = {}
    for first, second in _rows(output):
        values.setdefault(first, second)
    # the name runs over two rows: "Average % utilization of", "all GPU Engines"
    names = {
        "GPU_UTILIZATION": next((key for key in values if key.startswith("Average % utilization")), "none"),
        "MEMORY_USED": "GPU Memory Used (MiB)",
        "GPU_CORE_TEMPERATURE": "GPU Core Temperature (C)",
        "POWER": "GPU Power (W)",
        "GPU_FREQUENCY": "GPU Frequency (MHz)",
    }
    found = {metric: values[name] for metric, name in names.items() if name in values}
    if not found:
        raise ValueError("no statistics in it")
    return _usage(found)


def _rows(output: str) -> Iterator[tuple[str, str]]:
    lines: Iterable[str] = output.splitlines()[:_MOST_LINES]
    for line in lines:
        found = _ROW.match(line[:1024])
        if found is not None:
            yield found[1].strip(), found[2].strip()


def _tile(cell: str) -> Tile | None:
    found = _GPU.fullmatch(cell)
    return None if found is None else (int(found[1]), int(found[2] or 0))
