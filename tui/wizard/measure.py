"""The figures of a plan for either face: what memory is for, how many steps there are, how long they take."""

from math import ceil
from typing import Final

from ...engine.specs.estimate import Estimate
from ..text import count, duration
from .check import Review

GROUPS: Final = (
    ("weights", ("weights",), "$weights"),
    ("gradients", ("gradients",), "$gradients"),
    ("optimizer", ("optimizer",), "$optimizer"),
    ("activations", ("activations",), "$activations"),
    ("logits", ("logits", "buffers"), "$mark"),
    ("rest", ("overhead", "data", "checkpoints"), "$overhead"),
)
"""What a bar is made of: its name, the estimate's groups in it, its colour. ``logits`` has buffers too."""


def grouped(found: Estimate) -> list[tuple[str, int]]:
    """Return the bytes of one rank on its device at the peak, by what they are for."""
    sums: dict[str, int] = {}
    for place in ("device", "reserved", "driver"):
        for term in found.phase_terms(found.peak_phase, place):
            sums[term.group] = sums.get(term.group, 0) + term.num_bytes
    return [(name, sum(sums.get(group, 0) for group in groups)) for name, groups, _ in GROUPS]


def num_steps(review: Review) -> int | None:
    """Return the optimizer steps of a job, without packing; ``None`` when the rows are not counted."""
    job, data = review.job, review.data
    if job is None:
        return None
    if job.train.max_steps is not None:
        return job.train.max_steps
    if data is None or data.num_rows is None:
        return None
    rows = data.num_rows
    if not data.num_eval_rows:
        rows -= int(rows * job.data.eval_fraction)
    return ceil(rows * job.train.num_train_epochs / job.train.global_batch_size)


def speed_words(review: Review) -> str:
    """Return predicted tokens per second, and how long all steps would take at most."""
    speed = review.plan.speed if review.plan else None
    if speed is None:
        return "speed not known"
    words = f"about {count(speed.tokens_per_second)} tokens/s"
    steps = num_steps(review)
    if steps is None:
        return f"{words}, {duration(speed.step_seconds)} a step"
    return f"{words}, at most {duration(steps * speed.step_seconds)} for {count(steps)} steps"
