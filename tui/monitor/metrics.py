"""Numbers over the steps beside the loss: speed, learning rate, gradient norm, and whatever a stage logs.

Which are shown is decided by what is in the events: a preference run brings rewards and accuracies with it,
a reinforcement run rewards, KL divergence and the lengths of completions.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..text import count, duration, fit, number, percent, rate, safe, shorten
from ..widgets.chart import line_chart, step_limit, trend
from ..widgets.lines import Row, Span, beside, cut, heading, row_width
from .history import Curve
from .view import Frame, Metric, model_flops_utilization

_COLUMN = 26
_GAP = 2
_TALL = 5
_FIRST = (
    "rewards/margins",
    "rewards/accuracies",
    "reward",
    "reward_std",
    "kl",
    "objective/kl",
    "completions/mean_length",
    "completions/clipped_ratio",
    "rewards/chosen",
    "rewards/rejected",
    "mean_token_accuracy",
    "accuracy",
    "margin",
    "entropy",
)
"""Names of TRL's trainers, the ones that tell most first; others follow in the order in which they came."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number with its history."""

    name: str
    value: str
    curve: Curve
    style: str = "bright"


def figures(frame: Frame) -> list[Figure]:
    """Return every number that there is, the ones that tell most first."""
    view, latest = frame.view, frame.view.latest
    speed = Figure("tokens/s", count(latest.tokens_per_second if latest else None), view.speed)
    usual = [
        Figure("grad norm", number(latest.grad_norm if latest else None, digits=3), view.grad_norm),
        Figure("learning rate", rate(latest.learning_rate if latest else None), view.learning_rate),
        Figure("step time", duration(view.step_seconds), view.step_time),
    ]
    named = [_figure(metric) for metric in sorted(view.metrics, key=_rank)]
    if view.speed.latest is None and named:
        return [*named[:2], *usual, *named[2:]]
    return [speed, *named[:2], *usual, *named[2:]]


def _rank(metric: Metric) -> tuple[bool, int]:
    return metric.is_eval, _FIRST.index(metric.name) if metric.name in _FIRST else len(_FIRST)


def _figure(metric: Metric) -> Figure:
    name = safe(metric.name) if not metric.is_eval else f"eval {safe(metric.name)}"
    broken = not math.isfinite(metric.value)
    return Figure(name, number(metric.value, digits=3), metric.curve, "error" if broken else "bright")


def metrics(frame: Frame, width: int, height: int) -> list[Row]:
    """Columns of a number and its picture; in few rows two numbers a row, with a picture of one row each."""
    shown = figures(frame)
    if height < _TALL:
        columns = max(1, min(2, width // 36))
        return _lines(frame, shown[: height * columns], width, columns)
    columns = max(1, min(len(shown), width // _COLUMN))
    if not frame.show.zoomed:
        return _columns(frame, shown[:columns], width, height)
    each = max(_TALL, height // max(1, -(-len(shown) // columns)))
    rows: list[Row] = []
    while shown and len(rows) + each <= height:
        rows += _columns(frame, shown[:columns], width, each)
        shown = shown[columns:]
    return rows


def _columns(frame: Frame, shown: Sequence[Figure], width: int, height: int) -> list[Row]:
    each = (width - _GAP * (len(shown) - 1)) // max(1, len(shown))
    blocks = [_column(frame, figure, each, height) for figure in shown]
    rows = blocks[0]
    for number_, block in enumerate(blocks[1:], start=1):
        rows = beside(rows, block, width=number_ * (each + _GAP))
    return rows


def _column(frame: Frame, figure: Figure, width: int, height: int) -> list[Row]:
    name = shorten(figure.name, max(4, width - len(figure.value) - 3))
    title: list[Span] = [(name, "title"), (f" {figure.value}", figure.style)]
    if figure.name == "tokens/s" and (share := model_flops_utilization(frame)) is not None:
        title.append((f"  MFU {percent(share)}", "dim"))
    draw: Callable[..., list[Row]] = line_chart if height >= 2 * _TALL else trend
    picture = draw(figure.curve.points, width=width, height=height - 1, limit=limit_of(frame))
    return [heading(title, width), *picture]


def _lines(frame: Frame, shown: Sequence[Figure], width: int, columns: int) -> list[Row]:
    each = (width - _GAP * (columns - 1)) // columns
    cells = [_line(figure, each, limit_of(frame)) for figure in shown]
    rows: list[Row] = []
    for start in range(0, len(cells), columns):
        row: list[Span] = []
        for cell in cells[start : start + columns]:
            row += [*cell, (" " * (each - row_width(cell) + _GAP), "text")]
        rows.append(cut(row, width))
    return rows


def _line(figure: Figure, width: int, limit: int) -> Row:
    room = 14 if width >= 36 else 10  # noqa: PLR2004 - "learning rate" fits
    text: Row = ((fit(figure.name, room), "dim"), (f"{figure.value:>9}  ", figure.style))
    return cut(
        (*text, *trend(figure.curve.points, width=max(1, width - row_width(text)), height=1, limit=limit)[0]),
        width,
    )


def limit_of(frame: Frame) -> int:
    """Return the step at which a chart that shows the whole run ends."""
    latest = frame.view.latest
    return step_limit(latest.step, latest.max_steps) if latest else step_limit(1, None)
