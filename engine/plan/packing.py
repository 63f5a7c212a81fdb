"""Whether frozen weights are packed into fewer bits, what that saves, and what stays as it is."""

from collections.abc import Iterable

from ..backends.rules import PACKING_RULES
from ..errors import BadInput
from ..memory.quantized import exact_bytes
from ..memory.tensors import Part, elements, holdings
from ..memory.verdict import GIB, gib
from ..memory.workload import packing_of
from ..specs.job import Job
from ..specs.machine import Device
from ..specs.model import ModelSpec
from ..specs.plan import Packing, Reason, Rejected, Rule, Strategy
from ..specs.workload import DTYPE_BYTES
from .search import Option, Question, Ranking, workload

UNASKED: Packing = "nf4"
"""What is looked at where nothing is pinned: the least memory, and adapters on it lose little or nothing
(QLoRA, arXiv 2305.14314, section 4)."""
MIB = 1 << 20
BILLION = 1_000_000_000
WHY_NOT = "transformers 5.23, integrations/bitsandbytes.py: linear layers only, without the output layer"


def choose_packings(
    job: Job, devices: tuple[Device, ...]
) -> tuple[tuple[Packing, ...], tuple[Rejected, ...]]:
    """Return the packings that are looked at, and what cannot be had with the reason.

    Raises:
        BadInput: The pinned one is not possible.
    """
    pinned = job.plan.quantization
    if pinned != "auto":
        if rule := _broken(job, devices):
            hint = "change what does not fit, or set plan.quantization to none"
            raise BadInput(f"plan.quantization is {pinned}: {rule.text}", hint=hint)
        return (pinned,), ()
    if not job.method.adds_weights:
        return ("none",), ()
    asked = job.plan.model_copy(update={"quantization": UNASKED})
    if rule := _broken(job.model_copy(update={"plan": asked}), devices):
        return ("none",), (Rejected(choice=UNASKED, text=rule.text, source=rule.source),)
    return ("none", UNASKED), ()


def _broken(job: Job, devices: tuple[Device, ...]) -> Rule | None:
    return next((rule for rule in PACKING_RULES if rule.broken(job, devices)), None)


def is_worth_a_look(way: Strategy) -> bool:
    """Whether a way with packed weights is looked at unasked.

    What zero splits or moves is small there, and its stage 3 first reads the whole model onto each device.
    """
    return way.quantization == "none" or way.backend != "zero"


def pinned_reason(strategy: Strategy) -> list[Reason]:
    """Say that weights are packed, where nothing is known of them."""
    if strategy.quantization == "none":
        return []
    return [Reason(about="quantization", text="pinned in the job")]


def packing_reasons(question: Question, best: Option, ranking: Ranking) -> list[Reason]:
    """Say what packing saves and why it was taken, and how much of the model stays as it is."""
    strategy = best.strategy
    if strategy.quantization == "none":
        return []
    packed, plain, weight_bytes = _parts(question, strategy)
    how = packing_of(strategy)
    assert how is not None
    number = elements(packed)
    saved = f"{_size(exact_bytes(packed, how))} in place of {_size(number * weight_bytes)}"
    text = f"{strategy.quantization} packs {_count(number)} weights: {saved}"
    fused = sum(part.total for part in plain if _is_fused(part)) * weight_bytes
    stays = _size(elements(plain) * weight_bytes)
    what = "embeddings, output layer, norms"
    if fused:
        what = f"{_size(fused)} of it experts that are fused into one tensor; the rest {what}"
    return [
        Reason(about="quantization", text=f"{text}; {_why(best, question.job, ranking)}"),
        Reason(about="not packed", text=f"{stays} stay as they are: {what}", source=WHY_NOT),
    ]


def _parts(question: Question, strategy: Strategy) -> tuple[tuple[Part, ...], tuple[Part, ...], int]:
    work = workload(question, strategy)
    model: ModelSpec = work.model
    held = holdings(model, work.method, work.adapter, quantization=work.quantization)
    return held.packed, held.plain, DTYPE_BYTES[work.weights]


def _is_fused(part: Part) -> bool:
    return len(part.shape) == 3 and part.where == "block"  # noqa: PLR2004 - experts, out, in


def _why(best: Option, job: Job, ranking: Ranking) -> str:
    if job.plan.quantization != "auto":
        return "pinned in the job"
    whole = _first(ranking.fitting, packed=False)
    if whole is None:
        return "unpacked, nothing fits"
    if whole.strategy.num_offloads > best.strategy.num_offloads:
        return "unpacked, it fits only with offloading to the host"
    return (
        f"{best.pace / whole.pace:.2f} times as fast as the fastest way without" if whole.pace else "it fits"
    )


def against_packing(job: Job, devices: tuple[Device, ...], best: Option, ranking: Ranking) -> list[Rejected]:
    """Say what speaks against the best of the ways with packed weights, where another was taken."""
    if best.strategy.quantization != "none" or UNASKED not in choose_packings(job, devices)[0]:
        return []
    option = _first((*ranking.fitting, *ranking.failing), packed=True)
    if option is None:
        why = "not looked at: nothing is recomputed, split or moved to make it fit unpacked"
        return [Rejected(choice=UNASKED, text=why)]
    name = f"{option.strategy.quantization} ({option.strategy.backend})"
    if not option.fits:
        word = "fits no better" if option.hangs_on_host else "does not fit either"
        return [Rejected(choice=name, text=f"{word}: {option.verdict.text}")]
    saved = best.estimate.process_bytes - option.estimate.process_bytes
    ratio = option.pace / best.pace if best.pace else 0.0
    speed = f"{ratio:.2f} times as fast" if ratio else "no faster that is known"
    saves = f", holds {_size(saved)} less" if saved > 0 else ""
    text = f"not needed: {speed}{saves}, and packed weights are less exact"
    return [Rejected(choice=name, text=text, source="Dettmers et al. 2023, arXiv 2305.14314")]


def _first(options: Iterable[Option], *, packed: bool) -> Option | None:
    return next((option for option in options if (option.strategy.quantization != "none") == packed), None)


def _size(num_bytes: int) -> str:
    return gib(num_bytes) if num_bytes >= GIB // 10 else f"{num_bytes / MIB:,.2f} MiB"


def _count(number: int) -> str:
    return f"{number / BILLION:.1f} billion" if number >= BILLION // 10 else f"{number:,}"
