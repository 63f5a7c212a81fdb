import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftwiz.tui.monitor.history import Series

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300)


def collected(values: list[float], *, capacity: int = 16, stride: int = 1) -> Series:
    series = Series(capacity=capacity)
    for number, value in enumerate(values):
        series.add(number * stride, value)
    return series


@given(VALUES, st.integers(1, 7))
def test_however_long_a_run_the_points_are_few_and_in_order(values: list[float], stride: int) -> None:
    steps = [point.step for point in collected(values, stride=stride).curve().points]
    assert len(steps) <= 16
    assert steps == sorted(set(steps))
    assert steps[-1] == (len(values) - 1) * stride


@given(VALUES)
def test_no_spike_is_lost(values: list[float]) -> None:
    points = collected(values).curve().points
    assert min(point.low for point in points) == min(values)
    assert max(point.high for point in points) == max(values)
    assert all(point.low <= point.high for point in points)


@given(VALUES)
def test_points_stay_where_they_are_until_the_buckets_double(values: list[float]) -> None:
    before = collected(values[:-1]).curve().points
    after = collected(values).curve().points
    if len(after) > len(before):
        assert after[: len(before)] == before


@given(VALUES, st.integers(0, 300))
def test_going_back_forgets_what_came_later(values: list[float], step: int) -> None:
    series = collected(values)
    series.rewind(step)
    assert all(point.step < step for point in series.curve().points)
    series.add(step, 1.0)
    assert series.curve().points[-1].step == step


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_leaves_a_gap(value: float) -> None:
    series = collected([1.0, value, 3.0])
    assert [point.step for point in series.curve().points] == [0, 2]


def test_the_moving_average_follows_a_steady_value() -> None:
    points = collected([5.0] * 50).curve().points
    assert points[-1].smooth == pytest.approx(5.0)
