"""A line chart of braille dots, two by four to a cell: pure functions from points to rows of spans.

The band between the lowest and the highest value is dim, the smoothed line bright. The step axis ends at
``max_steps`` or at a half, a quarter, ... of it, and the value axis at round numbers, which always stand in
the same rows: between two doublings no point that was drawn moves, so that a tick sends only what is new.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..text import fit
from .lines import Row, Span

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_BRAILLE = 0x2800
LABEL_WIDTH = 8
_BLOCKS = "▁▂▃▄▅▆▇█"
_LEAST_STEPS = 16
_FLAT = 1e-9
_TINY = 1e-12
LARGEST = 1e30
"""Larger numbers are drawn as little as infinite ones."""
_MANY = 40
_FACTORS = (1, 2, 2.5, 5, 10, 20, 25, 50, 100)
_TALL = 6


class PointLike(Protocol):
    """What a chart needs to know of the steps that one point stands for."""

    @property
    def step(self) -> int: ...  # noqa: D102
    @property
    def low(self) -> float: ...  # noqa: D102
    @property
    def high(self) -> float: ...  # noqa: D102
    @property
    def smooth(self) -> float: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Axis:
    """The values from bottom to top of a chart, linear or logarithmic."""

    low: float
    high: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def row(self, value: float, num_rows: int) -> int:
        """Return the dot row of a value, 0 at the top, within the chart."""
        position = (self._scaled(self.high) - self._scaled(value)) / (
            self._scaled(self.high) - self._scaled(self.low)
        )
        return min(num_rows - 1, max(0, round(position * (num_rows - 1))))

    def _scaled(self, value: float) -> float:
        return math.log10(max(value, self.low)) if self.logarithmic else value


def step_limit(step: int, max_steps: int | None) -> int:
    """Return where the step axis ends: the least of 1, 3/4, 1/2, 3/8, ... of ``max_steps`` that holds it."""
    if max_steps is None or max_steps < step:
        max_steps = 1 << max(1, step).bit_length()
    least, limit = max(step, _LEAST_STEPS), max_steps
    while (limit + 1) // 2 >= least:
        limit = (limit + 1) // 2
    shorter = -(-limit * 3 // 4)
    return shorter if shorter >= least else limit


def axis_of(low: float, high: float, *, num_ticks: int = 4, logarithmic: bool = False) -> Axis:
    """Return an axis with round bounds and ticks around the values."""
    if logarithmic and high > _TINY:
        return _logarithmic_axis(low if low > high * _TINY else high / 1000, high)
    if not high - low > max(abs(high), abs(low), _TINY) * _FLAT:
        high, low = high + (abs(high) / 10 or 1.0), low - (abs(low) / 10 or 1.0)
    rough = (high - low) / max(1, num_ticks)
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 3, 4, 5, 10, 20) if unit * factor >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    ticks = tuple(_round(number * step, step) for number in range(first, last + 1))
    return Axis(low=ticks[0], high=ticks[-1], ticks=ticks)


def value_axis(low: float, high: float, *, num_rows: int) -> Axis:
    """Return the tightest axis with round ticks, each two rows or more from the next where there is room.

    Its ends are ticks, so that they move only when values leave it.
    """
    if not high - low > max(abs(high), abs(low), _TINY) * _FLAT:
        high, low = high + (abs(high) / 10 or 1.0), low - (abs(low) / 10 or 1.0)
    most = max(1, min(6, (num_rows - 1) // 2))
    unit = 10.0 ** math.floor(math.log10((high - low) / most))
    found: list[tuple[float, int, int]] = []
    for factor in _FACTORS:
        step = unit * factor
        first, last = math.floor(low / step + _FLAT), math.ceil(high / step - _FLAT)
        if 0 < last - first <= most:
            found.append((step, first, last))
    if not found:
        return axis_of(low, high, num_ticks=1)
    step, first, last = min(found, key=lambda one: one[0] * (one[2] - one[1] + 0.5))  # few ticks tell little
    ticks = tuple(_round(number * step, step) for number in range(first, last + 1))
    return Axis(low=ticks[0], high=ticks[-1], ticks=ticks)


def _logarithmic_axis(low: float, high: float) -> Axis:
    round_values = [
        factor * 10.0**power
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for factor in (1, 2, 5)
    ]
    bottom = max((value for value in round_values if value <= low), default=low)
    top = min((value for value in round_values if value >= high and value > bottom), default=bottom * 10)
    ticks = tuple(value for value in round_values if bottom <= value <= top)
    return Axis(low=bottom, high=top, ticks=ticks, logarithmic=True)


def _round(value: float, step: float) -> float:
    return round(value, max(0, 2 - math.floor(math.log10(step))))


def short_number(value: float) -> str:
    """Return a number for the edge of a chart: ``0.25``, ``2k``, ``1.5M``, ``1e-5``."""
    for bound, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= bound:
            short = f"{value / bound:.4g}{unit}"
            return short if len(short) <= len(f"{value:.0f}") else f"{value:.0f}"
    if value and abs(value) < 1e-3:  # noqa: PLR2004 - from here an exponent is shorter
        mantissa, power = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(power)}"
    return f"{value:.4g}"


def line_chart(
    points: Sequence[PointLike],
    *,
    width: int,
    height: int,
    limit: int,
    marks: Sequence[tuple[int, float]] = (),
    logarithmic: bool = False,
    start: int = 0,
    other: Sequence[PointLike] = (),
) -> list[Row]:
    """Return a chart with both axes.

    Args:
        points: By step, ascending.
        width: Cells, labels included.
        height: Rows, step axis included.
        limit: Step at the right edge.
        marks: Steps and values to be marked ``o``, such as evaluations.
        logarithmic: Whether the value axis is.
        start: Step at the left edge.
        other: Points of another run, whose smoothed line is drawn under these.
    """
    num_rows, num_cells = height - 1, width - LABEL_WIDTH
    if num_rows < 1 or num_cells < 2 or not (points or marks):  # noqa: PLR2004
        return []
    shown, beneath = _within(points, start, limit), _within(other, start, limit)
    marks = [(step, value) for step, value in marks if start <= step <= limit and abs(value) < LARGEST]
    if not (shown or beneath or marks):
        return []
    axis = _value_axis([*shown, *map(_smooth, beneath)], marks, num_rows=num_rows, logarithmic=logarithmic)
    window = (start, max(start + 1, limit))
    rows = plot(shown, width=num_cells, height=num_rows, window=window, axis=axis, marks=marks, other=beneath)
    labels = {axis.row(tick, num_rows): short_number(tick) for tick in axis.ticks}
    body = [
        ((_edge(labels.get(y, "")), "dim"), ("┤" if y in labels else "│", "faint"), *row)
        for y, row in enumerate(rows)
    ]
    return [*body, _step_axis(start, max(start + 1, limit), num_cells)]


def _edge(label: str) -> str:
    """Return a label in the cells left of the axis, with a gap where there is room for one."""
    room = LABEL_WIDTH - 1
    return f"{label:>{room - 1}} " if len(label) < room else fit(label, room)


def plot(
    points: Sequence[PointLike],
    *,
    width: int,
    height: int,
    window: tuple[int, int],
    axis: Axis,
    marks: Sequence[tuple[int, float]] = (),
    other: Sequence[PointLike] = (),
) -> list[Row]:
    """Return the bare picture of the points between two steps, ``width`` cells by ``height`` rows."""
    columns = _columns(points, width * 2, window)
    num_rows = height * 4
    band = [[0] * width for _ in range(height)]
    line = [[0] * width for _ in range(height)]
    before: tuple[int, int, int] | None = None
    for x, column in enumerate(columns):
        if column is None:
            continue
        top, bottom, smooth = (axis.row(value, num_rows) for value in column)
        last = before or (top, bottom, smooth)
        _draw(band, x, min(top, last[1]), max(bottom, last[0]))
        _draw(line, x, min(smooth, last[2]), max(smooth, last[2]))
        before = top, bottom, smooth
    start, end = window
    marked = {
        (axis.row(value, height), min(width - 1, max(0, round((step - start) / (end - start) * (width - 1)))))
        for step, value in marks
    }
    beneath = _outline(_columns(list(map(_smooth, other)), width * 2, window), axis, width, height)
    return [_row(band[y], line[y], beneath[y], {x for row, x in marked if row == y}) for y in range(height)]


def _outline(
    columns: Sequence[tuple[float, float, float] | None], axis: Axis, width: int, height: int
) -> list[list[int]]:
    """Return the dots of a smoothed line alone."""
    dots = [[0] * width for _ in range(height)]
    before: int | None = None
    for x, column in enumerate(columns):
        if column is None:
            continue
        y = axis.row(column[2], height * 4)
        _draw(dots, x, min(y, y if before is None else before), max(y, y if before is None else before))
        before = y
    return dots


def _within(points: Sequence[PointLike], start: int, limit: int) -> list[PointLike]:
    return [point for point in points if start <= point.step <= limit]


def trend(points: Sequence[PointLike], *, width: int, height: int, limit: int) -> list[Row]:
    """Return a small picture of the smoothed line alone, from zero up and without axes."""
    if not points:
        return [((" " * width, "text"),)] * height
    smooth = list(map(_smooth, points))
    values = [point.smooth for point in smooth]
    low, high = min(0.0, *values), max(0.0, *values)
    # Round ends: the picture stays where it is while the highest value grows a little.
    axis = axis_of(low, high, num_ticks=5)
    if height > 1:
        return plot(smooth, width=width, height=height, window=(0, limit), axis=axis)
    cells = [
        " " if column is None else _BLOCKS[len(_BLOCKS) - 1 - axis.row(column[2], len(_BLOCKS))]
        for column in _columns(smooth, width, (0, limit))
    ]
    return [(("".join(cells), "envelope"),)]


@dataclass(frozen=True, slots=True)
class _Smooth:
    step: int
    smooth: float

    @property
    def low(self) -> float:
        return self.smooth

    @property
    def high(self) -> float:
        return self.smooth


def _smooth(point: PointLike) -> _Smooth:
    return _Smooth(point.step, point.smooth)


def _value_axis(
    points: Sequence[PointLike], marks: Sequence[tuple[int, float]], *, num_rows: int, logarithmic: bool
) -> Axis:
    """Leave the highest two percent of many points to the edge: one spike must not flatten the rest."""
    highs = sorted(point.high for point in points)
    values = [value for _, value in marks if abs(value) < LARGEST]
    values += [min(point.low for point in points)] if points else []
    values += highs if len(highs) < _MANY else highs[: len(highs) - len(highs) // 50]
    if logarithmic and max(values) > _TINY:
        return axis_of(min(values), max(values), logarithmic=True)
    return value_axis(min(values), max(values), num_rows=num_rows)


def _columns(
    points: Sequence[PointLike], num_columns: int, window: tuple[int, int]
) -> list[tuple[float, float, float] | None]:
    """Return highest, lowest and smoothed value of every dot column, straight lines between points."""
    start, end = window
    columns: list[tuple[float, float, float] | None] = [None] * num_columns
    last: int | None = None
    for point in points:
        x = min(num_columns - 1, max(0, round((point.step - start) / (end - start) * (num_columns - 1))))
        known = columns[x]
        high, low = (
            (point.high, point.low)
            if known is None
            else (max(known[0], point.high), min(known[1], point.low))
        )
        columns[x] = here = (high, low, point.smooth)
        if last is not None and x > last + 1:
            there = columns[last]
            assert there is not None
            for between in range(last + 1, x):
                share = (between - last) / (x - last)
                a, b, c = (start + share * (end - start) for start, end in zip(there, here, strict=True))
                columns[between] = (a, b, c)
        last = x
    return columns


def _draw(grid: list[list[int]], x: int, top: int, bottom: int) -> None:
    for y in range(top, bottom + 1):
        grid[y >> 2][x >> 1] |= _DOTS[y & 3][x & 1]


def _row(band: list[int], line: list[int], beneath: list[int], marks: set[int]) -> Row:
    """Join cells of one style into spans; a cell has one colour, and the line goes before the band."""
    spans: list[Span] = []
    for x, (dim, bright, other) in enumerate(zip(band, line, beneath, strict=True)):
        if x in marks:
            span = ("o", "mark")
        elif bright:
            span = (chr(_BRAILLE + bright), "curve")
        elif other:
            span = (chr(_BRAILLE + other), "other")
        elif dim:
            span = (chr(_BRAILLE + dim), "envelope")
        else:
            span = (" ", "envelope")
        if spans and spans[-1][1] == span[1]:
            spans[-1] = (spans[-1][0] + span[0], span[1])
        else:
            spans.append(span)
    return tuple(spans)


def _step_axis(first: int, limit: int, num_cells: int) -> Row:
    """Label the ends, and round steps between them where there is room."""
    cells = ["─"] * num_cells
    taken = 0
    end = num_cells - len(short_number(limit)) - 2
    for tick in axis_of(first, limit, num_ticks=max(1, min(4, num_cells // 12))).ticks:
        label = short_number(tick)
        start = round((tick - first) / (limit - first) * (num_cells - 1))
        start -= len(label) // 2 if tick != first else 0
        if taken <= start and start + len(label) <= end:
            cells[start : start + len(label)] = label
            taken = start + len(label) + 2
    cells[end + 2 :] = short_number(limit)
    return ((" " * (LABEL_WIDTH - 1), "dim"), ("└", "faint"), *_dim_labels("".join(cells[-num_cells:])))


def _dim_labels(text: str) -> Row:
    spans: list[Span] = []
    for character in text:
        style = "faint" if character == "─" else "dim"
        if spans and spans[-1][1] == style:
            spans[-1] = (spans[-1][0] + character, style)
        else:
            spans.append((character, style))
    return tuple(spans)
