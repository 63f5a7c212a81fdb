"""A plan's decisions in sentences, with the numbers that they rest on."""

from collections.abc import Iterable
from dataclasses import replace

from ..memory.verdict import gib
from ..specs.job import Job
from ..specs.plan import Reason, Rejected, Strategy
from .choices import sharding_text
from .search import NEAR, Option, Ranking


def label(strategy: Strategy) -> str:
    """Name an engine with what it splits and moves: ``zero3``, ``fsdp, offloaded to cpu``."""
    name = strategy.backend
    text = f"{name}{strategy.zero_stage}" if name == "zero" else str(name)
    if name == "fsdp" and not strategy.reshard_after_forward:
        text += ", layers kept gathered"
    if strategy.shard_size is not None:
        text += f", a copy on every {strategy.shard_size} ranks"
    if strategy.quantization != "none":
        text += f", {strategy.quantization}"
    if strategy.offload_parameters != "none" and strategy.offload_optimizer == "none":
        return f"{text}, weights on {strategy.offload_parameters}"
    if strategy.offload_parameters != "none":
        return f"{text}, all on {strategy.offload_parameters}"
    if strategy.offload_optimizer != "none":
        return f"{text}, optimizer on {strategy.offload_optimizer}"
    return text


def engine_reason(best: Option, job: Job) -> Reason:
    """Say what the engine does with the state of training."""
    strategy = best.strategy
    plain = {
        "single": "one device holds everything"
        if strategy.device_kind != "cpu"
        else "one process on all CPU cores",
        "ddp": "every rank holds the whole model, and gradients are averaged",
    }
    text = plain.get(strategy.backend) or sharding_text(strategy)
    if job.plan.backend != "auto":
        return Reason(about="backend", text=f"pinned in the job: {text}")
    return Reason(
        about="backend", text=f"{text}: the fastest that fits, and the simplest of the equally fast"
    )


def micro_batch_reason(best: Option, job: Job, ranking: Ranking) -> Reason:
    """Say how the global batch is taken apart."""
    strategy = best.strategy
    times = strategy.gradient_accumulation_steps
    often = f", {times} times a step" if times > 1 else ""
    text = f"{strategy.micro_batch_size} x {job.train.max_length} tokens at once{often}"
    if job.plan.micro_batch_size != "auto":
        why = "pinned in the job"
    elif times == 1:
        why = "all of a rank's share"
    else:
        why = "the most that fits with a margin" if ranking.fitting else "the least there is"
    return Reason(about="micro_batch_size", text=f"{text}: {why}")


def checkpointing_reason(best: Option, job: Job, others: Iterable[Option]) -> Reason:
    """Say what recomputing activations saves or costs, by the way that differs in nothing else."""
    about = "gradient_checkpointing"
    if job.plan.gradient_checkpointing != "auto":
        return Reason(about=about, text="pinned in the job")
    wanted = _without_sizes(
        replace(best.strategy, gradient_checkpointing=not best.strategy.gradient_checkpointing)
    )
    twin = next((other for other in others if _without_sizes(other.strategy) == wanted), None)
    source = "Chen et al. 2016, arXiv 1604.06174"
    if twin is None or not twin.fits:
        needed = f"needs {gib(twin.verdict.needed_bytes)}" if twin else "does not fit"
        return Reason(about=about, text=f"without it one sequence {needed} with its margin", source=source)
    ratio = best.pace / twin.pace if twin.pace else 1.0
    if best.strategy.gradient_checkpointing:
        ours, theirs = best.strategy.micro_batch_size, twin.strategy.micro_batch_size
        text = f"{ours} sequences at once in place of {theirs}: {ratio:.2f} times as fast"
        return Reason(about=about, text=text, source=source)
    return Reason(about=about, text=f"not needed, and {ratio:.2f} times as fast without", source=source)


