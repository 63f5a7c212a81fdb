"""What ``amd-smi`` prints, of ROCm 6 (a list) and of 7 and later (``{"gpu_data": [...]}``), JSON or text."""

import re
from collections.abc import Iterator, Mapping

from ...specs.machine import DeviceProcess
from .. import pci
from ..values import hexadecimal, load_json, mapping, mappings, number, share, size, whole, word
from .card import Card, gpu_uuid
from .facts import architecture

TOOL = "amd-smi"
STATIC = ("static", "--json")
METRIC = ("metric", "--json")
PROCESS = ("process", "--json")
TOPOLOGY = ("topology", "--json")
MONITOR = ("monitor", "-putm")
XGMI = "XGMI"
_LINE = re.compile(r"^( *)(?:- )?([A-Za-z][\w /-]{0,60}):(?: (.*))?$")
_BOUNDARY = re.compile(r"  +")
_SPEED = re.compile(r"\d+(?:\.\d+)?")
_MOST_LINES = 20_000


def parse_cards(output: str) -> tuple[Card, ...]:
    """Return the devices of ``amd-smi list``, ``static`` or ``metric``.

    Raises:
        ValueError: It names no device.
    """
    cards = tuple(_card(entry) for entry in _entries(output))
    if not cards:
        raise ValueError("no GPU in it")
    return cards


def parse_monitor(output: str) -> tuple[Card, ...]:
    """Return the devices of the table that ``amd-smi monitor -putm`` prints.

    Raises:
        ValueError: It has no such table.
    """
    heads: list[str] = []
    cards = []
    for line in output.splitlines()[:_MOST_LINES]:
        cells = _BOUNDARY.split(line.strip())
        if "GPU" in cells and "POWER" in cells:
            heads = cells
        elif heads and cells[0].isdigit() and len(cells) == len(heads):
            row = dict(zip(heads, cells, strict=True))
            cards.append(
                Card(
                    number=whole(row["GPU"]),
                    power_watts=number(row["POWER"]),
                    temperature_celsius=number(row.get("GPU_TEMP", row.get("GPU_T"))),
                    utilization_percent=share(row.get("GFX_UTIL", row.get("GFX%"))),
                    clock_mhz=number(row.get("GFX_CLOCK", row.get("GFX_CLK"))),
                )
            )
    if not cards:
        raise ValueError("no table of GPUs in it")
    return tuple(cards)


def parse_processes(output: str) -> dict[int, tuple[DeviceProcess, ...]]:
    """Return the processes on each GPU of ``amd-smi process``, by the tool's number of it.

    Raises:
        ValueError: It names no device.
    """
    found: dict[int, list[DeviceProcess]] = {}
    for entry in _entries(output):
        gpu = whole(entry.get("gpu"))
        if gpu is None:
            continue
        processes = found.setdefault(gpu, [])
        listed = entry.get("process_list", entry.get("process_info"))
        for item in mappings(listed if isinstance(listed, list) else [listed]):
            info = mapping(item.get("process_info", item))
            pid = whole(info.get("pid"))
            memory = mapping(info.get("memory_usage")).get("vram_mem", info.get("vram_mem"))
            if pid is not None:
                processes.append(DeviceProcess(pid=pid, name=word(info.get("name")), used_bytes=size(memory)))
    if not found:
        raise ValueError("no GPU in it")
    return {gpu: tuple(processes) for gpu, processes in found.items()}


def parse_topology(output: str) -> dict[tuple[str, str], str]:
    """Return the kinds of links (``XGMI``, ``PCIE``) of ``amd-smi topology`` between bus addresses.

    Raises:
        ValueError: There is no such table in it.
    """
    try:
        value = load_json(output)
    except ValueError:
        return _topology_of_text(output)
    entries = [*_unwrapped(value)]
    buses = [pci.address(word(entry.get("bdf"))) for entry in entries]
    links = {}
    for bus, entry in zip(buses, entries, strict=True):
        for other, kind in _links(entry, buses):
            if bus is not None and other is not None and bus != other and kind is not None:
                links[bus, other] = kind.upper()
    if not entries:
        raise ValueError("no GPU in it")
    return links


def _links(entry: Mapping[str, object], buses: list[str | None]) -> Iterator[tuple[str | None, str | None]]:
    """Yield address and kind of the links of a GPU, of ROCm 6.0 (by number) and of the later ones."""
    for link in mappings(entry.get("links")):
        yield pci.address(word(link.get("bdf"))), word(link.get("link_type"))
    for name, kind in mapping(entry.get("link_type")).items():
        place = name.removeprefix("gpu_")
        if place.isascii() and place.isdigit() and len(place) < 4 and int(place) < len(buses):  # noqa: PLR2004 - 999 GPUs
            yield buses[int(place)], word(kind)


