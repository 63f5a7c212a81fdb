"""How a machine reads on a terminal: its devices as a table, and everything around them as lines."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import click

from ..engine.specs.machine import Device, DeviceProcess, DeviceReading, Disk, HostReading, Link, Machine
from ..tui.text import NOT_AVAILABLE, count, fit, safe, shorten, size, width_of

GAP = "  "
LABEL_WIDTH = 10
BAR_WIDTH = 10
MOST_PROCESSES = 3
_ROWS_AROUND = 5
"""Lines of the live view around its table."""
LEAST_NAME = 14
_GIB = 1 << 30
_MEDIA = {
    "nvme": "NVMe",
    "ssd": "SSD",
    "hdd": "rotating disk",
    "network": "network",
    "memory": "memory",
    "overlay": "overlay",
}
_LINKS = {"nvlink": "NV", "xgmi": "XGMI", "hccs": "HCCS", "mxlink": "MX", "xelink": "XE"}
_PATHS = {
    "nvlink": "NVLink",
    "xgmi": "xGMI",
    "hccs": "HCCS",
    "mxlink": "MetaXLink",
    "xelink": "Xe Link",
    "pix": "one PCIe switch",
    "pxb": "several PCIe switches",
    "phb": "the CPU's PCIe bridge",
    "node": "the bridges of one NUMA node",
    "sys": "the link between CPU sockets",
}


class Column(NamedTuple):
    """A column of the table; ``keep`` says how dear it is: the cheapest leaves first."""

    title: str
    cells: list[str]
    keep: int
    right: bool = True

    @property
    def width(self) -> int:
        """Cells that it takes."""
        return max(width_of(cell) for cell in (self.title, *self.cells))


def machine_lines(machine: Machine, readings: Sequence[DeviceReading], *, width: int) -> Iterator[str]:
    """Yield everything that is known of a machine.

    Args:
        machine: What was detected, or written down.
        readings: One for each of its devices, or none at all.
        width: Cells of a line; the table leaves out what has no room.
    """
    yield click.style(_title(machine), bold=True)
    yield ""
    if machine.devices:
        yield from _table(machine.devices, readings, width)
        yield ""
    for label, texts in _sections(machine, width):
        yield from _labelled(label, texts, width)
    yield from _problems(machine, width)


def busy_lines(
    machine: Machine,
    readings: Sequence[DeviceReading],
    host: HostReading,
    *,
    width: int,
    height: int,
) -> list[str]:
    """Return how busy a machine is now; notes are left out when the screen is too low for them."""
    lines = [click.style(_title(machine), bold=True) + click.style("  Ctrl-C leaves", dim=True), ""]
    if machine.devices:
        table = list(_table(machine.devices, readings, width, is_live=True))
        if len(table) + _ROWS_AROUND > height:
            table = list(_table(machine.devices, readings, width, is_live=True, has_notes=False))
        lines += [*table, ""]
    cpu = NOT_AVAILABLE if host.cpu_percent is None else f"{host.cpu_percent:.0f} %"
    lines += _labelled("cpu", [f"{cpu} of {_cpus(machine)}"], width)
    used = _of(host.memory_used_bytes, host.memory_total_bytes)
    lines += _labelled("memory", [f"{used} used"], width)
    return [*lines, *_problems(machine, width)]


def _title(machine: Machine) -> str:
    names: dict[str, int] = {}
    for device in machine.devices:
        if not device.partitioned:
            names[safe(device.name)] = names.get(safe(device.name), 0) + 1
    found = ", ".join(f"{number} x {name}" if number > 1 else name for name, number in names.items())
    what = found or f"no accelerator, {_cpus(machine)}"
    nodes = f"{machine.num_nodes} nodes, each with " if machine.num_nodes > 1 else ""
    is_written = machine.host.cpu_name is None and machine.host.available_bytes is None
    return f"{nodes}{what}" if is_written else f"{nodes}{what} on {safe(machine.host.name)}"


def _cpus(machine: Machine) -> str:
    number = machine.host.num_cpus
    return f"{count(number)} CPU{'' if number == 1 else 's'}"


def _table(
    devices: Sequence[Device],
    readings: Sequence[DeviceReading],
    width: int,
    *,
    is_live: bool = False,
    has_notes: bool = True,
) -> Iterator[str]:
    now: list[DeviceReading | None] = list(readings) or [None] * len(devices)
    pairs = list(zip(devices, now, strict=True))
    columns = _columns(pairs, is_live=is_live)
    while len(columns) > 1 and _width(columns) > width:
        cheapest = min(columns, key=lambda column: column.keep)
        if cheapest.keep >= 10:  # noqa: PLR2004 - index, name and memory stay
            break
        columns.remove(cheapest)
    name = next(column for column in columns if column.title == "DEVICE")
    room = max(LEAST_NAME, name.width - max(0, _width(columns) - width))
    columns[columns.index(name)] = name._replace(cells=[shorten(cell, room) for cell in name.cells])
    yield click.style(_row([column.title for column in columns], columns), dim=True)
    told: str | None = None
    for place, (device, reading) in enumerate(pairs):
        line = _row([column.cells[place] for column in columns], columns)
        yield click.style(line, fg="red") if _is_lost(device, reading) else line
        indent = " " * (columns[0].width + len(GAP))
        notes = list(_notes(device, reading, is_live=is_live)) if has_notes else []
        if (
            device.note and device.note != told and not is_live
        ):  # said once for devices that follow each other
            notes.append(safe(device.note))
        told = device.note
        yield from (click.style(shorten(f"{indent}{note}", width), dim=True) for note in notes)


def _columns(pairs: Sequence[tuple[Device, DeviceReading | None]], *, is_live: bool) -> list[Column]:
    def cells(tell: Callable[[Device, DeviceReading], str]) -> list[str]:
        return [NOT_AVAILABLE if now is None else tell(device, now) for device, now in pairs]

    columns = [
        Column("#", ["-" if device.partitioned else f"{device.index}" for device, _ in pairs], keep=10),
        Column("DEVICE", [_name(device) for device, _ in pairs], keep=10, right=False),
        Column("MEMORY", [_state(*pair, is_live=is_live) for pair in pairs], keep=8, right=False),
        _free([_memory(*pair, is_live=is_live) for pair in pairs]),
        Column("UTIL", cells(lambda _, now: _with_unit(now.utilization_percent, "%")), keep=9),
        Column("TEMP", cells(lambda _, now: _with_unit(now.temperature_celsius, "°C")), keep=7),
        Column("POWER", cells(lambda _, now: _power(now)), keep=7),
        Column("CLOCK", cells(lambda _, now: _with_unit(now.clock_mhz, "MHz")), keep=5),
        Column("ARCH", [safe(device.architecture or NOT_AVAILABLE) for device, _ in pairs], keep=4),
        Column("BUS", [safe(device.bus_id or NOT_AVAILABLE) for device, _ in pairs], keep=3),
        Column("BANDWIDTH", [_peak(one.bandwidth_bytes_per_second, 1e9, "GB/s") for one, _ in pairs], keep=2),
        Column("BF16", [_peak(one.dense_bf16_flops_per_second, 1e12, "TFLOPS") for one, _ in pairs], keep=1),
    ]
    unknown = {NOT_AVAILABLE, ""}
    return [column for column in columns if column.keep >= 10 or set(column.cells) - unknown]  # noqa: PLR2004


def _free(memory: Sequence[tuple[int | None, int | None]]) -> Column:
    if all(free is None for free, _ in memory):
        return Column("TOTAL", [size(total) for _, total in memory], keep=10)
    return Column("FREE", [_of(free, total) for free, total in memory], keep=10)


def _peak(value: float | None, unit: float, word: str) -> str:
    return NOT_AVAILABLE if value is None else f"{value / unit:,.0f} {word}"


def _width(columns: Sequence[Column]) -> int:
    return sum(column.width for column in columns) + len(GAP) * (len(columns) - 1)


def _row(cells: Sequence[str], columns: Sequence[Column]) -> str:
    fitted = (
        fit(cell, column.width, right=column.right) for cell, column in zip(cells, columns, strict=True)
    )
    return GAP.join(fitted).rstrip()


def _name(device: Device) -> str:
    return f"{safe(device.name)} {safe(device.partition)}" if device.partition else safe(device.name)


def _is_lost(device: Device, reading: DeviceReading | None) -> bool:
    return device.is_lost or (reading is not None and reading.is_lost)


def _state(device: Device, reading: DeviceReading | None, *, is_live: bool) -> str:
    """Return how much memory is taken, drawn, or why the device cannot be used."""
    if _is_lost(device, reading):
        return "lost"
    if device.partitioned:
        return "split"
    free, total = _memory(device, reading, is_live=is_live)
    if free is None or not total:
        return ""
    taken = round(BAR_WIDTH * min(1.0, max(0.0, 1 - free / total)))
    return "█" * taken + "░" * (BAR_WIDTH - taken)


def _memory(device: Device, reading: DeviceReading | None, *, is_live: bool) -> tuple[int | None, int | None]:
    """Return free and total bytes: those of the inventory, or of the reading for a live view."""
    if not is_live or reading is None:
        return device.free_bytes, device.total_bytes
    total = reading.memory_total_bytes or device.total_bytes
    if total is None or reading.memory_used_bytes is None:
        return None, total
    return max(0, total - reading.memory_used_bytes - (device.reserved_bytes or 0)), total


def _of(part: int | None, total: int | None) -> str:
    if part is None:
        return NOT_AVAILABLE if total is None else f"{NOT_AVAILABLE} of {size(total)}"
    if total is not None and total >= _GIB:
        return f"{part / _GIB:.1f} of {total / _GIB:.1f} GiB"
    return f"{size(part)} of {size(total)}"


def _with_unit(value: float | None, unit: str) -> str:
    return NOT_AVAILABLE if value is None else f"{value:.0f} {unit}"


def _power(reading: DeviceReading) -> str:
    if reading.power_watts is None or not reading.power_limit_watts:
        return _with_unit(reading.power_watts, "W")
    return f"{reading.power_watts:.0f}/{reading.power_limit_watts:.0f} W"


def _notes(device: Device, reading: DeviceReading | None, *, is_live: bool) -> Iterator[str]:
    processes = device.processes
    if is_live and reading is not None:
        known = {process.pid: process.name for process in device.processes}
        processes = tuple(DeviceProcess(pid=pid, name=known.get(pid)) for pid in reading.pids)
    if processes:
        shown = [_process(process) for process in processes[:MOST_PROCESSES]]
        more = len(processes) - len(shown)
        yield "held by " + ", ".join(shown) + (f" and {more} more" if more else "")
    if reading is not None and reading.throttle_reasons:
        yield "slowed down by " + ", ".join(map(safe, reading.throttle_reasons))


def _process(process: DeviceProcess) -> str:
    name = safe(process.name).rpartition("/")[2] if process.name else "process"
    pid = f" {process.pid}" if process.pid is not None else ""
    return f"{name}{pid}" + (f" ({size(process.used_bytes)})" if process.used_bytes is not None else "")


def _sections(machine: Machine, width: int) -> Iterator[tuple[str, list[str]]]:
    whole = (one for one in machine.devices if not (one.partitioned or one.partition or one.is_lost))
    indexes = sorted({device.index for device in whole if device.kind == machine.device_kind})
    if len(indexes) > 1 and machine.links:
        yield "links", _link_lines(machine.links, indexes, width - LABEL_WIDTH)
    host = machine.host
    if host.cpu_name or host.num_cpus is not None:
        facts = [safe(host.cpu_name or ""), _cpus(machine)]
        if host.num_numa_nodes:
            facts.append(f"{host.num_numa_nodes} NUMA node{'s' if host.num_numa_nodes > 1 else ''}")
        flags = [" ".join(host.cpu_flags)] if host.cpu_flags else []
        yield "cpu", [", ".join(filter(None, facts)), *flags, *_limits(machine, "cpus")]
    if host.total_bytes is not None:
        is_known = host.available_bytes is not None
        told = f"{_of(host.available_bytes, host.total_bytes)} free" if is_known else size(host.total_bytes)
        yield "memory", [told, *_limits(machine, "memory")]
    if host.shm_bytes is not None:
        yield "shm", [f"{size(host.shm_bytes)} free in /dev/shm"]
    if host.container:
        yield "container", [safe(host.container)]
    if machine.disks:
        yield "disks", _disk_lines(machine.disks)
    if machine.ports:
        yield "network", _port_lines(machine)


def _limits(machine: Machine, what: str) -> list[str]:
    limits = (limit for limit in machine.host.limits if limit.what == what)
    if what == "cpus":
        return [f"{safe(limit.by)} leaves {limit.value:g}" for limit in limits]
    return [f"{safe(limit.by)} leaves {size(limit.value)}" for limit in limits]


def _link_lines(links: Sequence[Link], indexes: Sequence[int], width: int) -> list[str]:
    """Return one line when all paths are alike, else a matrix, and counts where that has no room."""
    known = [link for link in links if {link.first, link.second} <= set(indexes)]
    cells = {(link.first, link.second): _link(link) for link in known}
    kinds = Counter((_link(link), _path(link)) for link in known)
    if not kinds:
        return [NOT_AVAILABLE]
    pairs = len(indexes) * (len(indexes) - 1) // 2
    if len(kinds) == 1 and len(cells) == pairs:
        ((_, path),) = kinds
        return [f"between every two: {path}"]
    legend = [f"{short}: {path}" for short, path in kinds]
    column = max(map(len, cells.values())) + 2
    if (len(indexes) + 1) * column > width:
        return [f"{number} pair{'s' if number > 1 else ''} by {path}" for (_, path), number in kinds.items()]
    rows = ["".join(f"{text:>{column}}" for text in ("", *indexes))]
    for one in indexes:
        texts = (
            "." if one == other else cells.get((min(one, other), max(one, other)), "?") for other in indexes
        )
        rows.append("".join(f"{text:>{column}}" for text in (one, *texts)))
    return rows + legend


def _link(link: Link) -> str:
    short = _LINKS.get(link.kind, link.kind.upper())
    return f"{short}{link.count or ''}{'!' if link.peer_access is False else ''}"


def _path(link: Link) -> str:
    joined = f" ({link.count} joined)" if link.count and link.count > 1 else ""
    return f"{_PATHS[link.kind]}{joined}{', without peer access' if link.peer_access is False else ''}"


def _disk_lines(disks: Sequence[Disk]) -> list[str]:
    rows = [
        (
            safe(disk.path),
            f"{safe(disk.file_system)}{_on(disk)}",
            f"{size(disk.free_bytes)} of {size(disk.total_bytes)} free",
            ", ".join(map(safe, disk.holds)),
        )
        for disk in disks
    ]
    widths = [max(map(width_of, column)) for column in zip(*rows, strict=True)]
    return [
        GAP.join(fit(cell, wide) for cell, wide in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _on(disk: Disk) -> str:
    if disk.medium is None or disk.medium == disk.file_system:
        return ""
    return f" on {_MEDIA[disk.medium]}"


def _port_lines(machine: Machine) -> list[str]:
    alike: dict[str, list[str]] = {}
    for port in machine.ports:
        layer = {"infiniband": "InfiniBand", "ethernet": "RoCE", None: "port"}[port.link_layer]
        speed = "" if port.bits_per_second is None else f", {port.bits_per_second / 1e9:g} Gbit/s"
        state = {True: "active", False: "down", None: "state unknown"}[port.is_active]
        alike.setdefault(f"{layer}{speed}, {state}", []).append(safe(port.name))
    return [f"{len(names)} x {what}: {' '.join(names)}" for what, names in alike.items()]


def _problems(machine: Machine, width: int) -> Iterator[str]:
    for problem in machine.problems:
        yield from _labelled("problem", [safe(problem.message)], width, fg="red")
        if problem.advice:
            yield from _labelled("", [f"-> {safe(problem.advice)}"], width)


def _labelled(label: str, texts: Sequence[str], width: int, *, fg: str | None = None) -> Iterator[str]:
    head = click.style(fit(label, LABEL_WIDTH), dim=fg is None, fg=fg)
    for text in texts:
        for line in _wrapped(text, width - LABEL_WIDTH):
            yield (head + line).rstrip()
            head = " " * LABEL_WIDTH


def _wrapped(text: str, width: int) -> Iterator[str]:
    """Break a text between words; columns, which hold several blanks, stay as they are."""
    if width_of(text) <= width or GAP in text.strip():
        yield shorten(text, max(width, 1))
        return
    line = ""
    for word in text.split(" "):
        if line and width_of(line) + 1 + width_of(word) > width:
            yield line
            line = word
        else:
            line = f"{line} {word}" if line else word
    yield line
