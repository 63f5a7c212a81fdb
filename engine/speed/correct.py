"""What steps here really took, in place of what was predicted of them. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from ..specs.speed import Correction, PastStep, Speed

ALIKE = 10.0
"""Times that a step's prediction may differ from another's for the one to say something about the other: a
toy model waits for Python, a large one for its products."""
MOST = 20.0
"""Largest factor, up or down. What is further off was disturbed, or is not what was planned."""


def alike(past: Sequence[PastStep], step_seconds: float) -> tuple[PastStep, ...]:
    """Return the past steps that were predicted to take about as long as this one."""
    return tuple(one for one in past if 1 / ALIKE <= one.predicted_seconds / max(step_seconds, 1e-9) <= ALIKE)


def corrected(speed: Speed, backend: str, past: Sequence[PastStep]) -> Speed:
    """Return a prediction with the median ratio of measured to predicted of past steps on these devices.

    Steps of the same engine count; where there are none those of all, so that an engine that was never tried
    is not preferred because nobody knows what it lacks.

    Args:
        speed: As predicted.
        backend: The engine that it is for.
        past: Comparable steps on such devices (``alike``).
    """
    chosen = [one for one in past if one.backend == backend] or list(past)
    if not chosen:
        return speed
    factor = median(one.measured_seconds / one.predicted_seconds for one in chosen)
    factor = min(max(factor, 1 / MOST), MOST)
    return replace(speed, correction=Correction(factor=factor, num_runs=len(chosen)))
