"""Looks at the ways in which a machine can do a job: what fits, how fast it is, and what the others lack.

Of every way the largest micro batch that fits is taken, found by bisection because memory grows with it. Two
bounds leave out what cannot win before its activations are counted: states that do not fit alone, and a speed
that even the largest micro batch there is would not make good.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from ..memory import estimate, floor
from ..memory.host import DataVolume
from ..memory.verdict import place_verdict, shared_verdict, usable_bytes, verdict, worst
from ..memory.workload import workload_of
from ..specs.estimate import Estimate, Verdict
from ..specs.job import Job
from ..specs.machine import CPU, Device, Machine
from ..specs.model import ModelSpec
from ..specs.plan import Strategy
from ..specs.speed import PastStep, Speed
from ..specs.workload import Stack, Workload
from ..speed import GATHERING, alike, corrected, predict
from .choices import micro_batches

NEAR = 0.1
"""Speeds that differ by less are equal: the simpler way wins. Predictions of one machine's ways are hardly
better against each other (docs/planning.md)."""
_SIMPLE = {"single": 0, "ddp": 1, "zero": 2, "fsdp": 3}
"""Fewest moving parts first: ZeRO 1 and 2 change no forward pass, FSDP and ZeRO-3 gather weights in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """One way, with what it takes and how fast it is."""

    strategy: Strategy
    estimate: Estimate
    verdict: Verdict
    speed: Speed | None = None
    hangs_on_host: bool = False
    """It fits on the device, and how much is free on the host, where it puts something, is not known."""
    states_only: bool = False
    """The estimate holds no activations: the states alone do not fit."""
    is_of_host: bool = False
    """The verdict is the host's, not the device's."""
    lack: float = 0.0
    """Times that more is needed than is free, on device or host, whichever lacks more; 0: not known."""

    @property
    def fits(self) -> bool:
        """Whether it fits with a margin."""
        return self.verdict.word == "fits"

    @property
    def pace(self) -> float:
        """Tokens per second; 0 when they are not known."""
        return self.speed.tokens_per_second if self.speed else 0.0

    @property
    def merit(self) -> float:
        """What is ranked by."""
        return _merit(self.speed)


@dataclass(frozen=True, kw_only=True, slots=True)
class AtBest:
    """A way with the largest micro batch there is, which may not fit: none makes it faster.

    Fewer passes take the same operations and less of everything else.
    """

    strategy: Strategy
    speed: Speed | None

    @property
    def pace(self) -> float:
        """Tokens per second; 0 when they are not known."""
        return self.speed.tokens_per_second if self.speed else 0.0

    @property
    def merit(self) -> float:
        """What is ranked by."""
        return _merit(self.speed)


def _merit(speed: Speed | None) -> float:
    """Return tokens per second as the ranking counts them: careful where the host decides; 0: not known."""
    return speed.tokens_per_step / speed.careful_seconds if speed else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranking:
    """All ways that were looked at."""

    fitting: tuple[Option, ...]
    """The best first."""
    failing: tuple[Option, ...]
    """Each at its smallest micro batch; the one that misses by least first. Where something fits, those whose
    states alone do not fit are estimated by these alone."""
    slower: tuple[AtBest, ...] = ()
    """Not estimated, because they would not win at best; the fastest first. None where nothing fits."""
    num_candidates: int = 0
    """Ways times the micro batches that each could have."""


Measured = Callable[[Workload, Estimate], Estimate | None]
"""Workload and its estimate -> what was measured of it here; ``None`` where nobody measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What is asked: a job on some devices of a machine."""

    job: Job
    model: ModelSpec
    machine: Machine
    devices_for: Callable[[int], tuple[Device, ...]]
    """The devices that so many ranks would use; none: the CPU."""
    stack: Stack | None = None
    past: tuple[PastStep, ...] = ()
    """What steps on such devices were predicted to take, and took."""
    measured: Measured | None = None
    data: DataVolume | None = None


