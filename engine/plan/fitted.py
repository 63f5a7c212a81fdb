"""The plan for a model whose shape is known: all ways are estimated and timed, and the best is taken."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from ..backends import BACKENDS, Backend, visible_environment
from ..errors import BadInput, Refused
from ..memory.host import DataVolume
from ..memory.verdict import usable_bytes
from ..specs.job import Job
from ..specs.machine import CPU, Device, Machine
from ..specs.model import ModelSpec
from ..specs.plan import Plan, Precision, Reason, Rejected, Strategy
from ..specs.speed import PastStep
from ..specs.workload import Stack
from . import advice, words
from .choices import (
    broken_rule,
    check_engine_pins,
    check_split,
    choose_devices,
    choose_num_nodes,
    choose_num_processes,
    choose_precision,
    length_reasons,
    of_kind,
    usable_devices,
)
from .packing import against_packing, choose_packings, is_worth_a_look, packing_reasons
from .published import splittable
from .search import NEAR, Measured, Option, Question, Ranking, search, simplest_first, timed

SMALL_RANK = 256
"""Rank up to which an adapter on all linear layers is a few percent of a model."""
ON_CPU = frozenset({"single", "ddp"})
"""Engines that are looked at unasked without accelerators: sharding the memory of one host saves nothing."""


def fitted_plan(
    job: Job,
    model: ModelSpec,
    machine: Machine,
    *,
    stack: Stack | None = None,
    past: tuple[PastStep, ...] = (),
    measured: Measured | None = None,
    data: DataVolume | None = None,
) -> Plan:
    """Choose the fastest way that fits, the simplest among equals.

    Args:
        job: What the user wants and pins.
        model: Its shape, with its parameters.
        machine: What is in the box.
        stack: Versions of the training libraries; those that ftwiz is tested with when absent.
        past: What steps on such devices were predicted to take, and took; corrects the speed.
        measured: What probes and runs on such devices took stands in place of what is estimated.
        data: What is known of its size.

    Raises:
        BadInput: The pinned choices cannot be combined.
        Refused: The machine does not have what is pinned, or nothing fits; the hint says what would.
    """
    check_engine_pins(job.plan)
    seen = _look(job, model, machine, stack=stack, past=past, measured=measured, data=data)
    question, ranking = seen.question, seen.ranking
    best = ranking.fitting[0] if ranking.fitting else _nearest(question, ranking)
    if best is None and job.plan.ignore_estimate:
        best = timed(question, ranking.failing[0])
    if best is None:
        hint = advice.what_would_fit(job, machine, lambda other, box: _can_fit(other, model, box, stack))
        raise Refused(words.nothing_fits(ranking.failing[0], job), hint=hint)
    return _plan(seen, best)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """What was looked at, and what was not."""

    question: Question
    ranking: Ranking
    rejected: tuple[Rejected, ...]
    precision: Reason


def _look(
    job: Job,
    model: ModelSpec,
    machine: Machine,
    *,
    stack: Stack | None,
    past: tuple[PastStep, ...] = (),
    measured: Measured | None = None,
    data: DataVolume | None = None,
) -> _Seen:
    devices = usable_devices(job.plan, machine)
    unpacked = choose_packings(job, devices)[1]
    engines, broken = _engines(job, devices * machine.num_nodes)
    precision, reason = choose_precision(job.plan, _kind(devices), devices)
    asked = _question(job, model, machine, stack=stack)
    question = replace(asked, past=past, measured=measured, data=data)
    ways, whole = splittable(_ways(job, devices, engines, precision, num_nodes=machine.num_nodes), job, model)
    return _Seen(
        question=question,
        ranking=search(question, ways),
        rejected=(*_needless(engines, ways, devices), *whole, *broken, *unpacked),
        precision=reason,
    )


def _can_fit(job: Job, model: ModelSpec, machine: Machine, stack: Stack | None) -> bool:
    try:
        return bool(_look(job, model, machine, stack=stack).ranking.fitting)
    except (BadInput, Refused):
        return False


def _question(job: Job, model: ModelSpec, machine: Machine, *, stack: Stack | None) -> Question:
    devices = usable_devices(job.plan, machine)
    among = of_kind(machine, _kind(devices))

    def devices_for(count: int) -> tuple[Device, ...]:
        per_node = count // choose_num_nodes(count, devices, machine.num_nodes)
        return choose_devices(devices, per_node, among)[0] if devices else ()

    return Question(job=job, model=model, machine=machine, devices_for=devices_for, stack=stack)


def _kind(devices: tuple[Device, ...]) -> str:
    return devices[0].kind if devices else CPU


def _engines(job: Job, devices: tuple[Device, ...]) -> tuple[list[Backend], tuple[Rejected, ...]]:
    """Return the engines that can be used, and for the others the first rule that they break."""
    pinned = job.plan.backend
    usable, rejected = [], []
    for engine in BACKENDS:
        if pinned not in {"auto", engine.NAME} or (
            pinned == "auto" and not devices and engine.NAME not in ON_CPU
        ):
            continue
        rule = broken_rule(engine, job, devices)
        if rule is None:
            usable.append(engine)
        else:
            rejected.append(Rejected(choice=engine.NAME, text=rule.text, source=rule.source))
    return usable, tuple(rejected)


def _needless(
    engines: list[Backend], ways: list[Strategy], devices: tuple[Device, ...]
) -> Iterator[Rejected]:
    """Yield the engines that no way was looked at of, with the reason."""
    looked_at = {way.backend for way in ways}
    text = "one rank: there is nothing to split"
    if not devices:
        text = "one process uses all CPU cores already; ranks would only share them"
    for engine in engines:
        if engine.NAME not in looked_at:
            yield Rejected(choice=engine.NAME, text=text)


def _ways(
    job: Job, devices: tuple[Device, ...], engines: list[Backend], precision: Precision, *, num_nodes: int
) -> Iterator[Strategy]:
    """Yield every engine's strategies, with and without checkpointing and packed weights."""
    pins = job.plan
    pinned = pins.gradient_checkpointing
    packings = choose_packings(job, devices)[0]
    checkpointings = (False, True) if pinned == "auto" else (pinned,)
    for engine in engines:
        for ranks, checkpointing, packing in product(
            _ranks(job, engine, devices, num_nodes), checkpointings, packings
        ):
            base = Strategy(
                backend=engine.NAME,  # type: ignore[arg-type]
                device_kind=_kind(devices),
                num_processes=ranks,
                micro_batch_size=1,
                gradient_accumulation_steps=job.train.global_batch_size // ranks,
                gradient_checkpointing=checkpointing,
                mixed_precision=precision,
                quantization=packing,
                num_nodes=choose_num_nodes(ranks, devices, num_nodes),
            )
            for way in engine.strategies(base, pins):
                if _is_looked_at(way, job):
                    yield way


