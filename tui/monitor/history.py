"""A metric over the steps in bounded memory: what a chart draws of it, however long the run."""

import math
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Curve:
    """The points of one metric, by step."""

    points: tuple[Point, ...] = ()

    @property
    def latest(self) -> Point | None:
        """The newest point."""
        return self.points[-1] if self.points else None


EMPTY = Curve()


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

    def add(self, step: int, value: float) -> None:
        """Take the value of one step. What is too large to draw, NaN and infinities leave a gap."""
        if not abs(value) < LARGEST or step < 0:
            return
        last = self._points[-1] if self._points else None
        # The time constant is in steps: a run that logs every tenth step is smoothed as one that logs all.
        weight = 1.0 if last is None else 1 - math.exp((last.step - step) / self._span)
        smooth = value if last is None else last.smooth + weight * (value - last.smooth)
        if last is not None and last.step // self._width == step // self._width:
            self._points[-1] = Point(step, min(last.low, value), max(last.high, value), smooth)
            return
        self._points.append(Point(step, value, value, smooth))
        while len(self._points) > self._capacity or step // self._width >= self._capacity:
            self._halve()

    def rewind(self, step: int) -> None:
        """Forget what came at ``step`` or later: the run went back to a checkpoint before it."""
        while self._points and self._points[-1].step >= step:
            self._points.pop()

    def curve(self) -> Curve:
        """Return the points collected so far."""
        return Curve(tuple(self._points))

    def _halve(self) -> None:
        self._width *= 2
        merged: list[Point] = []
        for point in self._points:
            last = merged[-1] if merged else None
            if last is not None and last.step // self._width == point.step // self._width:
                merged[-1] = Point(
                    point.step, min(last.low, point.low), max(last.high, point.high), point.smooth
                )
            else:
                merged.append(point)
        self._points = merged
