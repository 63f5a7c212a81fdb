"""Errors of many rows in a few figures."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

NEAR = 0.05
WIDE = 0.10


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """Shares, of the measured bytes. All but ``bias`` are of absolute errors."""

    num_rows: int
    median: float
    mean: float
    p90: float
    """Nine of ten rows are no farther off (nearest rank)."""
    worst: float
    bias: float
    """Median of the signed errors."""
    num_near: int
    """Rows within 5 %."""
    num_wide: int
    """Rows within 10 %."""


def figures(errors: Sequence[float]) -> Figures | None:
    """Return the figures of signed errors; ``None`` without any."""
    if not errors:
        return None
    sizes = sorted(map(abs, errors))
    return Figures(
        num_rows=len(sizes),
        median=statistics.median(sizes),
        mean=statistics.fmean(sizes),
        p90=sizes[math.ceil(0.9 * len(sizes)) - 1],
        worst=sizes[-1],
        bias=statistics.median(errors),
        num_near=sum(size <= NEAR for size in sizes),
        num_wide=sum(size <= WIDE for size in sizes),
    )
