"""Starts, watches, stops, resumes and diagnoses runs; owns every process of a run."""

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

__all__ = [
    "exit_code",
    "leftovers",
    "refuse_to_resume",
    "request_stop",
    "resume",
    "start",
    "status",
    "supervise_here",
]
