"""Events become a view, one after the other and in bounded memory; pure, without clock, file or screen."""

import math
from collections import deque
from collections.abc import Iterable, Mapping
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
    PeakEvent,
    RankEvent,
    SampleEvent,
    StateEvent,
    StepEvent,
)
from ..text import number, percent, size
from .history import Series
from .view import Answer, Line, Metric, Node, Pair, RunView

MAX_LINES = 400
MAX_PAIRS = 200
MAX_ALERTS = 50
MAX_METRICS = 64
MAX_EVALS = 512
_RECENT_STEPS = 50


@dataclass(slots=True)
class _Collected:
    """The growing parts of a history."""

    loss: Series
    speed: Series
    learning_rate: Series
    grad_norm: Series
    step_time: Series

    @classmethod
    def for_steps(cls, max_steps: int) -> "_Collected":
        span = min(100.0, max(2.0, max_steps / 100))
        return cls(
            loss=Series(span=span),
            speed=Series(span=span),
            learning_rate=Series(span=1),
            grad_norm=Series(span=span),
            step_time=Series(span=span),
        )

    def all(self) -> tuple[Series, ...]:
        return self.loss, self.speed, self.learning_rate, self.grad_norm, self.step_time


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
        self._nodes: dict[int, DevicesEvent] = {}
        self._named: dict[tuple[str, bool], Series] = {}
        self._newest: dict[tuple[str, bool], float] = {}
        self._peaks: dict[int, PeakEvent] = {}
        self._alerts: deque[AlertEvent] = deque(maxlen=MAX_ALERTS)
        self._last_step_t: float | None = None
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
            step_time=series.step_time.curve(),
            metrics=tuple(
                Metric(name=name, value=self._newest[name, is_eval], curve=named.curve(), is_eval=is_eval)
                for (name, is_eval), named in self._named.items()
            ),
            step_seconds=self.step_seconds,
            evals=tuple(self._evals[step] for step in sorted(self._evals)),
            pairs=tuple(self._pairs[index] for index in sorted(self._pairs)),
            checkpoints=tuple(self._checkpoints.values()),
            ranks=tuple(self._ranks[rank] for rank in sorted(self._ranks)),
            peaks=dict(self._peaks),
            alerts=tuple(self._alerts),
            lines=tuple(self._lines),
            num_alerts=self._num_alerts,
            broken_step=self._broken_step,
            end=self._end,
            nodes=tuple(Node(number=number, sample=self._nodes[number]) for number in sorted(self._nodes)),
            last_t=self._last_t,
            last_step_t=self._last_step_t,
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
        self._latest, self._last_step_t = event, event.t
        series = self._series
        self._take_metrics(event.step, event.metrics, is_eval=False)
        for values, value in (
            (series.loss, event.loss),
            (series.speed, event.tokens_per_second),
            (series.learning_rate, event.learning_rate),
            (series.grad_norm, event.grad_norm),
            (series.step_time, event.step_seconds),
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
        if len(self._evals) > MAX_EVALS:  # every other one, and always the first and the newest
            steps = sorted(self._evals)
            for step in steps[1:-1:2]:
                del self._evals[step]
        self._take_metrics(event.step, event.metrics, is_eval=True)
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
    def _(self, event: PeakEvent) -> None:
        known = self._peaks.get(event.rank)
        if known is None or (event.allocated_bytes or 0) >= (known.allocated_bytes or 0):
            self._peaks[event.rank] = event

    @_take.register
    def _(self, event: AlertEvent) -> None:
        self._num_alerts += event.level != "info"
        self._alerts.append(event)
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
            self._peaks.clear()
        level = {"finished": "good", "failed": "error", "lost": "error", "stopped": "warning"}
        said = event.reason or ""
        text = said if said.startswith(event.state) else f"{event.state}  {said}".rstrip()
        self._say(event.t, level.get(event.state, "info"), "state", text)

    @_take.register
    def _(self, event: EndEvent) -> None:
        self._end = event

    @_take.register
    def _(self, event: DevicesEvent) -> None:
        self.feed_devices(0, event)

    def feed_devices(self, node: int, event: DevicesEvent) -> None:
        """Take the newest sample of one node."""
        self._nodes[node] = event

    def _take_metrics(self, step: int, metrics: Mapping[str, float], *, is_eval: bool) -> None:
        for name, value in metrics.items():
            key = name, is_eval
            if key not in self._named and len(self._named) >= MAX_METRICS:
                continue
            self._named.setdefault(key, Series(span=self._series.loss.span)).add(step, value)
            self._newest[key] = value

    def _rewind(self, step: int) -> None:
        for series in (*self._series.all(), *self._named.values()):
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