def memory_reason(best: Option) -> Reason:
    """Say what the fullest device will hold."""
    words = {"no": "does not fit, and is planned all the same", "unknown": "not known whether it fits"}
    word = words.get(best.verdict.word, best.verdict.word)
    return Reason(about="memory", text=f"{word}: {best.verdict.text}", source=best.estimate.basis)


def host_reasons(best: Option, available_bytes: int | None) -> list[Reason]:
    """Say what the host will hold, where that is much: with offload."""
    if not best.strategy.num_offloads:
        return []
    free = (
        "how much is free there is not known"
        if available_bytes is None
        else f"{gib(available_bytes)} are free"
    )
    return [Reason(about="host memory", text=f"needs {gib(best.estimate.host_bytes)}; {free}")]


def speed_reasons(best: Option) -> list[Reason]:
    """Say how fast it will be, and what was assumed."""
    speed = best.speed
    if speed is None:
        return []
    slowest = speed.slowest_part
    share = (slowest.seconds - slowest.hidden_seconds) / speed.step_seconds
    text = (
        f"about {speed.tokens_per_second:,.0f} tokens/s, {speed.step_seconds:.3g} s a step, "
        f"{share:.0%} of it {slowest.name}; right within a factor of {speed.uncertainty:g}"
    )
    assumed = [Reason(about="assumed", text=note) for note in speed.notes]
    return [Reason(about="speed", text=text, source=speed.basis), *assumed]


def rejections(best: Option, others: Iterable[Option]) -> list[Rejected]:
    """Say of every other engine and sharding, at its best, what speaks against it; alike ones together."""
    kept: dict[str, Option] = {}
    if best.strategy.quantization == "none":  # packing is told of in one line (packing.py)
        others = [other for other in others if other.strategy.quantization == "none"]
    for other in others:
        name = label(other.strategy)
        if name != label(best.strategy) and (name not in kept or _is_better(other, kept[name])):
            kept[name] = other
    if not best.strategy.num_offloads:
        kept = {
            name: option
            for name, option in kept.items()
            if not (option.fits and option.strategy.num_offloads)
        }
    ordered = sorted(
        kept.items(), key=lambda item: (not item[1].fits, -item[1].pace, item[1].verdict.needed_bytes)
    )
    against: dict[str, list[str]] = {}
    for name, option in ordered:
        against.setdefault(_against(option, best), []).append(name)
    return [Rejected(choice="; ".join(names), text=text) for text, names in against.items()]


def nothing_fits(nearest: Option, job: Job) -> str:
    """Say by how much the way that needs least misses."""
    strategy, found = nearest.strategy, nearest.verdict
    tokens = f"{strategy.micro_batch_size} x {job.train.max_length} tokens"
    ranks = "" if strategy.num_processes == 1 else f" on {strategy.num_processes} devices"
    return f"nothing fits: {label(strategy)}{ranks} with {tokens} comes nearest and needs {found.text}"


def _is_better(one: Option, other: Option) -> bool:
    return (one.fits, one.pace, -one.verdict.needed_bytes) > (
        other.fits,
        other.pace,
        -other.verdict.needed_bytes,
    )


def _against(option: Option, best: Option) -> str:
    found = option.verdict
    if not option.fits:
        if found.free_bytes is None:
            return f"needs {gib(found.needed_bytes)} with its margin, and how much is free is not known"
        word = "may run out of memory" if found.word == "tight" else "does not fit"
        return f"{word}: {gib(found.needed_bytes)} with its margin, {gib(found.free_bytes)} free"
    if not option.pace or not best.pace:
        return "fits, with more moving parts"
    ratio = best.pace / option.pace
    if ratio <= 1 + 2 * NEAR:
        return "fits and is as fast, with more moving parts"
    slowest = option.speed.slowest_part.name if option.speed else "unknown"
    return f"fits, and is {ratio:.1f} times slower: most of it {slowest}"


def _without_sizes(strategy: Strategy) -> Strategy:
    return replace(strategy, micro_batch_size=1, gradient_accumulation_steps=1)
