"""Tries a job before it is run: checks of everything that can fail, and short real runs that are measured."""

from .checks import Surroundings, best_estimate, check_job, look_at_findings
from .result import Level, Result
from .smoke import Comparison, Smoke, comparisons, results, smoke_test

__all__ = [
    "Comparison",
    "Level",
    "Result",
    "Smoke",
    "Surroundings",
    "best_estimate",
    "check_job",
    "comparisons",
    "look_at_findings",
    "results",
    "smoke_test",
]