def _ranks(job: Job, engine: Backend, devices: tuple[Device, ...], num_nodes: int) -> Iterator[int]:
    """Yield how many ranks an engine could have: as many as there can be, and those of one of several nodes.

    A slow network can make the other nodes cost more than they bring.
    """
    ranks = choose_num_processes(job, engine.NAME, devices, num_nodes)[0]  # type: ignore[arg-type]
    shares_the_cpu = not devices and num_nodes == 1 and _is_free(job)
    if job.plan.backend == "auto" and engine.NAME == "ddp" and (ranks == 1 or shares_the_cpu):
        return
    check_split(job, ranks)
    yield ranks
    if job.plan.num_processes == "auto" and num_nodes > 1 and devices:
        of_one = choose_num_processes(job, engine.NAME, devices)[0]  # type: ignore[arg-type]
        if 1 < of_one < ranks and job.plan.shard_size in {"auto", of_one}:
            check_split(job, of_one)
            yield of_one


def _is_looked_at(way: Strategy, job: Job) -> bool:
    """Whether a way could be better than a simpler one, or is pinned."""
    does_something = way.num_processes > 1 or way.num_offloads > 0 or way.backend == "single"
    is_asked_for = job.plan.quantization != "auto" or is_worth_a_look(way)
    return (job.plan.backend != "auto" or does_something) and is_asked_for and not _moves_little(way, job)


def _moves_little(way: Strategy, job: Job) -> bool:
    """Whether a way moves an adapter's optimizer states unasked: they are small beside what else there is."""
    is_small = job.method.kind == "oft" or (job.method.kind == "lora" and job.method.r <= SMALL_RANK)
    moves = way.backend == "zero" and way.offload_optimizer != "none"
    return is_small and moves and job.plan.offload_optimizer == "auto"


def _is_free(job: Job) -> bool:
    """Whether nobody asks for several ranks: on the CPU one process uses all cores already."""
    return job.plan.num_processes in {"auto", 1}


def _nearest(question: Question, ranking: Ranking) -> Option | None:
    """Return the best of the ways that may fit.

    First those for which only the host's memory is not known, and of the equally fast the one that needs
    least of it; then those within the margin, then those of which nothing is known.
    """
    may = [option for option in ranking.failing if option.verdict.word in {"tight", "unknown"}]
    hanging = [option for option in may if option.hangs_on_host]
    tight = [option for option in may if option.verdict.word == "tight"]
    near = simplest_first([timed(question, option) for option in hanging or tight or may])
    if hanging:
        as_fast = [option for option in near if option.merit >= (1 - NEAR) * near[0].merit]
        return min(as_fast, key=lambda option: option.verdict.needed_bytes)
    return near[0] if near else None


def _plan(seen: _Seen, best: Option) -> Plan:
    question, ranking = seen.question, seen.ranking
    job, machine, strategy = question.job, question.machine, best.strategy
    devices = usable_devices(job.plan, machine)
    among = of_kind(machine, strategy.device_kind)
    chosen, device_reasons = choose_devices(devices, strategy.ranks_per_node, among) if devices else ((), [])
    others = [option for option in (*ranking.fitting, *ranking.failing) if option.strategy != strategy]
    ranks, ranks_reason = choose_num_processes(job, strategy.backend, devices, machine.num_nodes)
    if strategy.num_processes < ranks:
        ranks_reason = words.fewer_ranks_reason(best, ranks, (*others, *ranking.slower))
    reasons = [
        words.engine_reason(best, job),
        ranks_reason,
        *device_reasons,
        words.micro_batch_reason(best, job, ranking),
        words.checkpointing_reason(best, job, (*others, *ranking.slower)),
        seen.precision,
        *packing_reasons(question, best, ranking),
        words.memory_reason(best),
        *words.host_reasons(best, usable_bytes(machine.host.available_bytes, machine.host.total_bytes)),
        *words.speed_reasons(best),
        *length_reasons(job, question.model),
    ]
    return Plan(
        strategy=strategy,
        device_indices=tuple(device.index for device in chosen),
        environment=visible_environment(chosen, among),
        reasons=tuple(reasons),
        rejected=(
            *words.rejections(best, others, ranking.slower),
            *against_packing(job, devices, best, ranking),
            *seen.rejected,
        ),
        estimate=best.estimate,
        verdict=best.verdict,
        speed=best.speed,
    )
