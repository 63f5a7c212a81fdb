"""What a check says: one line, and what to do about it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from ..errors import FtwizError

GIB = 1 << 30


class Level(StrEnum):
    """How much a result matters, from least to most."""

    OK = "ok"
    WARNING = "warning"
    """The job can run; this may cost it something, or could not be found out."""
    PROBLEM = "problem"
    """The job will fail as long as this stands."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One line of ``ftwiz check``."""

    check: str
    """What was looked at: ``weights``, ``disk``."""
    level: Level
    what: str
    advice: str | None = None


def ok(check: str, what: str) -> Result:
    """Return a result that all is well."""
    return Result(check=check, level=Level.OK, what=what)


def warning(check: str, what: str, advice: str | None = None) -> Result:
    """Return a result that may cost something."""
    return Result(check=check, level=Level.WARNING, what=what, advice=advice)


def problem(check: str, what: str, advice: str | None = None) -> Result:
    """Return a result with which the job will fail."""
    return Result(check=check, level=Level.PROBLEM, what=what, advice=advice)


def guarded(check: str, look: Callable[[], Iterable[Result]]) -> Iterator[Result]:
    """Yield what a look finds; what it refuses is a problem, in its own words."""
    try:
        yield from look()
    except FtwizError as error:
        yield problem(check, error.message, error.hint)


def size(num_bytes: float | None) -> str:
    """Return bytes in GiB, or in MiB when that says more."""
    if num_bytes is None:
        return "n/a"
    gib = num_bytes / GIB
    return f"{gib:,.1f} GiB" if gib >= 1 else f"{gib * 1024:,.1f} MiB"
