"""How long a training step will take, part by part."""

from dataclasses import dataclass
from typing import Literal

Hangs = Literal["device", "bus", "host"]
"""What a part's time hangs on. ``bus``: PCIe between devices; ``host``: its memory, CPUs, the way there."""
CAREFUL = 2.0
"""Times slower than assumed that the host may be. The same offload cost nothing on one machine and made
training "many times slower" on another (AnswerDotAI/fsdp_qlora, benchmarks_03_2024.md)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TimePart:
    """One line of a step's time. Parts of one kind of work that run beside each other count once."""

    name: str
    seconds: float
    """Of one optimizer step."""
    formula: str
    source: str
    hidden_seconds: float = 0.0
    """What of it runs beside computing and costs nothing."""
    hangs_on: Hangs = "device"


@dataclass(frozen=True, kw_only=True, slots=True)
class PastStep:
    """What an optimizer step of a run that is over was predicted to take, and took."""

    backend: str
    predicted_seconds: float
    """Without any correction, for as many tokens as there were. Above 0."""
    measured_seconds: float
    """Above 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Correction:
    """How much longer steps took here than they were predicted to."""

    factor: float
    """Times the prediction; above 0."""
    num_runs: int
    """Runs and probes that it is the median of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Predicted time of one optimizer step of all ranks."""

    parts: tuple[TimePart, ...]
    tokens_per_step: int
    """Of all ranks, padding included."""
    uncertainty: float
    """Nine of ten measurements lie within this factor, up or down."""
    basis: str
    """What the uncertainty rests on."""
    notes: tuple[str, ...] = ()
    correction: Correction | None = None
    """``None``: nothing comparable has run here."""

    @property
    def step_seconds(self) -> float:
        """Time of a step: what is not hidden of every part, as past runs correct it."""
        return self.uncorrected_seconds * (self.correction.factor if self.correction else 1.0)

    @property
    def uncorrected_seconds(self) -> float:
        """Time of a step by arithmetic alone."""
        return sum(part.seconds - part.hidden_seconds for part in self.parts)

    @property
    def careful_seconds(self) -> float:
        """Time of a step where the host gives half of what is assumed and nothing hides what it does."""
        seconds = sum(
            CAREFUL * part.seconds if part.hangs_on == "host" else part.seconds - part.hidden_seconds
            for part in self.parts
        )
        return seconds * (self.correction.factor if self.correction else 1.0)

    @property
    def tokens_per_second(self) -> float:
        """Tokens of all ranks in a second."""
        return self.tokens_per_step / self.step_seconds

    @property
    def slowest_part(self) -> TimePart:
        """What costs most of the step."""
        return max(self.parts, key=lambda part: part.seconds - part.hidden_seconds)

    @property
    def slowest_share(self) -> float:
        """Share of the step that ``slowest_part`` costs."""
        return (self.slowest_part.seconds - self.slowest_part.hidden_seconds) / self.uncorrected_seconds
