"""Whether an estimate fits into what is free: rather a needless "tight" than one false "fits". Pure.

``fits`` keeps a margin for what the estimate may be wrong by, so it depends on the tier. ``tight`` is inside
that margin. ``no`` is as certain as the estimate is, and says so in its numbers.
"""

import math

from ..specs.estimate import PHASES, Estimate, PhaseName, Place, Verdict

DRIVER_KEEPS_BYTES = 614 << 20
"""Most that the driver kept for itself on an idle card: ``Reserved`` of ``nvidia-smi -q`` in 13 recordings of
10 kinds of card, from 205 MiB (RTX 2080 Super) to 614 MiB (H200). Used where free memory is not known."""
GIB = 1 << 30


def usable_bytes(free_bytes: int | None, total_bytes: int | None) -> int | None:
    """Return what a new process can take: what is free now, or nearly all of a card known by its name."""
    if free_bytes is not None:
        return max(0, free_bytes)
    return None if total_bytes is None else max(0, total_bytes - DRIVER_KEEPS_BYTES)


def verdict(estimate: Estimate, free_bytes: int | None, total_bytes: int | None = None) -> Verdict:
    """Say whether a rank fits on its device.

    ``no`` counts what cannot be given back: tensors and the driver's part. The allocator returns what it only
    keeps (``reserved``) before it gives up (torch/csrc, CUDACachingAllocator), so that is part of the margin.

    Args:
        estimate: Of one rank.
        free_bytes: Free now on the fullest device that would be used; ``None``: not known.
        total_bytes: Its size.
    """
    phase = estimate.peak_phase
    least = estimate.allocated_bytes + estimate.phase_bytes(phase, "driver")
    return judge(
        least_bytes=least,
        likely_bytes=estimate.process_bytes,
        uncertainty=estimate.uncertainty,
        free_bytes=usable_bytes(free_bytes, total_bytes),
        what="device",
    )


def shared_verdict(
    estimate: Estimate, free_bytes: int | None, total_bytes: int | None = None, *, num_ranks: int = 1
) -> Verdict:
    """Say whether all ranks of a node fit where device and host are one memory: CPUs, Apple, Grace.

    Args:
        estimate: Of one rank; its host terms are those of all ranks of the node.
        free_bytes: Free now on the host; ``None``: not known.
        total_bytes: Size of that memory.
        num_ranks: Ranks that share it.
    """
    likely = max(_together(estimate, phase, num_ranks) for phase in PHASES)
    return judge(
        least_bytes=likely,
        likely_bytes=likely,
        uncertainty=estimate.uncertainty,
        free_bytes=usable_bytes(free_bytes, total_bytes),
        what="host",
    )


def place_verdict(estimate: Estimate, place: Place, free_bytes: int | None) -> Verdict:
    """Say whether what the ranks of a node take on the host or on the disk fits there."""
    likely = max(estimate.phase_bytes(phase, place) for phase in PHASES)
    return judge(
        least_bytes=likely,
        likely_bytes=likely,
        uncertainty=estimate.uncertainty,
        free_bytes=None if free_bytes is None else max(0, free_bytes),
        what=place,
    )


def worst(*verdicts: Verdict) -> Verdict:
    """Return the verdict that decides: the worst. Unknown counts only of the first."""
    order = ("no", "unknown", "tight", "fits")
    told = [found for found in verdicts[1:] if found.word != "unknown"]
    return min((verdicts[0], *told), key=lambda found: order.index(found.word))


def judge(
    *, least_bytes: int, likely_bytes: int, uncertainty: float, free_bytes: int | None, what: str
) -> Verdict:
    """Compare bytes with what is free.

    Args:
        least_bytes: Cannot be had for less, if the estimate is right.
        likely_bytes: What will be seen, if the estimate is right.
        uncertainty: Share of it that it may be wrong by. What is no such share makes the verdict unknown.
        free_bytes: ``None``: not known.
        what: ``device``, ``host``, ``disk``.
    """
    is_nothing = likely_bytes <= 0 and what == "device"
    if is_nothing or least_bytes < 0 or not math.isfinite(uncertainty) or uncertainty < 0:
        text = f"the estimate counts nothing or is not sure of itself: nothing can be said of the {what}"
        return Verdict(word="unknown", needed_bytes=max(0, likely_bytes), free_bytes=free_bytes, text=text)
    margin = math.ceil(likely_bytes * min(uncertainty, 1e6))
    needed = likely_bytes + margin
    sum_text = f"{gib(likely_bytes)} and a margin of {gib(margin)} for what the estimate may be wrong by"
    if free_bytes is None:
        text = f"needs {sum_text}; how much is free on the {what} is not known"
        return Verdict(word="unknown", needed_bytes=needed, free_bytes=None, text=text)
    if needed <= free_bytes:
        text = f"{sum_text}; {gib(free_bytes)} are free"
        return Verdict(word="fits", needed_bytes=needed, free_bytes=free_bytes, text=text)
    if least_bytes <= free_bytes:
        text = f"{sum_text}; only {gib(free_bytes)} are free, so it may run out of memory"
        return Verdict(word="tight", needed_bytes=needed, free_bytes=free_bytes, text=text)
    text = f"{gib(least_bytes)} at least, and {gib(free_bytes)} are free"
    return Verdict(word="no", needed_bytes=needed, free_bytes=free_bytes, text=text)


def _together(estimate: Estimate, phase: PhaseName, num_ranks: int) -> int:
    own = sum(estimate.phase_bytes(phase, place) for place in ("device", "reserved", "driver"))
    return own * num_ranks + estimate.phase_bytes(phase, "host")


def gib(num_bytes: int) -> str:
    """Return bytes as people say them: ``17.9 GiB``."""
    return f"{num_bytes / GIB:,.1f} GiB"
