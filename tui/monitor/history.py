"""A metric over the steps in bounded memory: what a chart draws of it, however long the run."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

CAPACITY = 1024
LARGEST = 1e30


@dataclass(frozen=True, slots=True)
class Point:
    """What a metric did within the steps of one bucket."""

    step: int
    """Last step seen in the bucket."""
    low: float
    high: float
    smooth: float
    """Moving average at that step."""
    mean: float = 0.0
    num_values: int = 1


@dataclass(frozen=True, slots=True)
class Curve:
    """The points of one metric, by step."""

    points: tuple[Point, ...] = ()
    recent: tuple[Point, ...] = ()
    """The last values, each a point of its own: for looking closely at the end of a long run."""

    @property
    def latest(self) -> Point | None:
        """The newest point."""
        return self.points[-1] if self.points else None


EMPTY = Curve()


def smoothed(points: Sequence[Point], span: float) -> tuple[Point, ...]:
    """Return the points with a moving average that looks back ``span`` steps; none for 0.

    As in ``Series``: the weight of a value is 1 - exp(-steps / span).
    """
    out: list[Point] = []
    for point in points:
        last = out[-1] if out else None
        weight = 1.0 if last is None or span <= 0 else 1 - math.exp((last.step - point.step) / span)
        before = point.mean if last is None else last.smooth
        out.append(replace(point, smooth=before + weight * (point.mean - before)))
    return tuple(out)


class Series:
    """Collects one metric in buckets of equally many steps.

    Buckets double in width when there are too many, so old points never move between two doublings.

    Args:
        span: Steps that the moving average looks back, roughly.
        capacity: Most buckets that are kept.
    """

    def __init__(self, *, span: float = 20, capacity: int = CAPACITY) -> None:
        self._span = span
        self._capacity = capacity
        self._width = 1
        self._points: list[Point] = []
        self._recent: deque[Point] = deque(maxlen=capacity)

    @property
    def span(self) -> float:
        """Steps that the moving average looks back, roughly."""
        return self._span

    def add(self, step: int, value: float) -> None:
        """Take the value of one step. What is too large to draw, NaN and infinities leave a gap."""
        if not abs(value) < LARGEST or step < 0:
            return
        last = self._points[-1] if self._points else None
        # The time constant is in steps: a run that logs every tenth step is smoothed as one that logs all.
        weight = 1.0 if last is None else 1 - math.exp((last.step - step) / self._span)
        smooth = value if last is None else last.smooth + weight * (value - last.smooth)
        fresh = Point(step, value, value, smooth, value)
        self._recent.append(fresh)
        if last is not None and last.step // self._width == step // self._width:
            self._points[-1] = _joined(last, fresh)
            return
        self._points.append(fresh)
        while len(self._points) > self._capacity or step // self._width >= self._capacity:
            self._halve()

    def rewind(self, step: int) -> None:
        """Forget what came at ``step`` or later: the run went back to a checkpoint before it."""
        while self._points and self._points[-1].step >= step:
            self._points.pop()
        while self._recent and self._recent[-1].step >= step:
            self._recent.pop()

    def curve(self) -> Curve:
        """Return the points collected so far."""
        merged = self._width > 1
        return Curve(tuple(self._points), tuple(self._recent) if merged else ())

    def _halve(self) -> None:
        self._width *= 2
        merged: list[Point] = []
        for point in self._points:
            last = merged[-1] if merged else None
            if last is not None and last.step // self._width == point.step // self._width:
                merged[-1] = _joined(last, point)
            else:
                merged.append(point)
        self._points = merged


def _joined(one: Point, after: Point) -> Point:
    """Return the point that stands for the steps of both."""
    num_values = one.num_values + after.num_values
    mean = one.mean + (after.mean - one.mean) * after.num_values / num_values
    low, high = min(one.low, after.low), max(one.high, after.high)
    return Point(after.step, low, high, after.smooth, mean, num_values)
