"""The devices panel: a row a device where there is room, then two in a row, then a strip a node.

Percentages have fixed domains, bars the same place in every row, and memory is split by what the plan's
estimate says it is for.
"""

from collections.abc import Mapping, Sequence

from ...engine.specs.machine import DeviceReading, HostReading
from ..text import count, fit, number, safe, size
from ..widgets.lines import Row, Span, cut, heading, row_width
from .verdicts import measured_bytes
from .view import Frame, Node

_HOT_CELSIUS = 85
_FULL_SHARE = 0.95
_WIDE, _PAIR_WIDTH = 100, 38
_GROUPS = {
    "weights": ("weights", "█"),
    "gradients": ("gradients", "▓"),
    "optimizer": ("optimizer", "▒"),
    "activations": ("activations", "░"),
    "logits": ("activations", "░"),
    "buffers": ("overhead", "▖"),
    "overhead": ("overhead", "▖"),
}
"""Style of what memory is for, and the glyph where there are no colours."""
_BAR = "━"
_HEAT = "▁▂▃▄▅▆▇█"
_GIB = 1 << 30


def devices(frame: Frame, width: int, height: int) -> list[Row]:
    """Every device, or CPU and memory where there is none; a title only where there is room."""
    nodes = [node for node in frame.view.nodes if node.sample.devices]
    host = frame.view.devices.host if frame.view.devices else None
    if not frame.view.nodes:
        return [heading(_title(frame, width), width), (("no sample yet", "dim"),)][-height:]
    if not nodes:
        return _host_rows(frame, host, width, height)
    rows = _device_rows(frame, nodes, width, height)
    if host is not None and len(rows) + 1 < height:
        rows.append(_host_line(host, width))
    return [heading(_title(frame, width), width), *rows] if len(rows) < height else rows


def num_device_rows(frame: Frame, width: int, most: int) -> int:
    """Return the rows that the devices want, the title among them."""
    nodes = [node for node in frame.view.nodes if node.sample.devices]
    if not nodes:
        return 1 if width < _WIDE else 2
    return min(most, len(_device_rows(frame, nodes, width, most)) + (width >= _WIDE) + 1)


def _title(frame: Frame, width: int) -> list[Span]:
    readings = [reading for node in frame.view.nodes for reading in node.sample.devices]
    title: list[Span] = [("devices" if readings else "host", "title")]
    names = sorted({safe(reading.name) for reading in readings})
    if names:
        title.append((f"  {len(readings)} x {names[0]}" + ("" if len(names) == 1 else " and others"), "dim"))
    peak = measured_bytes(frame)
    if peak is not None:
        title += [("  peak ", "dim"), (size(peak), "bright")]
    if readings and width >= _WIDE and frame.facts.predicted and frame.facts.predicted.groups:
        title.append(("  ", "dim"))
        for style, glyph in dict(_GROUPS.values()).items():
            title += [(f" {_BAR if frame.show.has_colours else glyph}", style), (f" {style}", "dim")]
    return title


