"""Rules over what is logged: gradients, losses, rates, times."""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Literal

from ..specs.events import EvalEvent, Event, StateEvent, StepEvent
from .rule import Finding, Told

WINDOW = 50
"""Logged steps that a median is taken of."""
FEWEST = 10
"""Logged steps before anything is compared."""
FEWEST_LOSSES = 20
"""Losses of single batches differ more than norms and times do."""
FEWEST_EQUAL = 5
"""Logged steps whose losses are equal from the first one on."""
MAD_OF_SIGMA = 1.4826
"""Times the median absolute deviation is a standard deviation, of a normal distribution."""


class NotANumber:
    """Gradients that are no numbers. The loss itself is watched by the rank, before anything filters it."""

    def __init__(self) -> None:
        self._nan, self._infinite = Told(), Told(after=3)

    def feed(self, event: Event) -> Finding | None:
        """Take a step. Infinite gradients now and then are normal in fp16: the loss scale adapts."""
        if not isinstance(event, StepEvent) or event.grad_norm is None:
            return None
        is_nan = self._nan.now(holds=math.isnan(event.grad_norm))
        is_infinite = self._infinite.now(holds=math.isinf(event.grad_norm))
        if not (is_nan or is_infinite):
            return None
        return Finding(
            level="error",
            code="nan_gradient",
            message=f"the gradient is {event.grad_norm} at step {event.step}: "
            "lower train.learning_rate, or set plan.mixed_precision to bf16",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Excess:
    """A figure of a step that is far above its median: what it is, how far, for how long, and what helps."""

    code: str
    field: Literal["grad_norm", "step_seconds"]
    times: float
    least: float
    """Medians below it count as this: ten times nothing is nothing."""
    steps: int
    """Logged steps in a row."""
    text: str


EXCESSES = (
    Excess(
        code="gradient_explosion",
        field="grad_norm",
        times=20,
        least=1e-6,
        steps=2,
        text="the gradient's norm is {now:.3g} at step {step}, usually {usual:.3g}: "
        "lower train.learning_rate or train.max_grad_norm",
    ),
    Excess(
        code="slow_steps",
        field="step_seconds",
        times=3,
        least=0.0,
        steps=5,
        text="a step takes {now:.2f} s since five logged steps, before {usual:.2f} s: "
        "look for other programs on the devices, and for throttling",
    ),
)


class TooMuch:
    """One of ``EXCESSES``: what is far above is told, and not taken for usual."""

    def __init__(self, excess: Excess) -> None:
        self._excess = excess
        self._values: deque[float] = deque(maxlen=WINDOW)
        self._told = Told(after=excess.steps)

    def feed(self, event: Event) -> Finding | None:
        """Take a step."""
        value = getattr(event, self._excess.field) if isinstance(event, StepEvent) else None
        if not isinstance(event, StepEvent) or value is None or not math.isfinite(value):
            return None
        usual = median(self._values) if len(self._values) >= FEWEST else math.inf
        is_high = value > self._excess.times * max(usual, self._excess.least)
        if not is_high:
            self._values.append(value)
        if not self._told.now(holds=is_high):
            return None
        text = self._excess.text.format(now=value, step=event.step, usual=usual)
        return Finding(level="warning", code=self._excess.code, message=text)


class Spike:
    """A loss far above what it was: more than six deviations, and a third, for two logged steps of three."""

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._recent: deque[bool] = deque(maxlen=3)
        self._told = Told()

    def feed(self, event: Event) -> Finding | None:
        """Take a step."""
        if not isinstance(event, StepEvent) or not _is_finite(event.loss):
            return None
        assert event.loss is not None
        limit, usual = _limit(self._losses)
        is_high = event.loss > limit
        self._recent.append(is_high)
        if not is_high:
            self._losses.append(event.loss)
        if not self._told.now(holds=sum(self._recent) > 1):
            return None
        return Finding(
            level="warning",
            code="loss_spike",
            message=f"the loss is {event.loss:.3g} at step {event.step}, usually {usual:.3g}: look at the "
            "data around it; if it stays, resume from an earlier checkpoint with a lower learning rate",
        )


class NoRate:
    """A learning rate of zero long before the end: nothing is learned."""

    def __init__(self) -> None:
        self._told = Told(after=3)

    def feed(self, event: Event) -> Finding | None:
        """Take a step. The first step of a warm-up and the last of a schedule may have none."""
        if not isinstance(event, StepEvent) or event.learning_rate is None:
            return None
        is_early = event.step < 0.95 * event.max_steps
        if not self._told.now(holds=event.learning_rate == 0 and is_early):
            return None
        return Finding(
            level="warning",
            code="zero_learning_rate",
            message=f"the learning rate is 0 since before step {event.step} of {event.max_steps}: "
            "check train.learning_rate, train.lr_scheduler_type and train.warmup_steps",
        )


class RateJump:
    """A learning rate that does not go on where it was when the run was resumed."""

    def __init__(self) -> None:
        self._rates: deque[tuple[int, float]] = deque(maxlen=WINDOW)
        self._resumed = False

    def feed(self, event: Event) -> Finding | None:
        """Take a step, or the beginning of an attempt."""
        if isinstance(event, StateEvent) and event.state == "launching":
            self._resumed = bool(self._rates)
        if not isinstance(event, StepEvent) or not event.learning_rate:
            return None
        before = [rate for step, rate in self._rates if step <= event.step]
        self._rates.append((event.step, event.learning_rate))
        if not self._resumed or not before:
            return None
        self._resumed = False
        if 1 / 3 < event.learning_rate / before[-1] < 3:  # noqa: PLR2004 - warm-ups and ends change fast
            return None
        return Finding(
            level="warning",
            code="learning_rate_reset",
            message=f"the learning rate is {event.learning_rate:.3g} after resuming at step {event.step} "
            f"and was {before[-1]:.3g}: the scheduler's state was not restored",
        )


class NothingLearned:
    """A loss that is exactly zero, or never changes: no token is learned from."""

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=20)
        self._zero, self._flat = Told(after=3), Told()
        self._varies = False

    def feed(self, event: Event) -> Finding | None:
        """Take a step."""
        if not isinstance(event, StepEvent) or event.loss is None:
            return None
        self._losses.append(event.loss)
        if self._zero.now(holds=event.loss == 0):
            return Finding(
                level="error",
                code="no_supervised_tokens",
                message=f"the loss is exactly 0 up to step {event.step}: every token is masked; check "
                "train.assistant_only_loss, train.max_length and the chat template",
            )
        self._varies = self._varies or self._losses[0] != event.loss
        full = len(self._losses) == (self._losses.maxlen if self._varies else FEWEST_EQUAL)
        is_flat = full and event.loss != 0 and max(self._losses) - min(self._losses) <= 1e-6 * abs(event.loss)
        if not self._flat.now(holds=is_flat):
            return None
        return Finding(
            level="warning",
            code="flat_loss",
            message=f"the loss has not changed over {len(self._losses)} logged steps: "
            "no trained weight reaches it, or the learning rate is far too low",
        )


class Overfitting:
    """Held-out loss that rises at three evaluations in a row, a fifth above its best."""

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._told = Told()

    def feed(self, event: Event) -> Finding | None:
        """Take an evaluation."""
        if not isinstance(event, EvalEvent) or not _is_finite(event.loss):
            return None
        assert event.loss is not None
        self._losses.append(event.loss)
        last = self._losses[-4:]
        rises = len(last) == 4 and last == sorted(last) and last[-1] > 1.2 * min(self._losses)  # noqa: PLR2004
        if not self._told.now(holds=rises):
            return None
        return Finding(
            level="warning",
            code="overfitting",
            message=f"the held-out loss rises since three evaluations ({last[-1]:.3g}, best "
            f"{min(self._losses):.3g}): stop, or take an earlier checkpoint and fewer epochs",
        )


def _limit(losses: Iterable[float]) -> tuple[float, float]:
    """Return above what a loss is a spike, and what is usual."""
    known = list(losses)
    if len(known) < FEWEST_LOSSES:
        return math.inf, math.inf
    usual = median(known)
    deviation = MAD_OF_SIGMA * median(abs(loss - usual) for loss in known)
    return usual + max(6 * deviation, abs(usual) / 3, 1e-3), usual


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
