"""What the doctor says: one finding is what is the matter, how it is known, and what to do about it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from .patient import Patient


class Level(StrEnum):
    """How much a finding matters, from least to most."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing; nothing has to be done."""
    WARNING = "warning"
    """Training can work, and this will cost time, safety or a part of the machine."""
    ERROR = "error"
    """Training cannot work as long as this stands."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One line of the doctor's report. Values of secrets are never in it."""

    check: str = ""
    """Name of the check; the examination fills it in."""
    level: Level
    what: str
    evidence: str | None = None
    """What was read, and where."""
    advice: str | None = None
    command: str | None = None
    """A command line that does what the advice says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One small question. It may yield nothing, and may fail or hang without harm to the others."""

    name: str
    about: str
    """One line for the documentation."""
    look: Callable[[Patient], Iterable[Finding]]


def ok(what: str, evidence: str | None = None) -> Finding:
    """Return a finding that all is well."""
    return Finding(level=Level.OK, what=what, evidence=evidence)


def note(
    what: str, *, evidence: str | None = None, advice: str | None = None, command: str | None = None
) -> Finding:
    """Return a finding that is worth knowing."""
    return Finding(level=Level.NOTE, what=what, evidence=evidence, advice=advice, command=command)


def warning(
    what: str, *, evidence: str | None = None, advice: str | None = None, command: str | None = None
) -> Finding:
    """Return a finding that will cost something."""
    return Finding(level=Level.WARNING, what=what, evidence=evidence, advice=advice, command=command)


def error(
    what: str, *, evidence: str | None = None, advice: str | None = None, command: str | None = None
) -> Finding:
    """Return a finding with which training cannot work."""
    return Finding(level=Level.ERROR, what=what, evidence=evidence, advice=advice, command=command)
