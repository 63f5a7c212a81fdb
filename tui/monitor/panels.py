"""The small panels of the monitor, each a pure function from a frame and a size to rows."""

import math
import time
from collections.abc import Iterable, Sequence

from ...engine.specs.machine import DeviceReading, HostReading
from ...engine.specs.run import RunState
from ..text import clock, count, duration, fit, number, rate, safe, shorten, size, width_of
from ..widgets.chart import line_chart, step_limit, trend
from ..widgets.lines import Row, Span, cut, heading, row_width
from .history import Curve
from .view import Frame, Line

_STATE_STYLES = {
    RunState.FINISHED: "good",
    RunState.FAILED: "error",
    RunState.LOST: "error",
    RunState.STOPPED: "warning",
    RunState.STOPPING: "warning",
}
_HOT_CELSIUS = 85
_FULL_SHARE = 0.95
_HEADED_HEIGHT = 5
_COMPACT_WIDTH = 60
_ONE_LINE_WIDTH = 72


def header(frame: Frame, width: int, height: int) -> list[Row]:  # noqa: ARG001 - every panel takes a size
    """Two rows: which run, in which state, and how far it is."""
    return [_identity(frame, width), _progress(frame, width)]


def _identity(frame: Frame, width: int) -> Row:
    record = frame.record
    left: list[Span] = [("ftwiz  ", "title"), (safe(record.id), "bright")]
    facts = _plan_words(frame)
    if facts:
        left.append((f"  {facts}", "dim"))
    right: list[Span] = []
    if frame.view.num_alerts:
        right.append((f"{frame.view.num_alerts} alert{'s' * (frame.view.num_alerts > 1)}  ", "warning"))
    if frame.paused:
        right.append(("view paused  ", "warning"))
    if frame.readonly:
        right.append(("read only  ", "dim"))
    right.append((f" {record.state.value.upper()} ", "badge-" + _STATE_STYLES.get(record.state, "accent")))
    right.append((f" {clock(frame.elapsed_seconds)}", "bright"))
    left = list(cut(left, width - row_width(right) - 1))
    return cut((*left, (" " * (width - row_width(left) - row_width(right)), "text"), *right), width)


def _plan_words(frame: Frame) -> str:
    facts = frame.facts
    backend = "" if facts.backend is None or facts.backend == "single" else safe(facts.backend)
    ranks = f"{facts.num_processes} x " if facts.num_processes and facts.num_processes > 1 else ""
    device = safe(facts.device_kind or "")
    return "  ".join(part for part in (backend, ranks + device) if part)


def _progress(frame: Frame, width: int) -> Row:
    latest = frame.view.latest
    if latest is None:
        return cut([(_waiting(frame), "dim")], width)
    share = min(1.0, latest.step / max(1, latest.max_steps))
    left: list[Span] = [
        ("step ", "dim"),
        (f"{latest.step:,}/{latest.max_steps:,}", "bright"),
        (f"  {100 * share:3.0f} %  ", "bright"),
    ]
    right: list[Span] = []
    if latest.epoch is not None and width >= _COMPACT_WIDTH:
        right += [("  epoch ", "dim"), (f"{latest.epoch:.2f}", "bright")]
    remaining = frame.view.remaining_seconds
    if remaining is not None and not frame.record.state.is_over:
        arrival = time.strftime("%H:%M", time.localtime(frame.now + remaining))
        right += [("  left ", "dim"), (clock(remaining), "bright"), (f" ({arrival})", "dim")]
    return cut((*left, *bar(share, width - row_width(left) - row_width(right)), *right), width)


def _waiting(frame: Frame) -> str:
    said = [line.text for line in frame.view.lines if line.label == "log"]
    if frame.record.state.is_over:
        return "no step was made"
    return safe(said[-1]) if said else "waiting for the first step"


