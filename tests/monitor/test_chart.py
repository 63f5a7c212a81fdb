import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ftwiz.tui.monitor.history import Point, Series
from ftwiz.tui.widgets.chart import axis_of, line_chart, short_number, step_limit, trend
from ftwiz.tui.widgets.lines import Row, row_width

VALUES = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=120)


def points_of(values: list[float]) -> tuple[Point, ...]:
    series = Series()
    for number, value in enumerate(values, start=1):
        series.add(number, value)
    return series.curve().points


def text_of(rows: list[Row]) -> str:
    return "\n".join("".join(text for text, _ in row) for row in rows)


@given(VALUES, st.integers(12, 90), st.integers(3, 20), st.booleans())
def test_a_chart_fills_exactly_its_cells(
    values: list[float], width: int, height: int, logarithmic: bool
) -> None:
    rows = line_chart(
        points_of(values),
        width=width,
        height=height,
        limit=step_limit(len(values), 120),
        marks=[(1, values[0]), (3, math.nan)],
        logarithmic=logarithmic,
    )
    assert len(rows) == height
    assert {row_width(row) for row in rows} == {width}


@given(st.floats(-1e12, 1e12), st.floats(-1e12, 1e12), st.booleans())
def test_an_axis_holds_its_values_and_its_ticks_ascend(one: float, other: float, logarithmic: bool) -> None:
    low, high = sorted((one, other))
    assume(high == low or high - low > 1e-9 * abs(high))
    axis = axis_of(low, high, logarithmic=logarithmic)
    assert axis.low < axis.high
    assert list(axis.ticks) == sorted(set(axis.ticks))
    if not axis.logarithmic:
        slack = 1e-9 * max(abs(low), abs(high))
        assert axis.low <= low + slack
        assert axis.high >= high - slack
        assert len(axis.ticks) <= 9


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_the_step_axis_holds_the_newest_step_and_wastes_at_most_half(step: int, max_steps: int) -> None:
    limit = step_limit(step, max_steps)
    assert limit >= step
    assert limit <= max(2 * step, 32, 1)


def test_the_axis_of_a_finished_run_ends_at_its_last_step() -> None:
    assert step_limit(300, 300) == 300


def test_a_new_step_does_not_move_what_was_drawn() -> None:
    values = [3.0 - number / 60 for number in range(120)]
    before = text_of(
        line_chart(points_of(values[:100]), width=60, height=8, limit=120, marks=[(0, 3.5), (0, 0.0)])
    )
    after = text_of(line_chart(points_of(values), width=60, height=8, limit=120, marks=[(0, 3.5), (0, 0.0)]))
    for old, new in zip(before.splitlines(), after.splitlines(), strict=True):
        assert new.startswith(old.rstrip()[:48])


def test_one_spike_among_many_points_does_not_flatten_the_rest() -> None:
    values = [1.0 + math.sin(number / 10) / 2 for number in range(200)]
    values[100] = 1000.0
    assert text_of(line_chart(points_of(values), width=60, height=8, limit=200)).startswith("   1.5 ┤")


def test_a_falling_line_falls() -> None:
    picture = text_of(
        line_chart(points_of([float(10 - number) for number in range(10)]), width=40, height=6, limit=10)
    )
    dotted = [line for line in picture.splitlines() if any("\u2800" < dot < "\u28ff" for dot in line)]
    starts = [min(x for x, dot in enumerate(line) if "\u2800" < dot < "\u28ff") for line in dotted]
    assert starts == sorted(starts)
    assert len(set(starts)) > 2


def test_a_chart_without_a_value_is_empty() -> None:
    assert line_chart((), width=60, height=8, limit=10) == []


@given(VALUES, st.integers(1, 40), st.integers(1, 4))
def test_a_trend_fills_exactly_its_cells(values: list[float], width: int, height: int) -> None:
    rows = trend(points_of(values), width=width, height=height, limit=120)
    assert [row_width(row) for row in rows] == [width] * height


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.25, "0.25"),
        (2000, "2k"),
        (1.5e6, "1.5M"),
        (1e-5, "1e-5"),
        (2.5e-4, "2.5e-4"),
        (3e9, "3G"),
    ],
)
def test_labels_are_short(value: float, text: str) -> None:
    assert short_number(value) == text
