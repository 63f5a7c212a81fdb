"""What a rule of the diagnosis is."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """Texts that name a cause: an error of a rank, an alert or a line of a log."""

    cause: str
    """A stable word for machines."""
    pattern: re.Pattern[str]
    message: str
    advice: str
    source: str
    """Where the texts come from that the pattern looks for."""
    command: str | None = None
    """What to type; ``{run}`` is the run's id."""
    is_consequence: bool = False
    """Other causes come first, also when only a line of a log tells of them."""


def any_of(*patterns: str, ignore_case: bool = False) -> re.Pattern[str]:
    """Return a pattern that finds any of several."""
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.IGNORECASE if ignore_case else 0)
