"""The cheapest change that makes a job fit: found by trying, those that change the training least first."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ...engine.specs.job import Job, PlanPins
from ..text import size
from .check import Checker, Review
from .state import Answers, with_settings

LEAST_TOKENS = 128
SMALL_RANK = 16
FREE_PINS = frozenset({"device", "ignore_estimate", "quantization", "mixed_precision", "nvme_path"})
"""Pins that stay: they say where and how exactly it is computed, which is the user's to decide."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fix:
    """Other answers that fit."""

    words: str
    """What changes."""
    effect: str
    """What is needed then, and was needed before."""
    answers: Answers


def cheapest_fix(checker: Checker, answers: Answers, review: Review) -> Fix | None:
    """Return the first change that makes a job fit which does not; ``None`` when it fits or none is found.

    Args:
        checker: Knows the machine.
        answers: What does not fit.
        review: What they come to.
    """
    plan, job = review.plan, review.job
    if plan is None or plan.verdict is None or job is None or plan.verdict.word in {"fits", "unknown"}:
        return None
    for words, other in _changes(answers, job):
        found = checker.check(other)
        if found.is_ready and found.plan and found.plan.verdict and found.plan.verdict.word == "fits":
            needed = found.plan.verdict.needed_bytes
            effect = f"{size(needed)} in place of {size(plan.verdict.needed_bytes)}"
            return Fix(words=words, effect=effect, answers=other)
    return None


def _changes(answers: Answers, job: Job) -> Iterator[tuple[str, Answers]]:
    """Yield changes, the least first: what is planned, then the length, the rank, and the method."""
    unpinned, pins = _unpinned(answers, job)
    if pins:
        yield f"let {' and '.join(pins)} be planned", unpinned
    started = [("", answers), *([("planned freely, ", unpinned)] if pins else [])]
    shorter = [job.train.max_length // 2] if job.train.max_length // 2 >= LEAST_TOKENS else []
    for prefix, base in started:
        for length in shorter:
            yield f"{prefix}max_length {length}", _with(base, "train.max_length", length)
        if job.method.kind == "lora" and job.method.r > SMALL_RANK:
            yield f"{prefix}rank {SMALL_RANK}", _with(base, "method.r", SMALL_RANK)
    for prefix, base in started:
        yield from _lighter_methods(prefix, base)
    yield from _much_shorter(unpinned, job)


def _lighter_methods(prefix: str, base: Answers) -> Iterator[tuple[str, Answers]]:
    if base.method == "full":
        yield f"{prefix}lora in place of full", replace(base, method="lora")
    if base.method != "qlora":
        yield f"{prefix}qlora in place of {base.method}", replace(base, method="qlora")


def _much_shorter(base: Answers, job: Job) -> Iterator[tuple[str, Answers]]:
    length = job.train.max_length // 4
    while length >= LEAST_TOKENS:
        yield f"max_length {length}", _with(base, "train.max_length", length)
        yield (
            f"qlora and max_length {length}",
            _with(replace(base, method="qlora"), "train.max_length", length),
        )
        length //= 2


def _with(answers: Answers, key: str, value: int) -> Answers:
    return replace(answers, settings=with_settings(answers.settings, {key: str(value)}))


def _unpinned(answers: Answers, job: Job) -> tuple[Answers, list[str]]:
    """Return the answers with every pin that is in the way set to auto, and the names of these."""
    free = PlanPins()
    names = [
        f"plan.{name}"
        for name in PlanPins.model_fields
        if name not in FREE_PINS and getattr(job.plan, name) != getattr(free, name)
    ]
    settings = with_settings(answers.settings, dict.fromkeys(names, "auto"))
    return replace(answers, settings=settings), names
