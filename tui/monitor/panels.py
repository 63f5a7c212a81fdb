"""The small panels of the monitor, each a pure function from a frame and a size to rows."""

import math
import time
from collections.abc import Iterable, Sequence

from ...engine.specs.run import RunState
from ..text import clock, fit, number, safe, shorten, width_of
from ..widgets.chart import line_chart
from ..widgets.lines import Row, Span, cut, heading, row_width
from .devices import bar
from .history import Curve, Point, smoothed
from .metrics import limit_of
from .verdicts import word
from .view import Frame, Line

_WIDE = 110
STATE_STYLES = {
    RunState.FINISHED: "good",
    RunState.FAILED: "error",
    RunState.LOST: "error",
    RunState.STOPPED: "warning",
    RunState.STOPPING: "warning",
}
_HEADED_HEIGHT = 5
_COMPACT_WIDTH = 60


def header(frame: Frame, width: int, height: int) -> list[Row]:  # noqa: ARG001 - every panel takes a size
    """Two rows: which run, in which state, and how far it is."""
    return [_identity(frame, width), _progress(frame, width)]


def _identity(frame: Frame, width: int) -> Row:
    record = frame.record
    left: list[Span] = [("ftwiz  ", "title"), (safe(record.id), "bright")]
    facts = _plan_words(frame)
    if facts:
        left.append((f"  {facts}", "dim"))
    if frame.facts.model and width >= _WIDE:
        left.append((f"  {safe(frame.facts.model)}", "dim"))
    right: list[Span] = []
    if frame.view.num_alerts:
        right.append((f"{frame.view.num_alerts} alert{'s' * (frame.view.num_alerts > 1)}  ", "warning"))
    if frame.show.paused:
        right.append(("view paused  ", "warning"))
    if frame.show.readonly:
        right.append(("read only  ", "dim"))
    if not frame.is_own:
        right.append((f"{safe(frame.source)}  ", "dim"))
    said, style = word(frame)
    right.append((f"{said}  " if said else "", style))
    right.append((f" {record.state.value.upper()} ", "badge-" + STATE_STYLES.get(record.state, "accent")))
    right.append((f" {clock(frame.elapsed_seconds)}", "bright"))
    left = list(cut(left, width - row_width(right) - 1))
    return cut((*left, (" " * (width - row_width(left) - row_width(right)), "text"), *right), width)


def _plan_words(frame: Frame) -> str:
    facts = frame.facts
    kind = " ".join(safe(word) for word in (facts.method, facts.stage) if word)
    backend = "" if facts.backend is None or facts.backend == "single" else safe(facts.backend)
    ranks = f"{facts.num_processes} x " if facts.num_processes and facts.num_processes > 1 else ""
    device = safe(facts.device_kind or "")
    return "  ".join(part for part in (kind, backend, ranks + device) if part)


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
    show = frame.show
    if show.logarithmic:
        title.append(("  log scale", "dim"))
    if show.smoothing is not None:
        title.append((f"  smoothing x{show.smoothing:g}" if show.smoothing else "  not smoothed", "dim"))
    if show.num_steps is not None:
        title.append(("  zoomed" + (", frozen" if show.last_step is not None else ""), "warning"))
    if show.compared is not None:
        title.append((f"  {safe(show.compared.id)}", "other"))
    start, end = window_of(frame)
    chart = line_chart(
        _points(frame, view.loss, start),
        width=width,
        height=height - 1,
        limit=end,
        marks=[(event.step, event.loss) for event in scored if event.loss is not None],
        logarithmic=show.logarithmic,
        start=start,
        other=_points(frame, show.compared.loss, start) if show.compared else (),
    )
    return [heading(title, width), *(chart or _centred(_waiting(frame), width, height - 1))]


def window_of(frame: Frame) -> tuple[int, int]:
    """Return the steps at both ends of the loss chart."""
    show, latest = frame.show, frame.view.latest
    if show.num_steps is None:
        end = limit_of(frame)
        others = show.compared.loss.latest if show.compared else None
        return 0, max(end, others.step if others else 0)
    end = show.last_step if show.last_step is not None else latest.step if latest else show.num_steps
    if show.last_step is None:  # a tail that moves by an eighth of the chart at a time, not with every step
        eighth = max(1, show.num_steps // 8)
        end = -(-end // eighth) * eighth
    return max(0, end - show.num_steps), max(1, end)


def _points(frame: Frame, curve: Curve, start: int) -> Sequence[Point]:
    """Return the points to draw: single steps where the window lies within those, smoothed as wanted."""
    finer = curve.recent and frame.show.num_steps is not None and curve.recent[0].step <= start
    points = curve.recent if finer else curve.points
    if frame.show.smoothing is None:
        return points
    latest = frame.view.latest
    usual = min(100.0, max(2.0, (latest.max_steps if latest else 1) / 100))
    return smoothed(points, usual * frame.show.smoothing)


def _centred(text: str, width: int, height: int) -> list[Row]:
    short = shorten(text, width)
    blank: Row = ()
    return [*[blank] * ((height - 1) // 2), ((" " * ((width - width_of(short)) // 2) + short, "dim"),)]


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
    """The last lines that the ranks wrote, those with the filter's words only."""
    wanted = frame.show.filter.casefold()
    kept = [line for line in map(safe, frame.log) if wanted in line.casefold()]
    room = max(1, height - 1)
    back = min(frame.show.scroll, max(0, len(kept) - room))
    title: list[Span] = [("log of rank 0", "title")]
    if wanted:
        title.append((f"  with {safe(frame.show.filter)!r}: {len(kept)} lines", "warning"))
    if back:
        title.append((f"  {back} lines back", "warning"))
    lines = kept[: len(kept) - back][-room:]
    return [heading(title, width), *(cut([(line, "dim")], width) for line in lines)]


def keys(frame: Frame, width: int, height: int) -> list[Row]:  # noqa: ARG001
    """What the keys do now; the last ones go first where there is no room."""
    over, show = frame.record.state.is_over, frame.show
    may = frame.is_own and not over and not show.readonly
    wanted = [
        ("q", "leave" if over or not frame.is_own else "detach", True),
        ("esc", "overview", show.zoomed),
        ("?", "keys", True),
        ("s", "stop", may),
        ("w", "save", may),
        ("1-9", "panels", True),
        ("+-", "zoom", True),
        ("l", "linear" if show.logarithmic else "log", True),
        ("p", "go on" if show.paused else "pause", True),
        ("c", "compare", True),
        ("x", "export", True),
        ("/", "filter", True),
    ]
    shown = [((f"{key} ", "key"), (f"{what}   ", "dim")) for key, what, possible in wanted if possible]
    while len(shown) > 1 and sum(map(row_width, shown)) > width + 3:
        shown.pop()
    *others, (key, (what, style)) = shown
    return [cut(_joined([*others, (key, (what.rstrip(), style))]), width)]


def _joined(rows: Iterable[Row]) -> Row:
    return tuple(span for row in rows for span in row)
