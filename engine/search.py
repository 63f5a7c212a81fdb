"""Ranks the ways in which a machine can do a job: those that fit, the fastest first, and what others lack.

Pure. Every way is estimated and timed; of each the largest micro batch that fits is taken, found by bisection
because memory grows with it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from .memory import estimate
from .memory.verdict import place_verdict, shared_verdict, verdict, worst
from .memory.workload import workload_of
from .specs.estimate import Estimate, Verdict
from .specs.job import Job
from .specs.machine import CPU, Device, Machine
from .specs.model import ModelSpec
from .specs.plan import Strategy
from .specs.speed import Speed
from .specs.workload import Stack
from .speed import predict

NEAR = 0.05
"""Speeds that differ by less are equal: predictions are not better than that, and the simpler way wins."""
_SIMPLE = {"single": 0, "ddp": 1, "fsdp": 3, "zero": 2}
"""Fewest moving parts first: ZeRO 1 and 2 change no forward pass, FSDP and ZeRO-3 gather weights in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """One way, with what it takes and how fast it is."""

    strategy: Strategy
    estimate: Estimate
    verdict: Verdict
    speed: Speed | None = None

    @property
    def fits(self) -> bool:
        """Whether it fits with a margin."""
        return self.verdict.word == "fits"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranking:
    """All ways that were looked at."""

    fitting: tuple[Option, ...]
    """The best first."""
    failing: tuple[Option, ...]
    """Each at its smallest micro batch; the one that misses by least first."""

    @property
    def best(self) -> Option | None:
        """The way to take; ``None`` when nothing fits."""
        return self.fitting[0] if self.fitting else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What is asked: a job on some devices of a machine."""

    job: Job
    model: ModelSpec
    machine: Machine
    devices: tuple[Device, ...]
    """Those that would be used; none: the CPU."""
    stack: Stack | None = None


def search(question: Question, ways: Iterable[Strategy]) -> Ranking:
    """Estimate and time every way, with the largest micro batch that fits.

    Args:
        question: The job, its model and the devices.
        ways: Ranks, engine, sharding and checkpointing are decided in them; the micro batch is not.
    """
    options = [_largest(question, way) for way in ways]
    fitting = sorted((option for option in options if option.fits), key=_pace, reverse=True)
    failing = sorted((option for option in options if not option.fits), key=_missing)
    return Ranking(fitting=tuple(_simplest_first(fitting)), failing=tuple(failing))


def micro_batches(job: Job, num_processes: int) -> list[int]:
    """Return the micro batches that split the global batch evenly, the smallest first, or the pinned one."""
    pinned = job.plan.micro_batch_size
    if pinned != "auto":
        return [pinned]
    per_rank = job.train.global_batch_size // num_processes
    return divisors(per_rank)


def divisors(number: int) -> list[int]:
    """Return what divides a number, in order."""
    small = [size for size in range(1, int(number**0.5) + 1) if number % size == 0]
    return sorted({*small, *(number // size for size in small)})


def look(question: Question, strategy: Strategy) -> Option:
    """Estimate one strategy and say whether it fits."""
    workload = workload_of(
        question.job,
        question.model,
        strategy,
        stack=question.stack,
        device_name=question.devices[0].name if question.devices else None,
    )
    found = estimate(workload)
    return Option(strategy=strategy, estimate=found, verdict=judge(question, strategy, found))


def judge(question: Question, strategy: Strategy, found: Estimate) -> Verdict:
    """Say whether an estimate fits the fullest of the devices, and the host."""
    host = question.machine.host
    if strategy.device_kind == CPU or any(device.unified_memory for device in question.devices):
        return shared_verdict(found, host.available_bytes, host.total_bytes, num_ranks=strategy.num_processes)
    used = question.devices[: strategy.num_processes]
    of_devices = [verdict(found, device.free_bytes, device.total_bytes) for device in used]
    return worst(min(of_devices, key=_room), place_verdict(found, "host", host.available_bytes))


def _room(found: Verdict) -> int:
    return found.free_bytes if found.free_bytes is not None else -1


def _largest(question: Question, way: Strategy) -> Option:
    """Return a way with the largest micro batch that fits, or with the smallest one where none does."""
    sizes = micro_batches(question.job, way.num_processes)
    take = _taker(question, way)
    smallest = take(sizes[0])
    if not smallest.fits:
        return smallest
    best, low, high = smallest, 0, len(sizes) - 1
    while low < high:
        middle = (low + high + 1) // 2
        option = take(sizes[middle])
        if option.fits:
            best, low = option, middle
        else:
            high = middle - 1
    workload = workload_of(question.job, question.model, best.strategy, stack=question.stack)
    return replace(best, speed=predict(workload, question.machine))


def _taker(question: Question, way: Strategy) -> Callable[[int], Option]:
    per_rank = question.job.train.global_batch_size // way.num_processes

    def take(size: int) -> Option:
        strategy = replace(way, micro_batch_size=size, gradient_accumulation_steps=max(1, per_rank // size))
        return look(question, strategy)

    return take


def _pace(option: Option) -> float:
    return option.speed.tokens_per_second if option.speed else 0.0


def _missing(option: Option) -> float:
    free = option.verdict.free_bytes
    return option.verdict.needed_bytes - (free or 0)


def _simplest_first(options: Sequence[Option]) -> list[Option]:
    """Put the simplest of the ways that are as fast as the fastest before it, and go on with the rest."""
    rest, ordered = list(options), []
    while rest:
        near = [option for option in rest if _pace(option) >= (1 - NEAR) * _pace(rest[0])]
        first = min(near, key=_moving_parts)
        ordered.append(first)
        rest.remove(first)
    return ordered


def _moving_parts(option: Option) -> tuple[int, ...]:
    strategy = option.strategy
    offloads = (strategy.offload_optimizer != "none") + (strategy.offload_parameters != "none")
    return (offloads, _SIMPLE[strategy.backend], strategy.zero_stage, not strategy.reshard_after_forward)
