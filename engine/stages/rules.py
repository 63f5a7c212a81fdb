"""What cannot be asked of a stage, with the reason. Pure."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ..specs.job import Job
from ..specs.section import Section
from . import kto, methods

READS: Mapping[str, frozenset[str]] = {
    "beta": frozenset({"dpo", "kto", "orpo", "simpo"}),
    "loss_type": frozenset({"dpo"}),
    "label_smoothing": frozenset({"dpo"}),
    "sft_weight": frozenset({"dpo", "simpo"}),
    "simpo_gamma": frozenset({"simpo"}),
    "desirable_weight": frozenset({"kto"}),
    "undesirable_weight": frozenset({"kto"}),
    "precompute_reference": frozenset({"dpo", "kto"}),
}
"""Keys of ``preference`` -> stages that read them."""
SAMPLING = frozenset({"grpo", "rloo"})
ONLY_GRPO = frozenset({"loss_type"})
"""Keys of ``rollout`` that rloo does not read."""
PACKING = frozenset({"pt", "sft"})
WHOLE_TEXTS = frozenset({"pt", "sft"})
"""Stages that can learn more than the answers."""
SMOOTHED = frozenset({"sigmoid", "robust", "exo_pair"})
"""Losses that know label smoothing: trl 1.16, dpo_trainer.py."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """A key that does not go with the others."""

    key: str
    """Dotted: ``preference.beta``."""
    text: str
    hint: str | None = None


def problems(job: Job) -> list[Problem]:
    """Return what contradicts the stage of a job, key by key; empty when nothing does."""
    return [problem for rule in RULES for problem in rule(job)]


def smallest_micro_batch(job: Job) -> int:
    """Return the fewest sequences that a rank can take at once."""
    return kto.SMALLEST_MICRO_BATCH if job.stage == kto.NAME else 1


def _changed(section: Section) -> list[str]:
    """The keys of a section that are not at their defaults."""
    return [
        name
        for name, info in type(section).model_fields.items()
        if getattr(section, name) != info.get_default(call_default_factory=True)
    ]


def _unread_preference(job: Job) -> Iterator[Problem]:
    for name in _changed(job.preference):
        if job.stage not in READS[name]:
            stages = ", ".join(sorted(READS[name]))
            text = f"stage {job.stage} does not read it; it belongs to {stages}"
            yield Problem(key=f"preference.{name}", text=text, hint="take it out, or change the stage")


def _unread_rollout(job: Job) -> Iterator[Problem]:
    for name in _changed(job.rollout):
        stages = SAMPLING - {"rloo"} if name in ONLY_GRPO else SAMPLING
        if job.stage not in stages:
            text = f"stage {job.stage} does not read it; it belongs to {' and '.join(sorted(stages))}"
            yield Problem(key=f"rollout.{name}", text=text, hint="take it out, or change the stage")


def _packs(job: Job) -> Iterator[Problem]:
    if job.train.packing and job.stage not in PACKING:
        text = f"stage {job.stage} cannot put several examples into one sequence"
        yield Problem(key="train.packing", text=text, hint="set it to false")


def _learns_questions(job: Job) -> Iterator[Problem]:
    if not job.train.assistant_only_loss and job.stage not in WHOLE_TEXTS:
        text = f"stage {job.stage} always learns from the answers only"
        yield Problem(key="train.assistant_only_loss", text=text, hint="take it out")


def _smooths(job: Job) -> Iterator[Problem]:
    loss, share = job.preference.loss_type, job.preference.label_smoothing
    if job.stage != "dpo":
        return
    if share and loss not in SMOOTHED:
        text = f"loss_type {loss} knows no smoothing; {', '.join(sorted(SMOOTHED))} do"
        yield Problem(key="preference.label_smoothing", text=text)
    if loss == "exo_pair" and not share:
        text = "must be above 0 with loss_type exo_pair, which takes its logarithm"
        yield Problem(key="preference.label_smoothing", text=text, hint="1e-3 is what its paper takes")


def _rewards(job: Job) -> Iterator[Problem]:
    chosen = job.rollout
    if job.stage not in SAMPLING:
        return
    num_rewards = len(chosen.reward_functions) + (chosen.reward_model is not None)
    if not num_rewards:
        text = f"stage {job.stage} needs rewards, and none are named"
        hint = "rollout.reward_functions: [rewards.py:mine], or rollout.reward_model (stage rm trains one)"
        yield Problem(key="rollout", text=text, hint=hint)
    if chosen.reward_weights is not None and len(chosen.reward_weights) != num_rewards:
        text = f"there are {num_rewards} rewards and {len(chosen.reward_weights)} weights"
        yield Problem(key="rollout.reward_weights", text=text, hint="the reward model's comes first")


def _groups(job: Job) -> Iterator[Problem]:
    chosen, train = job.rollout, job.train
    if job.stage not in SAMPLING:
        return
    if train.global_batch_size % chosen.num_generations:
        text = (
            f"{chosen.num_generations} answers to each prompt do not divide train.global_batch_size "
            f"{train.global_batch_size}, which counts answers"
        )
        hint = f"set train.global_batch_size to a multiple of {chosen.num_generations}"
        yield Problem(key="rollout.num_generations", text=text, hint=hint)
    if chosen.max_completion_length >= train.max_length:
        text = f"leaves no room for a prompt in train.max_length {train.max_length}"
        yield Problem(key="rollout.max_completion_length", text=text, hint="raise train.max_length")
    if job.stage == "rloo" and chosen.scale_rewards == "group":
        text = "rloo divides by the spread of the batch or by nothing"
        yield Problem(key="rollout.scale_rewards", text=text, hint="set it to batch, none or auto")


def _method(job: Job) -> Iterator[Problem]:
    for key, text, hint in methods.contradictions(job):
        yield Problem(key=key, text=text, hint=hint)


RULES: tuple[Callable[[Job], Iterator[Problem]], ...] = (
    _unread_preference,
    _unread_rollout,
    _packs,
    _learns_questions,
    _smooths,
    _rewards,
    _groups,
    _method,
)
