"""Starts, watches, stops, resumes and diagnoses runs; owns every process of a run."""

from .adopt import tend
from .doors import (
    exit_code,
    leftovers,
    refuse_to_resume,
    request_stop,
    resume,
    start,
    status,
    supervise_here,
)
from .recover import replan

__all__ = [
    "exit_code",
    "leftovers",
    "refuse_to_resume",
    "replan",
    "request_stop",
    "resume",
    "start",
    "status",
    "supervise_here",
    "tend",
]
