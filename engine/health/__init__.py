"""Sees when a training goes wrong, from the events it leaves: pure, no clock, no file.

Every rule is one small class that is fed events and answers with alerts; a rule that has spoken is silent
until what it saw is over. Thresholds follow the statistics of the run itself: there is nothing to set.
"""

from ..specs.events import AlertEvent, CheckpointEvent, EvalEvent, Event, StepEvent
from .machine import DiskSpace, HostMemory, LostDevice, Throttled
from .rule import Rule
from .training import EXCESSES, NoRate, NotANumber, NothingLearned, Overfitting, RateJump, Spike, TooMuch


class Health:
    """All rules over the events of one run."""

    def __init__(self) -> None:
        self._rules: tuple[Rule, ...] = (
            NotANumber(),
            *(TooMuch(excess) for excess in EXCESSES),
            Spike(),
            NoRate(),
            RateJump(),
            NothingLearned(),
            Overfitting(),
            DiskSpace(),
            Throttled(),
            LostDevice(),
            HostMemory(),
        )

    def feed(self, event: Event) -> list[AlertEvent]:
        """Take an event of the run or of its devices, in the order they were written."""
        step = event.step if isinstance(event, StepEvent | EvalEvent | CheckpointEvent) else None
        found = [finding for rule in self._rules if (finding := rule.feed(event)) is not None]
        return [
            AlertEvent(t=event.t, level=one.level, code=one.code, message=one.message, step=step)
            for one in found
        ]
