"""What a rule over the events of a run is, and what rules share."""

from dataclasses import dataclass
from typing import Literal, Protocol

from ..specs.events import Event


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What a rule saw, with one change that would help."""

    level: Literal["info", "warning", "error"]
    code: str
    message: str


class Rule(Protocol):
    """One thing that can go wrong."""

    def feed(self, event: Event) -> Finding | None:
        """Take an event; return what is newly wrong."""


class Told:
    """Turns a condition into one word at its beginning, and none until it has been over."""

    def __init__(self, after: int = 1) -> None:
        self._after = after
        self._held = 0

    def now(self, *, holds: bool) -> bool:
        """Say whether this is the moment to speak: the condition holds for the given time in a row."""
        self._held = self._held + 1 if holds else 0
        return self._held == self._after
