"""A plan's decisions in sentences, with the numbers that they rest on."""

from collections.abc import Iterable
from dataclasses import replace

from ..memory.verdict import gib
from ..specs.job import Job
from ..specs.plan import Reason, Rejected, Strategy
from .choices import sharding_text
from .search import NEAR, AtBest, Option, Ranking


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
    does = "fits" if best.fits else "may fit"
    return Reason(
        about="backend", text=f"{text}: the fastest that {does}, and the simplest of the equally fast"
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
        fits = bool(ranking.fitting) or best.hangs_on_host
        why = "the most that fits with a margin" if fits else "the least there is"
    return Reason(about="micro_batch_size", text=f"{text}: {why}")


def fewer_ranks_reason(best: Option, num_ranks: int, others: Iterable[Option | AtBest]) -> Reason:
    """Say why ranks of fewer nodes were taken than there are."""
    ours = best.strategy.num_processes
    text = f"{ours} of {num_ranks} devices, on {_nodes(best.strategy)}"
    all_of_them = [other for other in others if other.strategy.num_processes == num_ranks and other.pace]
    if all_of_them and best.pace:
        ratio = best.pace / max(other.pace for other in all_of_them)
        text += f": {ratio:.1f} times as fast as all of them, which would talk over the network"
    return Reason(about="num_processes", text=text)


def _nodes(strategy: Strategy) -> str:
    return "one node" if strategy.num_nodes == 1 else f"{strategy.num_nodes} nodes"


def checkpointing_reason(best: Option, job: Job, others: Iterable[Option | AtBest]) -> Reason:
    """Say what recomputing activations saves or costs, by the way that differs in nothing else."""
    about = "gradient_checkpointing"
    if job.plan.gradient_checkpointing != "auto":
        return Reason(about=about, text="pinned in the job")
    wanted = _without_sizes(
        replace(best.strategy, gradient_checkpointing=not best.strategy.gradient_checkpointing)
    )
    twin = next((other for other in others if _without_sizes(other.strategy) == wanted), None)
    source = "Chen et al. 2016, arXiv 1604.06174"
    if isinstance(twin, Option) and not twin.fits and best.strategy.gradient_checkpointing:
        text = f"without it one sequence needs {gib(twin.verdict.needed_bytes)} with its margin"
        return Reason(about=about, text=text, source=source)
    if twin is None or not twin.pace:
        text = "without it nothing fits" if best.strategy.gradient_checkpointing else "not needed"
        return Reason(about=about, text=text, source=source)
    ratio = best.pace / twin.pace
    if best.strategy.gradient_checkpointing:
        ours, theirs = best.strategy.micro_batch_size, twin.strategy.micro_batch_size
        text = f"{ours} sequences at once in place of {theirs}: {ratio:.2f} times as fast"
        return Reason(about=about, text=text, source=source)
    return Reason(about=about, text=f"not needed, and {ratio:.2f} times as fast without", source=source)


def memory_reason(best: Option) -> Reason:
    """Say what the fullest device will hold."""
    words = {"no": "does not fit, and is planned all the same", "unknown": "not known whether it fits"}
    word = words.get(best.verdict.word, best.verdict.word)
    where = "the host: " if best.is_of_host and not best.hangs_on_host else ""
    return Reason(about="memory", text=f"{word}: {where}{best.verdict.text}", source=best.estimate.basis)


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
    text = (
        f"about {speed.tokens_per_second:,.0f} tokens/s, {speed.step_seconds:.3g} s a step, "
        f"{speed.slowest_share:.0%} of it {slowest.name}; right within a factor of {speed.uncertainty:g}"
    )
    if found := speed.correction:
        runs = "1 run" if found.num_runs == 1 else f"{found.num_runs} runs"
        text += f"; corrected by {runs} here, which took {found.factor:.2f} times what was predicted"
    assumed = [Reason(about="assumed", text=note) for note in speed.notes]
    return [Reason(about="speed", text=text, source=speed.basis), *assumed]


def rejections(best: Option, others: Iterable[Option], slower: Iterable[AtBest] = ()) -> list[Rejected]:
    """Say of every other engine and sharding, at its best, what speaks against it; alike ones together."""
    kept: dict[str, Option | AtBest] = {}
    every: list[Option | AtBest] = [*others, *slower]
    for other in every:
        name = label(other.strategy)
        # packing is told of in one line (packing.py)
        is_told = best.strategy.quantization == "none" and other.strategy.quantization != "none"
        if (
            name != label(best.strategy)
            and not is_told
            and (name not in kept or _is_better(other, kept[name]))
        ):
            kept[name] = other
    against: dict[str, list[str]] = {}
    for name, option in sorted(kept.items(), key=lambda item: _order(item[1]), reverse=True):
        against.setdefault(_against(option, best), []).append(name)
    return [Rejected(choice="; ".join(names), text=text) for text, names in against.items()]


def nothing_fits(nearest: Option, job: Job) -> str:
    """Say by how much the way that needs least misses."""
    strategy, found = nearest.strategy, nearest.verdict
    tokens = f"{strategy.micro_batch_size} x {job.train.max_length} tokens"
    ranks = "" if strategy.num_processes == 1 else f" on {strategy.num_processes} devices"
    who = ", and its host" if nearest.is_of_host else " and"
    return f"nothing fits: {label(strategy)}{ranks} with {tokens} comes nearest{who} needs {found.text}"


def _order(one: Option | AtBest) -> tuple[bool, bool, float, int]:
    """What fits before what could not win, the faster first, and last what misses by most."""
    is_known = isinstance(one, Option)
    missing = -one.verdict.needed_bytes if isinstance(one, Option) else 0
    return (is_known and one.fits, not is_known, one.pace, missing)  # type: ignore[union-attr]


def _is_better(one: Option | AtBest, other: Option | AtBest) -> bool:
    return _order(one) > _order(other)


def _against(option: Option | AtBest, best: Option) -> str:
    if isinstance(option, Option) and not option.fits:
        return _does_not_fit(option)
    does = "fits and is" if isinstance(option, Option) else "at best"
    if not option.pace or not best.pace:
        return "has more moving parts, and the speed of neither is known"
    if option.strategy.num_offloads and not best.strategy.num_offloads:
        return _needless_offload(option, best)
    ratio = best.pace / option.pace
    if ratio <= 1 + 2 * NEAR:
        return f"{does} as fast, with more moving parts"
    slowest = option.speed.slowest_part.name if option.speed else "unknown"
    return f"{does} {ratio:.1f} times slower: most of it {slowest}"


def _needless_offload(option: Option | AtBest, best: Option) -> str:
    ratio = option.pace / best.pace
    if ratio <= 1:
        return "not needed: it fits without, and is no slower so"
    return (
        f"perhaps {ratio:.1f} times as fast, and not if the host gives half of what is assumed; "
        "it fits without"
    )


def _does_not_fit(option: Option) -> str:
    found = option.verdict
    where = " on the host" if option.is_of_host else ""
    if found.free_bytes is None:
        return f"needs {gib(found.needed_bytes)}{where} with its margin; how much is free is not known"
    word = "may run out of memory" if found.word == "tight" else "does not fit"
    what = f"{gib(found.needed_bytes)}{where} with its margin"
    if option.states_only:
        word = "does not fit"
        what = f"weights, gradients and optimizer states alone take {what}"
    return f"{word}: {what}, {gib(found.free_bytes)} free"


def _without_sizes(strategy: Strategy) -> Strategy:
    return replace(strategy, micro_batch_size=1, gradient_accumulation_steps=1)
