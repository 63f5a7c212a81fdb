"""The ways to do a job on a machine: each is planned for itself, and can be pinned."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ...engine.specs.job import PlanPins
from ..text import count, size
from .check import Checker, Review
from .state import Answers, settings_of, with_settings

DECIDED = (
    "backend", "zero_stage", "offload_optimizer", "offload_parameters", "reshard_after_forward", "shard_size",
    "state_dict", "num_processes",
)  # fmt: skip
"""Pins that make a way."""
WAYS: Mapping[str, Mapping[str, str]] = {
    "planned for this machine": {},
    "one device": {"backend": "single"},
    "ddp: the whole model on every device": {"backend": "ddp"},
    "zero 1: splits optimizer states": {"backend": "zero", "zero_stage": "1", "offload_optimizer": "none"},
    "zero 2: and gradients": {"backend": "zero", "zero_stage": "2", "offload_optimizer": "none"},
    "zero 2, optimizer in host memory": {"backend": "zero", "zero_stage": "2", "offload_optimizer": "cpu"},
    "zero 3: and weights": {
        "backend": "zero", "zero_stage": "3", "offload_optimizer": "none", "offload_parameters": "none",
    },
    "zero 3, all in host memory": {
        "backend": "zero", "zero_stage": "3", "offload_optimizer": "cpu", "offload_parameters": "cpu",
    },
    "fsdp: splits everything": {
        "backend": "fsdp", "reshard_after_forward": "true", "offload_parameters": "none",
    },
    "fsdp, gathered layers kept": {
        "backend": "fsdp", "reshard_after_forward": "false", "offload_parameters": "none",
    },
    "fsdp, all in host memory": {"backend": "fsdp", "offload_parameters": "cpu"},
}  # fmt: skip
"""What a way is called -> what it pins."""
_RANKS = {"fits": 0, "tight": 1, "unknown": 2}


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """One way, and what it would cost."""

    name: str
    answers: Answers
    review: Review
    figures: str
    """Memory, speed, and how it compares with what is planned."""
    reason: str
    """Why it is so, or why it cannot be."""
    can_be_taken: bool
    is_taken: bool


def ways(checker: Checker, answers: Answers) -> list[Way]:
    """Return every way: what would be planned, then the others that fit, the fastest first, then the rest."""
    found = [_way(checker, answers, name, pins) for name, pins in WAYS.items()]
    planned = found[0]
    others = [replace(way, figures=_compared(way, planned)) for way in found[1:]]
    return [planned, *sorted(others, key=_order)]


def _way(checker: Checker, answers: Answers, name: str, pins: Mapping[str, str]) -> Way:
    other = pinned(checker, answers, pins)
    review = checker.check(other)
    return Way(
        name=name,
        answers=other,
        review=review,
        figures=_figures(review),
        reason=_reason(review),
        can_be_taken=review.is_ready,
        is_taken=settings_of(other.settings) == settings_of(answers.settings),
    )


def pinned(checker: Checker, answers: Answers, pins: Mapping[str, str]) -> Answers:
    """Return the answers with a way's pins in the settings, and no others of its kind."""
    of_preset, free = checker.preset_pins, PlanPins()
    changes: dict[str, str | None] = {}
    for name in DECIDED:
        is_in_preset = getattr(of_preset, name) != getattr(free, name)
        changes[f"plan.{name}"] = pins.get(name, "auto" if is_in_preset else None)
    return replace(answers, settings=with_settings(answers.settings, changes))


def _figures(review: Review) -> str:
    plan = review.plan
    if plan is None:
        return ""
    needed = size(plan.estimate.process_bytes) if plan.estimate else "memory not known"
    speed = f", {count(plan.speed.tokens_per_second)} tokens/s" if plan.speed else ""
    return f"{needed}{speed}"


def _compared(way: Way, planned: Way) -> str:
    ours, theirs = way.review.plan, planned.review.plan
    if not way.can_be_taken or ours is None or theirs is None or not ours.speed or not theirs.speed:
        return way.figures
    ratio = ours.speed.tokens_per_second / theirs.speed.tokens_per_second
    return f"{way.figures} ({ratio:.2f} x)"


def _reason(review: Review) -> str:
    if review.plan_problem is not None:
        return review.plan_problem
    if review.plan is None:
        return next(iter(review.problems.values()), "")
    strategy = review.plan.strategy
    text = f"{strategy.backend}{strategy.zero_stage}" if strategy.backend == "zero" else strategy.backend
    ranks = f" on {strategy.num_processes}" if strategy.num_processes > 1 else ""
    recomputed = ", activations recomputed" if strategy.gradient_checkpointing else ""
    verdict = f"{review.plan.verdict.word}: " if review.plan.verdict else ""
    return f"{verdict}{text}{ranks}, {strategy.micro_batch_size} sequences at once{recomputed}"


def _order(way: Way) -> tuple[bool, int, float]:
    plan = way.review.plan
    verdict = plan.verdict.word if plan and plan.verdict else "unknown"
    pace = plan.speed.tokens_per_second if plan and plan.speed else 0.0
    return (not way.can_be_taken, _RANKS.get(verdict, 3), -pace)