def bar(share: float | None, width: int, style: str = "accent") -> Row:
    """Return a bar of exactly ``width`` cells; a full one for 1."""
    if width <= 0:
        return ()
    halves = round(min(1.0, max(0.0, share or 0.0)) * width * 2)
    filled = "━" * (halves // 2) + "╸" * (halves % 2)
    return (filled, style), ("─" * (width - len(filled)), "faint")


def loss(frame: Frame, width: int, height: int) -> list[Row]:
    """The loss chart with its numbers in the title."""
    view = frame.view
    title: list[Span] = [("loss ", "title")]
    if view.latest is not None:
        broken = view.latest.loss is not None and not math.isfinite(view.latest.loss)
        title.append((f" {number(view.latest.loss)}", "error" if broken else "bright"))
    newest = view.loss.latest
    if newest is not None:
        title += [("  smoothed ", "dim"), (number(newest.smooth), "curve")]
    scored = [event for event in view.evals if event.loss is not None]
    if scored:
        title += [("  o eval ", "mark"), (f"{number(scored[-1].loss)} at step {scored[-1].step:,}", "text")]
    if frame.logarithmic:
        title.append(("  log scale", "dim"))
    marks = [(event.step, event.loss) for event in scored if event.loss is not None]
    chart = line_chart(
        view.loss.points,
        width=width,
        height=height - 1,
        limit=_limit(frame),
        marks=marks,
        logarithmic=frame.logarithmic,
    )
    return [heading(title, width), *(chart or _centred(_waiting(frame), width, height - 1))]


def _limit(frame: Frame) -> int:
    latest = frame.view.latest
    return step_limit(latest.step, latest.max_steps) if latest else step_limit(1, None)


def _centred(text: str, width: int, height: int) -> list[Row]:
    short = shorten(text, width)
    blank: Row = ()
    return [*[blank] * ((height - 1) // 2), ((" " * ((width - width_of(short)) // 2) + short, "dim"),)]


def speed(frame: Frame, width: int, height: int) -> list[Row]:
    """Throughput, learning rate and gradient norm: the number and a small picture of each."""
    view = frame.view
    latest = view.latest
    metrics: Sequence[tuple[str, str, Curve]] = (
        ("tokens/s", count(latest.tokens_per_second if latest else None), view.speed),
        ("learning rate", rate(latest.learning_rate if latest else None), view.learning_rate),
        ("grad norm", number(latest.grad_norm if latest else None, digits=3), view.grad_norm),
    )
    limit = _limit(frame)
    if height < _HEADED_HEIGHT:
        return [_metric_line(metric, width, limit) for metric in metrics[:height]]
    title: list[Span] = [("speed", "title")]
    if view.step_seconds is not None:
        title += [("  step ", "dim"), (duration(view.step_seconds), "bright")]
    if latest is not None and latest.num_tokens is not None:
        title += [("  tokens ", "dim"), (count(latest.num_tokens), "bright")]
    rows: list[Row] = [heading(title, width)]
    each = max(1, (height - 1) // len(metrics))
    for metric in metrics:
        name, value, curve = metric
        if each == 1:
            rows.append(_metric_line(metric, width, limit))
            continue
        rows.append(((fit(name, width - width_of(value)), "dim"), (value, "bright")))
        rows += trend(curve.points, width=width, height=each - 1, limit=limit)
    return rows


def _metric_line(metric: tuple[str, str, Curve], width: int, limit: int) -> Row:
    name, value, curve = metric
    text = ((f"{name:<14}", "dim"), (f"{value:>9}  ", "bright"))
    return (*text, *trend(curve.points, width=max(1, width - row_width(text)), height=1, limit=limit)[0])


def devices(frame: Frame, width: int, height: int) -> list[Row]:
    """Every device, or CPU and memory where there is none; title and host only where there is room."""
    sample = frame.view.devices
    if sample is None:
        return [heading(_devices_title(frame), width), (("no sample yet", "dim"),)][-height:]
    rows = [row for reading in sample.devices for row in _device(reading, width)]
    host = _host(sample.host, width) if sample.host else []
    if not rows and height <= len(host) and sample.host:
        return [_host_line(sample.host, width)]
    if len(rows) + len(host) < height:
        rows += host
    if len(rows) < height:
        return [heading(_devices_title(frame), width), *rows]
    if len(rows) > height:
        rows = [*rows[: height - 1], ((f"… {len(rows) - height + 1} more lines, press 3", "dim"),)]
    return rows


def _devices_title(frame: Frame) -> list[Span]:
    sample, latest = frame.view.devices, frame.view.latest
    title: list[Span] = [("devices" if sample and sample.devices else "host", "title")]
    if latest is not None and latest.device_peak_bytes is not None:
        title += [("  peak ", "dim"), (size(latest.device_peak_bytes), "bright"), (" allocated", "dim")]
    return title


def _device(reading: DeviceReading, width: int) -> list[Row]:
    name: Span = (f"{reading.index} {safe(reading.name)}", "text")
    used, total = reading.memory_used_bytes, reading.memory_total_bytes
    share = used / total if used is not None and total else None
    busy = None if reading.utilization_percent is None else reading.utilization_percent / 100
    heat = _heat(reading)
    if width >= _ONE_LINE_WIDTH:
        gauge = max(4, (width - 66) // 2)
        return [
            (
                (fit(name[0], 20), "text"),
                *_gauge(_percent(busy), busy, gauge, 6),
                ("  ", "text"),
                *_gauge(f"{size(used)}/{size(total)}", share, gauge, 20),
                *heat,
            )
        ]
    head = cut([name], width - row_width(heat))
    fill = (" " * (width - row_width(head) - row_width(heat)), "text")
    gauge = max(2, (width - 29) // 2)
    memory = _gauge(f"{size(used)}/{size(total)}", share, gauge, 20)
    return [
        (*head, fill, *heat),
        cut((*_gauge(_percent(busy), busy, gauge, 6), ("  ", "text"), *memory), width),
    ]


def _heat(reading: DeviceReading) -> Row:
    celsius, watts = reading.temperature_celsius, reading.power_watts
    hot = celsius is not None and celsius >= _HOT_CELSIUS
    return (
        ("" if celsius is None else f"  {celsius:.0f} °C{' !' if hot else ''}", "warning" if hot else "text"),
        ("" if watts is None else f"  {watts:.0f} W", "text"),
    )


def _host(host: HostReading, width: int) -> list[Row]:
    used, total = host.memory_used_bytes, host.memory_total_bytes
    busy = None if host.cpu_percent is None else host.cpu_percent / 100
    share = used / total if used is not None and total else None
    run = f"{number(host.run_cpu_percent, digits=3)} % of one CPU, {size(host.run_memory_bytes)}"
    gauge = max(2, width - 28)
    return [
        (("cpu    ", "dim"), *_gauge(_percent(busy), busy, gauge, 20)),
        (("memory ", "dim"), *_gauge(f"{size(used)}/{size(total)}", share, gauge, 20)),
        cut([("run    ", "dim"), (run if host.run_memory_bytes is not None else "n/a", "text")], width),
    ]


def _host_line(host: HostReading, width: int) -> Row:
    used, total = host.memory_used_bytes, host.memory_total_bytes
    busy = None if host.cpu_percent is None else host.cpu_percent / 100
    share = used / total if used is not None and total else None
    own = "n/a" if host.run_memory_bytes is None else size(host.run_memory_bytes)
    gauge = max(2, (width - 54) // 2)
    return cut(
        [
            ("cpu ", "dim"),
            *_gauge(_percent(busy), busy, gauge, 6),
            ("  memory ", "dim"),
            *_gauge(f"{size(used)}/{size(total)}", share, gauge, 20),
            ("  run ", "dim"),
            (own, "bright"),
        ],
        width,
    )


def _percent(share: float | None) -> str:
    return "n/a" if share is None else f"{100 * share:3.0f} %"


def _gauge(text: str, share: float | None, width: int, text_width: int) -> Row:
    full = share is not None and share >= _FULL_SHARE and "/" in text
    words = fit(text + (" !" if full else ""), text_width, right=False)
    return (words, "warning" if full else "bright"), *bar(share, width, "warning" if full else "accent")


def events(frame: Frame, width: int, height: int) -> list[Row]:
    """The last events, the newest at the bottom."""
    rows = [heading([("events", "title")], width)] if height >= _HEADED_HEIGHT - 1 else []
    return [*rows, *(_line(line, width) for line in frame.view.lines[-max(1, height - len(rows)) :])]


def _line(line: Line, width: int) -> Row:
    style = {"info": "accent"}.get(line.level, line.level)
    moment = time.strftime("%H:%M:%S ", time.localtime(line.t))
    text = "bright" if line.level in {"warning", "error"} else "text"
    return cut([(moment, "dim"), (fit(safe(line.label), 8), style), (safe(line.text), text)], width)


def log(frame: Frame, width: int, height: int) -> list[Row]:
    """The last lines that the ranks wrote."""
    lines = frame.log[-max(1, height - 1) :]
    return [
        heading([("log of rank 0", "title")], width),
        *(cut([(safe(line), "dim")], width) for line in lines),
    ]


def keys(frame: Frame, width: int, height: int) -> list[Row]:  # noqa: ARG001
    """What the keys do now; the last ones go first where there is no room."""
    over = frame.record.state.is_over
    wanted = [
        ("q", "leave" if over else "detach", True),
        ("esc", "overview", frame.zoomed),
        ("s", "stop", not over and not frame.readonly),
        ("p", "go on" if frame.paused else "pause view", True),
        ("l", "linear" if frame.logarithmic else "log scale", True),
        ("1-5", "panels", True),
        ("?", "help", True),
    ]
    shown = [((f"{key} ", "key"), (f"{what}   ", "dim")) for key, what, possible in wanted if possible]
    while len(shown) > 1 and sum(map(row_width, shown)) > width:
        shown.pop(-2)
    return [_joined(shown)]


def _joined(rows: Iterable[Row]) -> Row:
    return tuple(span for row in rows for span in row)
