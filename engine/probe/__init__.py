"""Tries a job before it is run: checks of everything that can fail, and short real runs that are measured."""

from .checks import Surroundings, best_estimate, check_job, look_at_findings
from .fit import Fit, Line, fit_of, probe_estimate
from .known import Known, known_here, known_of
from .result import Level, Result
from .smoke import Comparison, Smoke, comparisons, results, smoke_test

__all__ = [
    "Comparison",
    "Fit",
    "Known",
    "Level",
    "Line",
    "Result",
    "Smoke",
    "Surroundings",
    "best_estimate",
    "check_job",
    "comparisons",
    "fit_of",
    "known_here",
    "known_of",
    "look_at_findings",
    "probe_estimate",
    "results",
    "smoke_test",
]
