"""How long a training step will take, part by part."""

from dataclasses import dataclass


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

    @property
    def step_seconds(self) -> float:
        """Time of a step: what is not hidden of every part."""
        return sum(part.seconds - part.hidden_seconds for part in self.parts)

    @property
    def tokens_per_second(self) -> float:
        """Tokens of all ranks in a second."""
        return self.tokens_per_step / self.step_seconds

    @property
    def slowest_part(self) -> TimePart:
        """What costs most of the step."""
        return max(self.parts, key=lambda part: part.seconds - part.hidden_seconds)