def _device_rows(frame: Frame, nodes: Sequence[Node], width: int, height: int) -> list[Row]:
    readings = [(node.number, reading) for node in nodes for reading in node.sample.devices]
    if len(readings) <= height:
        return [_wide(frame, node, reading, width) for node, reading in readings]
    columns = max(1, width // _PAIR_WIDTH)
    if len(readings) <= height * columns:
        each = width // columns
        num_rows = -(-len(readings) // columns)
        cells = [_short(frame, reading, each - 2) for _, reading in readings]
        return [_beside(cells[row::num_rows], each) for row in range(num_rows)]
    rows = [_strip(node, width) for node in nodes]
    if len(rows) <= height:
        return rows
    return [*rows[: height - 1], ((f"… {len(rows) - height + 1} more nodes, press 3", "dim"),)]


def _owners(frame: Frame) -> Mapping[tuple[int, int], int]:
    """Return the rank of a node and the device that its ranks are told to use."""
    hosts = list(dict.fromkeys(rank.host for rank in frame.view.ranks))
    return {
        (hosts.index(rank.host), rank.local_rank): rank.rank
        for rank in frame.view.ranks
        if not rank.device.startswith("cpu")
    }


def _wide(frame: Frame, node: int, reading: DeviceReading, width: int) -> Row:
    many = len(frame.view.nodes) > 1
    label = f"{node}:{reading.index}" if many else str(reading.index)
    rank = _owners(frame).get((node, reading.index))
    is_wide = width >= _WIDE
    tail: list[Span] = [*_heat(reading, limit=is_wide)]
    if is_wide:
        tail.append((f"  {count(reading.clock_mhz):>5} MHz" if reading.clock_mhz else " " * 11, "dim"))
    tail.append((f"  r{rank:<3}" if rank is not None else "      ", "dim"))
    pid = next(iter(reading.pids), None)
    if is_wide:
        tail.append((f" {pid:<8}" if pid is not None else " " * 9, "dim"))
    busy = _share(reading.utilization_percent)
    words = f"{_gib(reading.memory_used_bytes):>6}/{_gib(reading.memory_total_bytes)} GiB"
    used = 5 + 7 + 18 + row_width(tail)
    gauge = max(4, (width - used) * 2 // 5)
    memory = max(4, width - used - gauge)
    return cut(
        (
            (f"{label:<4}", "bright"),
            (f"{_percent(busy)} ", "text"),
            *bar(busy, gauge),
            (f" {fit(words, 17)} ", "warning" if _is_full(reading) else "text"),
            *_memory_bar(frame, reading, memory),
            *tail,
        ),
        width,
    )


def _short(frame: Frame, reading: DeviceReading, width: int) -> Row:
    celsius, watts = reading.temperature_celsius, reading.power_watts
    tail: list[Span] = [
        ("" if celsius is None else f" {celsius:3.0f}°C", "warning" if _is_hot(reading) else "text"),
        ("" if watts is None else f" {watts:4.0f}W", "text"),
    ]
    words = f"{_gib(reading.memory_used_bytes)}/{_gib(reading.memory_total_bytes)}"
    gauge = max(2, width - 3 - 7 - 10 - row_width(tail))
    return cut(
        (
            (f"{reading.index:<3}", "bright"),
            (f"{_percent(_share(reading.utilization_percent))} ", "text"),
            *_memory_bar(frame, reading, gauge),
            (f" {words:>9}", "warning" if _is_full(reading) else "text"),
            *tail,
        ),
        width,
    )


def _strip(node: Node, width: int) -> Row:
    """Return one node: a block a device, and the extremes."""
    readings = node.sample.devices
    busy = [reading.utilization_percent for reading in readings if reading.utilization_percent is not None]
    used = [reading.memory_used_bytes for reading in readings if reading.memory_used_bytes is not None]
    heat = [value for reading in readings if (value := reading.temperature_celsius) is not None]
    watts = [reading.power_watts for reading in readings if reading.power_watts is not None]
    blocks = "".join(_block(reading) for reading in readings)
    row: list[Span] = [
        (f"node {node.number:<4}", "bright"),
        (f"{fit(blocks, min(32, len(readings)))} ", "accent"),
        (f" {min(busy):3.0f}-{max(busy):.0f} %" if busy else "", "text"),
        (f"  {_gib(min(used))}-{_gib(max(used))} GiB" if used else "", "text"),
        (
            f"  {max(heat):.0f} °C" if heat else "",
            "warning" if heat and max(heat) >= _HOT_CELSIUS else "text",
        ),
        (f"  {sum(watts) / 1000:.1f} kW" if watts else "", "text"),
    ]
    return cut(row, width)


def _block(reading: DeviceReading) -> str:
    if reading.is_lost:
        return "x"
    if reading.utilization_percent is None:
        return "?"
    return _HEAT[min(len(_HEAT) - 1, int(reading.utilization_percent / 100 * len(_HEAT)))]


def _memory_bar(frame: Frame, reading: DeviceReading, width: int) -> Row:
    """Return the used memory in the shares of the estimate, what it does not explain, and what is free."""
    used, total = reading.memory_used_bytes, reading.memory_total_bytes
    if used is None or not total:
        return ((" " * width, "faint"),)
    predicted = frame.facts.predicted.groups if frame.facts.predicted else {}
    kinds: dict[tuple[str, str], int] = {}
    for group, num_bytes in predicted.items():
        kind = _GROUPS.get(group, ("overhead", "▖"))
        kinds[kind] = kinds.get(kind, 0) + num_bytes
    if not kinds:
        return bar(used / total, width, "warning" if _is_full(reading) else "accent")
    filled = min(width, round(used / total * width))
    shrink = min(1.0, used / max(1, sum(kinds.values())))
    spans: list[Span] = []
    edge, done = 0.0, 0
    plain = _BAR if frame.show.has_colours else ""
    for (style, glyph), num_bytes in kinds.items():
        edge += num_bytes * shrink / total * width
        end = min(filled, round(edge))
        spans.append(((plain or glyph) * (end - done), style))
        done = max(done, end)
    spans.append(((plain or "▖") * (filled - done), "overhead"))
    return (*spans, (("─" if plain else "·") * (width - filled), "faint"))


def _heat(reading: DeviceReading, *, limit: bool) -> Row:
    celsius, watts = reading.temperature_celsius, reading.power_watts
    most = f"/{reading.power_limit_watts:.0f}" if limit and reading.power_limit_watts else ""
    hot = _is_hot(reading)
    return (
        (
            " " * 8 if celsius is None else f"{celsius:4.0f} °C{'!' if hot else ' '}",
            "warning" if hot else "text",
        ),
        (" " * 6 if watts is None else f"{watts:4.0f}{most} W", "text"),
    )


def _is_hot(reading: DeviceReading) -> bool:
    return reading.temperature_celsius is not None and reading.temperature_celsius >= _HOT_CELSIUS


def _is_full(reading: DeviceReading) -> bool:
    used, total = reading.memory_used_bytes, reading.memory_total_bytes
    return used is not None and bool(total) and used >= _FULL_SHARE * (total or 1)


def _host_rows(frame: Frame, host: HostReading | None, width: int, height: int) -> list[Row]:
    if host is None:
        return [heading(_title(frame, width), width), (("nothing is known of the host", "dim"),)][-height:]
    if height < 2:  # noqa: PLR2004 - a title and a line
        return [_host_line(host, width)]
    return [heading(_title(frame, width), width), _host_line(host, width)]


def _host_line(host: HostReading, width: int) -> Row:
    used, total = host.memory_used_bytes, host.memory_total_bytes
    busy = _share(host.cpu_percent)
    share = used / total if used is not None and total else None
    own = "" if host.run_memory_bytes is None else f"  run {size(host.run_memory_bytes)}"
    is_full = share is not None and share >= _FULL_SHARE
    words = f"{_gib(used)}/{_gib(total)} GiB" + (" !" if is_full else "")
    gauge = max(2, (width - 5 - 7 - 9 - 18 - len(own)) // 2)
    return cut(
        [
            ("cpu  ", "dim"),
            (f"{_percent(busy)} ", "text"),
            *bar(busy, gauge),
            ("  memory ", "dim"),
            (fit(words, 17) + " ", "warning" if is_full else "text"),
            *bar(share, gauge, "warning" if is_full else "accent"),
            (own, "dim"),
        ],
        width,
    )


def bar(share: float | None, width: int, style: str = "accent") -> Row:
    """Return a bar of exactly ``width`` cells; a full one for 1."""
    if width <= 0:
        return ()
    halves = round(min(1.0, max(0.0, share or 0.0)) * width * 2)
    filled = "━" * (halves // 2) + "╸" * (halves % 2)
    return (filled, style), ("─" * (width - len(filled)), "faint")


def _beside(cells: Sequence[Row], each: int) -> Row:
    row: list[Span] = []
    for cell in cells:
        row += [*cell, (" " * (each - row_width(cell)), "text")]
    return tuple(row)


def _share(percent: float | None) -> float | None:
    return None if percent is None else percent / 100


def _percent(share: float | None) -> str:
    return "  n/a" if share is None else f"{100 * share:3.0f} %"


def _gib(num_bytes: float | None) -> str:
    return "n/a" if num_bytes is None else number(num_bytes / _GIB, digits=3)
