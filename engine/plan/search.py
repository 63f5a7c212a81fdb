"""Looks at the ways in which a machine can do a job: what fits, how fast it is, and what the others lack.

Of every way the largest micro batch that fits is taken, found by bisection because memory grows with it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from ..memory import estimate
from ..memory.verdict import place_verdict, shared_verdict, usable_bytes, verdict, worst
from ..memory.workload import workload_of
from ..specs.estimate import Estimate, Verdict
from ..specs.job import Job
from ..specs.machine import CPU, Device, Machine
from ..specs.model import ModelSpec
from ..specs.plan import Strategy
from ..specs.speed import Speed
from ..specs.workload import Stack, Workload
from ..speed import predict
from .choices import divisors

NEAR = 0.05
"""Speeds that differ by less are equal: predictions are not better than that, and the simpler way wins."""
_SIMPLE = {"single": 0, "ddp": 1, "zero": 2, "fsdp": 3}
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

    @property
    def pace(self) -> float:
        """Tokens per second; 0 when they are not known."""
        return self.speed.tokens_per_second if self.speed else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranking:
    """All ways that were looked at."""

    fitting: tuple[Option, ...]
    """The best first."""
    failing: tuple[Option, ...]
    """Each at its smallest micro batch; the one that misses by least first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What is asked: a job on some devices of a machine."""

    job: Job
    model: ModelSpec
    machine: Machine
    devices_for: Callable[[int], tuple[Device, ...]]
    """The devices that so many ranks would use; none: the CPU."""
    stack: Stack | None = None


def search(question: Question, ways: Iterable[Strategy]) -> Ranking:
    """Estimate and time every way, with the largest micro batch that fits.

    Args:
        question: The job, its model and the devices.
        ways: Ranks, engine, sharding, packing and checkpointing are decided in them; the micro batch is not.
            Packed weights are only looked at where memory is in the way of something.
    """
    given = list(ways)
    options = [_largest(question, way) for way in given if way.quantization == "none"]
    if not any(has_nothing_to_gain(option) for option in options):
        options += [_largest(question, way) for way in given if way.quantization != "none"]
    fitting = sorted((option for option in options if option.fits), key=lambda one: -one.pace)
    failing = sorted((option for option in options if not option.fits), key=_missing)
    return Ranking(fitting=tuple(_simplest_first(fitting)), failing=tuple(failing))


def has_nothing_to_gain(option: Option) -> bool:
    """Whether less memory would not make a way faster: nothing is recomputed, split or moved to fit."""
    strategy = option.strategy
    is_easy = not strategy.gradient_checkpointing and not strategy.splits_weights
    return option.fits and is_easy and strategy.offload_optimizer == "none"


def look(question: Question, strategy: Strategy) -> Option:
    """Estimate one strategy and say whether it fits."""
    found = estimate(workload(question, strategy))
    return Option(strategy=strategy, estimate=found, verdict=_judge(question, strategy, found))


def timed(question: Question, option: Option) -> Option:
    """Return an option with its predicted speed."""
    return replace(option, speed=predict(workload(question, option.strategy), question.machine))


def workload(question: Question, strategy: Strategy) -> Workload:
    """Return what a rank computes."""
    devices = question.devices_for(strategy.num_processes)
    return workload_of(question.job, question.model, strategy, stack=question.stack, devices=devices)


def _judge(question: Question, strategy: Strategy, found: Estimate) -> Verdict:
    """Say whether an estimate fits the fullest of the devices, and the host."""
    host, devices = question.machine.host, question.devices_for(strategy.num_processes)
    if strategy.device_kind == CPU or any(device.unified_memory for device in devices):
        ranks = strategy.ranks_per_node
        return shared_verdict(found, host.available_bytes, host.total_bytes, num_ranks=ranks)
    fullest = min(devices, key=lambda device: usable_bytes(device.free_bytes, device.total_bytes) or -1)
    of_device = verdict(found, fullest.free_bytes, fullest.total_bytes)
    return worst(of_device, place_verdict(found, "host", host.available_bytes))


def _largest(question: Question, way: Strategy) -> Option:
    """Return a way with the largest micro batch that fits, or with the smallest one where none does."""
    sizes = _micro_batches(question.job, way.num_processes)
    smallest = look(question, _sized(question.job, way, sizes[0]))
    if not smallest.fits:
        return smallest
    best, low, high = smallest, 0, len(sizes) - 1
    while low < high:
        middle = (low + high + 1) // 2
        option = look(question, _sized(question.job, way, sizes[middle]))
        if option.fits:
            best, low = option, middle
        else:
            high = middle - 1
    return timed(question, best)


def _micro_batches(job: Job, num_processes: int) -> list[int]:
    """Return what splits the global batch evenly, the smallest first; or the pinned one."""
    pinned = job.plan.micro_batch_size
    return [pinned] if pinned != "auto" else divisors(job.train.global_batch_size // num_processes)


def _sized(job: Job, way: Strategy, micro_batch: int) -> Strategy:
    times = job.train.global_batch_size // way.num_processes // micro_batch
    return replace(way, micro_batch_size=micro_batch, gradient_accumulation_steps=max(1, times))


def _missing(option: Option) -> int:
    return option.verdict.needed_bytes - (option.verdict.free_bytes or 0)


def _simplest_first(options: Sequence[Option]) -> list[Option]:
    """Put the simplest of the ways that are as fast as the fastest before it, and go on with the rest."""
    rest, ordered = list(options), []
    while rest:
        near = [option for option in rest if option.pace >= (1 - NEAR) * rest[0].pace]
        first = min(near, key=_moving_parts)
        ordered.append(first)
        rest.remove(first)
    return ordered


def _moving_parts(option: Option) -> tuple[int, ...]:
    strategy = option.strategy
    offloads = (strategy.offload_optimizer != "none") + (strategy.offload_parameters != "none")
    is_packed = strategy.quantization != "none"
    engine = _SIMPLE[strategy.backend]
    is_hybrid = strategy.shard_size is not None
    return (is_packed, offloads, engine, strategy.zero_stage, is_hybrid, not strategy.reshard_after_forward)