def search(question: Question, ways: Iterable[Strategy], *, exhaustive: bool = False) -> Ranking:
    """Estimate and time every way, with the largest micro batch that fits.

    Args:
        question: The job, its model and the devices.
        ways: Ranks, engine, sharding, packing and checkpointing are decided in them; the micro batch is not.
            Packed weights are only looked at where memory is in the way of something.
        exhaustive: Leave nothing out by bounds. The winner is the same.
    """
    given = list(ways)
    question = replace(question, past=_comparable(question, given))
    looked = _Looked(question, exhaustive=exhaustive)
    looked.at(way for way in given if way.quantization == "none")
    if looked.could_gain_by_packing():
        looked.at(way for way in given if way.quantization != "none")
    if not looked.fitting:
        looked.at_all_that_fail()
    return Ranking(
        fitting=tuple(looked.ranked()),
        failing=tuple(sorted(looked.failing, key=lambda option: option.lack)),
        slower=tuple(sorted(looked.slower, key=lambda one: -one.pace)),
        num_candidates=sum(len(_micro_batches(question.job, way.num_processes)) for way in given),
    )


def _comparable(question: Question, ways: Sequence[Strategy]) -> tuple[PastStep, ...]:
    """Return the past steps that say something about this job; the same for all of its ways."""
    if not question.past:
        return ()
    plain = replace(question, past=())
    hopes = [hope.speed for way in ways if (hope := _at_best(plain, way)).speed]
    return alike(question.past, min(speed.step_seconds for speed in hopes if speed)) if hopes else ()


class _Looked:
    """What is known so far; the fastest that fits decides what is still worth a look."""

    def __init__(self, question: Question, *, exhaustive: bool) -> None:
        self.question, self.exhaustive = question, exhaustive
        self.fitting: list[Option] = []
        self.failing: list[Option] = []
        self.slower: list[AtBest] = []

    def at(self, ways: Iterable[Strategy]) -> None:
        """Look at ways, the most promising first."""
        hopes = sorted((_at_best(self.question, way) for way in ways), key=lambda hope: -hope.merit)
        for hope in hopes:
            states = None if self.exhaustive else _states(self.question, hope.strategy)
            best = max((option.merit for option in self.fitting), default=0.0)
            if states is not None and states.verdict.word in {"no", "tight"}:
                self.failing.append(states)
            elif not self.exhaustive and hope.merit < (1 - NEAR) * best:
                self.slower.append(hope)
            else:
                option = _largest(self.question, hope.strategy)
                (self.fitting if option.fits else self.failing).append(option)

    def ranked(self) -> list[Option]:
        """Return what fits, the best first."""
        return simplest_first(self.fitting)

    def could_gain_by_packing(self) -> bool:
        """Whether packed weights could be faster, or the only ones that fit.

        On the CPU they are unpacked by the cores that compute, so there only memory speaks for them.
        """
        if self.fitting:
            best = self.ranked()[0]
            return best.strategy.device_kind != CPU and not has_nothing_to_gain(best)
        return all(
            option.strategy.device_kind != CPU or option.verdict.word != "unknown" for option in self.failing
        )

    def at_all_that_fail(self) -> None:
        """Count the activations too of what failed by its states alone."""
        self.failing = [
            option if option.hangs_on_host else look(self.question, option.strategy)
            for option in self.failing
        ]


def _at_best(question: Question, way: Strategy) -> AtBest:
    largest = _sized(question.job, way, _micro_batches(question.job, way.num_processes)[-1])
    return AtBest(strategy=largest, speed=_predicted(question, largest))


def has_nothing_to_gain(option: Option) -> bool:
    """Whether less memory would not make a way faster: nothing is recomputed, split or moved to fit."""
    strategy = option.strategy
    is_easy = not strategy.gradient_checkpointing and not strategy.splits_weights
    return option.fits and is_easy and strategy.offload_optimizer == "none"


def look(question: Question, strategy: Strategy) -> Option:
    """Estimate one strategy and say whether it fits."""
    asked = workload(question, strategy)
    modelled = estimate(asked, data=question.data)
    measured = question.measured(asked, modelled) if question.measured else None
    return _option(question, strategy, measured or modelled)