def _topology_of_text(output: str) -> dict[tuple[str, str], str]:
    links: dict[tuple[str, str], str] = {}
    columns: list[str | None] = []
    is_wanted, is_read = False, False
    for line in output.splitlines()[:_MOST_LINES]:
        cells = line.split()
        if line.rstrip().endswith("TABLE:"):
            is_wanted, columns, is_read = line.strip().startswith("LINK TYPE"), [], True
        elif is_wanted and cells and not columns:
            columns = [pci.address(cell) for cell in cells]
        elif is_wanted and len(cells) == len(columns) + 1 and (first := pci.address(cells[0])) is not None:
            for second, kind in zip(columns, cells[1:], strict=True):
                if second is not None and second != first:
                    links[first, second] = kind.upper()
    if not is_read:
        raise ValueError("no table in it")
    return links


def _card(entry: Mapping[str, object]) -> Card:
    """Return what static, metric and list say of a GPU; each has another part."""
    asic, bus = mapping(entry.get("asic")), mapping(entry.get("bus"))
    memory, power = mapping(entry.get("mem_usage")), mapping(entry.get("power"))
    total = size(memory.get("total_vram"), "m") or size(mapping(entry.get("vram")).get("size"), "m")
    return Card(
        number=whole(entry.get("gpu")),
        bus_id=pci.address(word(bus.get("bdf", entry.get("bdf")))),
        uuid=gpu_uuid(word(asic.get("asic_serial"))) or gpu_uuid(word(entry.get("hip_uuid"))),
        name=word(asic.get("market_name")),
        architecture=architecture(word(asic.get("target_graphics_version"))),
        device_id=hexadecimal(asic.get("device_id")),
        total_bytes=total,
        used_bytes=size(memory.get("used_vram"), "m"),
        utilization_percent=share(mapping(entry.get("usage")).get("gfx_activity")),
        temperature_celsius=_temperature(mapping(entry.get("temperature"))),
        power_watts=number(power.get("socket_power")) or number(power.get("average_socket_power")),
        power_limit_watts=_power_limit(mapping(entry.get("limit"))),
        clock_mhz=_clock(mapping(entry.get("clock"))),
        numa_node=whole(mapping(entry.get("numa")).get("node")),
        pcie_generation=_generation(word(bus.get("pcie_interface_version"))),
        pcie_width=whole(bus.get("max_pcie_width")),
        partition=_partition(mapping(entry.get("partition"))),
    )


def _temperature(values: Mapping[str, object]) -> float | None:
    return next((t for key in ("hotspot", "edge") if (t := number(values.get(key))) is not None), None)


def _power_limit(values: Mapping[str, object]) -> float | None:
    """Return the limit in force, of ROCm 6 (``socket_power``) or of 7 (``ppt0``)."""
    first = mapping(values.get("ppt0")) or values
    for key in ("socket_power_limit", "socket_power", "max_power_limit", "max_power"):
        if found := number(first.get(key)):
            return found
    return None


def _clock(values: Mapping[str, object]) -> float | None:
    first = mapping(values.get("gfx_0") or values.get("gfx"))
    return number(first.get("clk"))


def _generation(text: str | None) -> int | None:
    found = None if text is None else _SPEED.search(text)
    return None if found is None else whole(found[0])


def _partition(values: Mapping[str, object]) -> str | None:
    """Return the mode and the number of a slice, ``CPX 3``; a whole card (SPX) is none."""
    mode = word(values.get("accelerator_partition") or values.get("compute_partition"))
    place = whole(values.get("partition_id"))
    if mode is None or mode == "SPX":
        return None
    return mode if place is None else f"{mode} {place}"


def _entries(output: str) -> Iterator[Mapping[str, object]]:
    try:
        value = load_json(output)
    except ValueError:
        yield from _tree(output)
    else:
        yield from _unwrapped(value)


def _unwrapped(value: object) -> Iterator[Mapping[str, object]]:
    """Yield the GPUs of a list, of ``{"gpu_data": [...]}``, or of one object that is a GPU."""
    inner = mapping(value).get("gpu_data", value)
    listed = inner if isinstance(inner, list) else [inner]
    yield from (entry for entry in mappings(listed) if "gpu" in entry)


def _tree(output: str) -> Iterator[Mapping[str, object]]:
    """Yield the GPUs of the indented text form, with the keys of the JSON form.

    Lines that repeat a key (processes) make a list of it.
    """
    stack: list[tuple[int, dict[str, object]]] = []
    roots: list[dict[str, object]] = []
    for line in output.splitlines()[:_MOST_LINES]:
        found = _LINE.match(line.rstrip())
        if found is None:
            continue
        indent, key, value = len(found[1]), found[2].strip().lower(), found[3]
        if key == "gpu" and indent == 0:
            roots.append({"gpu": value})
            stack = [(0, roots[-1])]
            continue
        while stack and stack[-1][0] >= indent and len(stack) > 1:
            stack.pop()
        if not stack:
            continue
        parent = stack[-1][1]
        if value:
            parent.setdefault(key, value)
        else:
            child: dict[str, object] = {}
            earlier = parent.get(key)
            parent[key] = (
                [*earlier, child] if isinstance(earlier, list) else [earlier, child] if earlier else child
            )
            stack.append((indent, child))
    yield from roots
