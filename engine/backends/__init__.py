"""How ranks are started and what they share: one file per engine, pure text and argument lists.

A backend is a module with the members of ``Backend``. A new one is one file and one word in ``BACKENDS``.
"""

from typing import Protocol

from ..specs.plan import Rule, Strategy
from . import ddp, single
from .launch import worker_command
from .visibility import can_be_shown, visible_environment


class Backend(Protocol):
    """What the planner and the run folder ask of an engine."""

    @property
    def NAME(self) -> str:  # noqa: N802 - a module constant
        """The value of ``plan.backend``."""

    @property
    def RULES(self) -> tuple[Rule, ...]:  # noqa: N802 - a module constant
        """When this engine cannot be used, each with its reason."""

    def files(self, strategy: Strategy) -> dict[str, str]:
        """Return the text of the engine's configuration files by name."""

    def launch_command(self, strategy: Strategy, python: str) -> list[str]:
        """Return the arguments that start every rank, to be run in the run folder."""

    def by_hand_command(self, strategy: Strategy, python: str) -> list[str]:
        """Return the same start without accelerate's launcher."""


BACKENDS: tuple[Backend, ...] = (single, ddp)


def backend(name: str) -> Backend:
    """Return the backend called ``name``, which the job's validation has let through."""
    return next(candidate for candidate in BACKENDS if name == candidate.NAME)


__all__ = ["BACKENDS", "Backend", "backend", "can_be_shown", "visible_environment", "worker_command"]