def _option(question: Question, strategy: Strategy, found: Estimate) -> Option:
    """Say whether an estimate fits the fullest of the devices, and the host.

    What lives on a host whose memory is not known may fit, and nobody can say that it does.
    """
    host, devices = question.machine.host, question.devices_for(strategy.num_processes)
    if strategy.device_kind == CPU or any(device.unified_memory for device in devices):
        ranks = strategy.ranks_per_node
        shared = shared_verdict(found, host.available_bytes, host.total_bytes, num_ranks=ranks)
        return Option(strategy=strategy, estimate=found, verdict=shared, lack=_lack(shared))
    fullest = min(devices, key=lambda device: usable_bytes(device.free_bytes, device.total_bytes) or -1)
    of_device = verdict(found, fullest.free_bytes, fullest.total_bytes)
    of_host = place_verdict(found, "host", usable_bytes(host.available_bytes, host.total_bytes))
    if of_host.word == "unknown" and strategy.num_offloads and of_device.word == "fits":
        of_host = replace(of_host, text=f"{of_device.text}; beside it the host {of_host.text}")
        return Option(strategy=strategy, estimate=found, verdict=of_host, hangs_on_host=True, is_of_host=True)
    decides = worst(of_device, of_host)
    lacks_more = decides.word == of_host.word and _lack(of_host) > _lack(of_device)
    is_of_host = decides.word != "fits" and (decides is of_host or lacks_more)
    return Option(
        strategy=strategy,
        estimate=found,
        verdict=of_host if is_of_host else of_device,
        is_of_host=is_of_host,
        lack=max(_lack(of_device), _lack(of_host)),
    )


def _lack(found: Verdict) -> float:
    return found.needed_bytes / found.free_bytes if found.free_bytes else 0.0


def timed(question: Question, option: Option) -> Option:
    """Return an option with its predicted speed."""
    return replace(option, speed=_predicted(question, option.strategy))


def _predicted(question: Question, strategy: Strategy) -> Speed | None:
    speed = predict(workload(question, strategy), question.machine)
    return None if speed is None else corrected(speed, strategy.backend, question.past)


def workload(question: Question, strategy: Strategy) -> Workload:
    """Return what a rank computes."""
    devices = question.devices_for(strategy.num_processes)
    return workload_of(question.job, question.model, strategy, stack=question.stack, devices=devices)


def _states(question: Question, way: Strategy) -> Option:
    """Return a way with what it holds whatever its micro batch is."""
    smallest = _sized(question.job, way, _micro_batches(question.job, way.num_processes)[0])
    return replace(_option(question, smallest, floor(workload(question, smallest))), states_only=True)


def _largest(question: Question, way: Strategy) -> Option:
    """Return a way with the largest micro batch that fits, or with the smallest one where none does."""
    sizes = _micro_batches(question.job, way.num_processes)
    best = look(question, _sized(question.job, way, sizes[0]))
    if not best.fits and not best.hangs_on_host:
        return best
    low, high = 0, len(sizes) - 1
    while low < high:
        middle = (low + high + 1) // 2
        option = look(question, _sized(question.job, way, sizes[middle]))
        if option.fits or option.hangs_on_host:
            best, low = option, middle
        else:
            high = middle - 1
    return timed(question, best)


def _micro_batches(job: Job, num_processes: int) -> list[int]:
    """Return what splits the global batch evenly, the smallest first; or the pinned one."""
    pinned = job.plan.micro_batch_size
    return [pinned] if pinned != "auto" else micro_batches(job, num_processes)


def _sized(job: Job, way: Strategy, micro_batch: int) -> Strategy:
    times = job.train.global_batch_size // way.num_processes // micro_batch
    return replace(way, micro_batch_size=micro_batch, gradient_accumulation_steps=max(1, times))


def simplest_first(options: Iterable[Option]) -> list[Option]:
    """Order by merit, and put the simplest of those that are as good as the best first; so all the way."""
    rest, ordered = sorted(options, key=lambda option: -option.merit), []
    while rest:
        near = [option for option in rest if option.merit >= (1 - NEAR) * rest[0].merit]
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
    parts = option.speed.parts if option.speed else ()
    gathers_over_bus = any(part.name == GATHERING and part.hangs_on == "bus" for part in parts)
    return (
        offloads,
        gathers_over_bus,
        is_packed,
        engine,
        strategy.zero_stage,
        is_hybrid,
        not strategy.reshard_after_forward,
    )
