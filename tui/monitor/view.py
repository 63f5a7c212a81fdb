"""What the monitor knows of a run: values only; ``reduce`` makes them from events."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ...engine.specs.events import (
    AlertEvent,
    CheckpointEvent,
    DevicesEvent,
    EndEvent,
    EvalEvent,
    PeakEvent,
    RankEvent,
    StepEvent,
)
from ...engine.specs.run import RunRecord, RunState
from .history import EMPTY, Curve


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What the model answered at one step."""

    step: int
    text: str
    matches: bool | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One held-out prompt with the first answer and, once there is one, the newest."""

    index: int
    prompt: str
    reference: str | None
    before: Answer
    now: Answer | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line of the list of events. ``level`` is told by ``label`` too, not by colour alone."""

    t: float
    level: str
    """``info``, ``good``, ``warning`` or ``error``."""
    label: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """Something that the trainer logs under a name of its own: a reward, an accuracy, a KL divergence."""

    name: str
    value: float
    """The newest one; NaN and infinities too."""
    curve: Curve = EMPTY
    is_eval: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """The newest sample of one node's devices."""

    number: int
    sample: DevicesEvent


@dataclass(frozen=True, kw_only=True, slots=True)
class RunView:
    """A run as its events tell it so far."""

    latest: StepEvent | None = None
    loss: Curve = EMPTY
    speed: Curve = EMPTY
    learning_rate: Curve = EMPTY
    grad_norm: Curve = EMPTY
    step_time: Curve = EMPTY
    metrics: tuple[Metric, ...] = ()
    """What else the trainer logs, in the order in which it came."""
    step_seconds: float | None = None
    """Median of the last logged steps."""
    evals: tuple[EvalEvent, ...] = ()
    pairs: tuple[Pair, ...] = ()
    checkpoints: tuple[CheckpointEvent, ...] = ()
    ranks: tuple[RankEvent, ...] = ()
    peaks: Mapping[int, PeakEvent] = field(default_factory=dict)
    """By rank, the most memory that it held."""
    alerts: tuple[AlertEvent, ...] = ()
    lines: tuple[Line, ...] = ()
    num_alerts: int = 0
    broken_step: int | None = None
    """First step of the attempt whose loss was NaN or infinite."""
    end: EndEvent | None = None
    nodes: tuple[Node, ...] = ()
    last_t: float | None = None
    """Time of the newest event."""
    last_step_t: float | None = None
    """When the newest step was logged."""

    @property
    def devices(self) -> DevicesEvent | None:
        """The newest sample of the first node."""
        return self.nodes[0].sample if self.nodes else None

    @property
    def exact_match(self) -> tuple[float | None, float | None]:
        """Share of right answers at the first evaluation and at the newest one after it."""
        scores = [event.exact_match for event in self.evals if event.exact_match is not None]
        if not scores:
            scores = _shares(self.pairs)
        return (scores[0] if scores else None), (scores[-1] if len(scores) > 1 else None)

    @property
    def remaining_seconds(self) -> float | None:
        """Time that the steps left will take; saving and evaluating not counted."""
        if self.latest is None or self.step_seconds is None or self.end is not None:
            return None
        return max(0, self.latest.max_steps - self.latest.step) * self.step_seconds

    @property
    def final_loss(self) -> float | None:
        """The smoothed loss at the newest step; NaN once the loss broke."""
        if self.broken_step is not None:
            return math.nan
        newest = self.loss.latest
        return newest.smooth if newest else None


def _shares(pairs: tuple[Pair, ...]) -> list[float]:
    before = [pair.before.matches for pair in pairs if pair.before.matches is not None]
    now = [pair.now.matches for pair in pairs if pair.now and pair.now.matches is not None]
    return [sum(answers) / len(answers) for answers in (before, now) if answers]


@dataclass(frozen=True, kw_only=True, slots=True)
class Predicted:
    """What the plan expects a rank to take."""

    allocated_bytes: int | None = None
    process_bytes: int | None = None
    host_bytes: int | None = None
    tokens_per_second: float | None = None
    groups: Mapping[str, int] = field(default_factory=dict)
    """Bytes on a device at the peak, by what they are for: ``weights``, ``optimizer``, ..."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What was planned; unknown is ``None``."""

    backend: str | None = None
    device_kind: str | None = None
    num_processes: int | None = None
    model: str | None = None
    method: str | None = None
    stage: str | None = None
    command: str | None = None
    """The launch command, as one would type it."""
    flops_per_second: float | None = None
    """Of all ranks' devices together, dense bfloat16, by their makers."""
    predicted: Predicted | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """Another run's loss, drawn beside this one's."""

    id: str
    loss: Curve


@dataclass(frozen=True, kw_only=True, slots=True)
class Show:
    """How the viewer wants to see it."""

    paused: bool = False
    logarithmic: bool = False
    zoomed: bool = False
    readonly: bool = False
    smoothing: float | None = None
    """Steps that the average looks back, times the usual; 0 for none, ``None`` for the usual."""
    num_steps: int | None = None
    """Steps that the loss chart shows; all of them for ``None``."""
    last_step: int | None = None
    """Step at the right edge; the newest for ``None``."""
    has_colours: bool = True
    """Whether kinds can be told apart by colour."""
    filter: str = ""
    """Only log lines that contain it."""
    scroll: int = 0
    """Lines that the panel of the log is scrolled back by."""
    compared: Compared | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """Everything that one picture of the monitor is drawn from."""

    record: RunRecord
    view: RunView
    now: float
    folder: str
    facts: Facts = Facts()
    model: str | None = None
    """Path of the trained model, once it is there."""
    log: tuple[str, ...] = ()
    show: Show = Show()
    source: str = "ftwiz"
    """Who writes what is read: a trainer that ftwiz did not start, or a replay with its speed."""
    is_own: bool = True
    """Whether ftwiz started it, so that it can be asked to save or to stop."""

    @property
    def elapsed_seconds(self) -> float:
        """Time that all attempts together took."""
        now = (self.view.last_t or self.now) if self.record.state.is_over else self.now
        return sum(
            max(0.0, (attempt.ended_at or now) - attempt.started_at) for attempt in self.record.attempts
        )


def next_command(frame: Frame) -> str | None:
    """Return the command that goes on from here, if there is one."""
    record = frame.record
    if not frame.is_own:
        return None
    if record.diagnosis is not None and record.diagnosis.command:
        return record.diagnosis.command
    if record.state in {RunState.STOPPED, RunState.FAILED, RunState.LOST}:
        return f"ftwiz resume {record.id}" if record.resumable_from else f"ftwiz logs {record.id}"
    return None


def model_flops_utilization(frame: Frame) -> float | None:
    """Return the share of the devices' arithmetic that went into the model.

    6 operations per weight and token where the weight is trained, 4 where it is frozen and passed through
    (Chowdhery et al. 2022, PaLM, appendix B, without attention); against the makers' dense bfloat16 figures.
    """
    latest, ranks = frame.view.latest, frame.view.ranks
    peak = frame.facts.flops_per_second
    if latest is None or not latest.tokens_per_second or not ranks or not peak:
        return None
    trained, weights = ranks[0].num_trainable_parameters, ranks[0].num_parameters
    return (4 * weights + 2 * min(trained, weights)) * latest.tokens_per_second / peak
