"""What the monitor knows of a run: reduced from events, pure, without clock, file or screen."""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import singledispatchmethod
from statistics import median

from ...engine.specs.events import (
    AlertEvent,
    CheckpointEvent,
    DevicesEvent,
    EndEvent,
    EvalEvent,
    Event,
    LogEvent,
    RankEvent,
    SampleEvent,
    StateEvent,
    StepEvent,
)
from ...engine.specs.run import RunRecord, RunState
from ..text import number, percent, size
from .history import EMPTY, Curve, Series

MAX_LINES = 200
MAX_PAIRS = 200
_RECENT_STEPS = 50


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
class RunView:
    """A run as its events tell it so far."""

    latest: StepEvent | None = None
    loss: Curve = EMPTY
    speed: Curve = EMPTY
    learning_rate: Curve = EMPTY
    grad_norm: Curve = EMPTY
    step_seconds: float | None = None
    """Median of the last logged steps."""
    evals: tuple[EvalEvent, ...] = ()
    pairs: tuple[Pair, ...] = ()
    checkpoints: tuple[CheckpointEvent, ...] = ()
    ranks: tuple[RankEvent, ...] = ()
    lines: tuple[Line, ...] = ()
    num_alerts: int = 0
    broken_step: int | None = None
    """First step of the attempt whose loss was NaN or infinite."""
    end: EndEvent | None = None
    devices: DevicesEvent | None = None
    last_t: float | None = None
    """Time of the newest event."""

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
class Facts:
    """What was planned, for the header; unknown is ``None``."""

    backend: str | None = None
    device_kind: str | None = None
    num_processes: int | None = None


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
    paused: bool = False
    logarithmic: bool = False
    zoomed: bool = False
    readonly: bool = False

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
    if record.diagnosis is not None and record.diagnosis.command:
        return record.diagnosis.command
    if record.state in {RunState.STOPPED, RunState.FAILED, RunState.LOST}:
        return f"ftwiz resume {record.id}" if record.resumable_from else f"ftwiz logs {record.id}"
    return None


@dataclass(slots=True)
class _Collected:
    """The growing parts of a history."""

    loss: Series
    speed: Series
    learning_rate: Series
    grad_norm: Series

    @classmethod
    def for_steps(cls, max_steps: int) -> "_Collected":
        span = min(100.0, max(2.0, max_steps / 100))
        return cls(
            loss=Series(span=span),
            speed=Series(span=span),
            learning_rate=Series(span=1),
            grad_norm=Series(span=span),
        )

    def all(self) -> tuple[Series, ...]:
        return self.loss, self.speed, self.learning_rate, self.grad_norm


class History:
    """Takes events one after another and gives a ``RunView`` at any time.

    A step that was seen before (the run was resumed from a checkpoint) replaces it and all after it.
    """

    def __init__(self) -> None:
        self._series = _Collected.for_steps(1)
        self._latest: StepEvent | None = None
        self._step_seconds: deque[float] = deque(maxlen=_RECENT_STEPS)
        self._evals: dict[int, EvalEvent] = {}
        self._pairs: dict[int, Pair] = {}
        self._checkpoints: dict[int, CheckpointEvent] = {}
        self._ranks: dict[int, RankEvent] = {}
        self._lines: deque[Line] = deque(maxlen=MAX_LINES)
        self._num_alerts = 0
        self._broken_step: int | None = None
        self._end: EndEvent | None = None
        self._devices: DevicesEvent | None = None
        self._last_t: float | None = None
        self._num_lines = 0

    @property
    def step_seconds(self) -> float | None:
        """Median of the last logged steps."""
        return median(self._step_seconds) if self._step_seconds else None

    @property
    def num_lines(self) -> int:
        """Lines told so far, also those that are no longer kept."""
        return self._num_lines

    @property
    def newest_line(self) -> Line:
        """The line told last."""
        return self._lines[-1]

    def feed(self, events: Iterable[Event]) -> "History":
        """Take events in the order of the log; returns itself."""
        for event in events:
            self._last_t = event.t
            self._take(event)
        return self

    def view(self) -> RunView:
        """Return what is known now."""
        series = self._series
        return RunView(
            latest=self._latest,
            loss=series.loss.curve(),
            speed=series.speed.curve(),
            learning_rate=series.learning_rate.curve(),
            grad_norm=series.grad_norm.curve(),
            step_seconds=self.step_seconds,
            evals=tuple(self._evals[step] for step in sorted(self._evals)),
            pairs=tuple(self._pairs[index] for index in sorted(self._pairs)),
            checkpoints=tuple(self._checkpoints.values()),
            ranks=tuple(self._ranks[rank] for rank in sorted(self._ranks)),
            lines=tuple(self._lines),
            num_alerts=self._num_alerts,
            broken_step=self._broken_step,
            end=self._end,
            devices=self._devices,
            last_t=self._last_t,
        )

    @singledispatchmethod
    def _take(self, event: Event) -> None:
        """Kinds that a screen does not need are passed over."""

    @_take.register
    def _(self, event: StepEvent) -> None:
        if self._latest is None:
            self._series = _Collected.for_steps(event.max_steps)
        elif event.step <= self._latest.step:
            self._rewind(event.step)
        self._latest = event
        series = self._series
        for values, value in (
            (series.loss, event.loss),
            (series.speed, event.tokens_per_second),
            (series.learning_rate, event.learning_rate),
            (series.grad_norm, event.grad_norm),
        ):
            if value is not None:
                values.add(event.step, value)
        if event.step_seconds is not None and math.isfinite(event.step_seconds):
            self._step_seconds.append(event.step_seconds)
        if self._broken_step is None and event.loss is not None and not math.isfinite(event.loss):
            self._broken_step = event.step
            self._say(event.t, "error", "loss", f"is {number(event.loss)} at step {event.step}")

    @_take.register
    def _(self, event: EvalEvent) -> None:
        self._evals[event.step] = event
        parts = [f"step {event.step}"]
        if event.loss is not None:
            parts.append(f"loss {number(event.loss)}")
        if event.exact_match is not None:
            parts.append(f"exact match {percent(event.exact_match)}")
        self._say(event.t, "info", "eval", "  ".join(parts))

    @_take.register
    def _(self, event: SampleEvent) -> None:
        answer = Answer(step=event.step, text=event.completion, matches=event.matches)
        known = self._pairs.get(event.index)
        if known is None and len(self._pairs) >= MAX_PAIRS:
            return
        first = known is None or event.step <= known.before.step
        before, now = (
            (answer, known.now if known else None) if first or known is None else (known.before, answer)
        )
        self._pairs[event.index] = Pair(
            index=event.index, prompt=event.prompt, reference=event.reference, before=before, now=now
        )

    @_take.register
    def _(self, event: CheckpointEvent) -> None:
        self._checkpoints.pop(event.step, None)
        self._checkpoints[event.step] = event
        self._say(event.t, "good", "saved", f"{event.path}  {size(event.size_bytes)}")

    @_take.register
    def _(self, event: RankEvent) -> None:
        self._ranks[event.rank] = event

    @_take.register
    def _(self, event: AlertEvent) -> None:
        self._num_alerts += event.level != "info"
        at = "" if event.step is None else f"  (step {event.step})"
        self._say(event.t, event.level, "note" if event.level == "info" else event.level, event.message + at)

    @_take.register
    def _(self, event: LogEvent) -> None:
        self._say(event.t, "info", "log", event.message)

    @_take.register
    def _(self, event: StateEvent) -> None:
        if event.state == "launching":
            self._end, self._broken_step = None, None
            self._ranks.clear()
        level = {"finished": "good", "failed": "error", "lost": "error", "stopped": "warning"}
        said = event.reason or ""
        text = said if said.startswith(event.state) else f"{event.state}  {said}".rstrip()
        self._say(event.t, level.get(event.state, "info"), "state", text)

    @_take.register
    def _(self, event: EndEvent) -> None:
        self._end = event

    @_take.register
    def _(self, event: DevicesEvent) -> None:
        self._devices = event

    def _rewind(self, step: int) -> None:
        for series in self._series.all():
            series.rewind(step)
        self._step_seconds.clear()
        self._evals = {at: event for at, event in self._evals.items() if at < step}
        for index, pair in self._pairs.items():
            if pair.now is not None and pair.now.step >= step:
                self._pairs[index] = Pair(
                    index=index, prompt=pair.prompt, reference=pair.reference, before=pair.before
                )

    def _say(self, t: float, level: str, label: str, text: str) -> None:
        self._num_lines += 1
        self._lines.append(Line(t=t, level=level, label=label, text=text))
