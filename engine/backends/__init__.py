"""How ranks are started and what they share: one file per engine, pure text and argument lists.

A backend is a module with the members of ``Backend``. A new one is one file and one word in ``BACKENDS``.
"""

from typing import Protocol

from ..specs.job import Job, PlanPins
from ..specs.model import ModelSpec
from ..specs.plan import Cluster, Rule, Strategy
from . import ddp, fsdp, single, zero
from .launch import worker_command
from .visibility import ALLOCATOR_NAMES, can_be_shown, grows_segments, visible_environment


class Backend(Protocol):
    """What the planner and the run folder ask of an engine."""

    @property
    def NAME(self) -> str:  # noqa: N802 - a module constant
        """The value of ``plan.backend``."""

    @property
    def RULES(self) -> tuple[Rule, ...]:  # noqa: N802 - a module constant
        """When this engine cannot be used, each with its reason."""

    @property
    def PINS(self) -> frozenset[str]:  # noqa: N802 - a module constant
        """The pins of ``ENGINE_PINS`` that this engine understands."""

    def strategies(self, base: Strategy, pins: PlanPins) -> tuple[Strategy, ...]:
        """Return the ways of this engine to do what ``base`` says, as far as the pins admit them.

        The fastest comes first, the one that needs the least device memory last.
        """

    def files(
        self, strategy: Strategy, job: Job, model: ModelSpec | None, cluster: Cluster | None = None
    ) -> dict[str, str]:
        """Return the text of the engine's configuration files by name."""

    def launch_command(self, strategy: Strategy, python: str) -> list[str]:
        """Return the arguments that start every rank of a node, to be run in the run folder."""

    def by_hand_commands(self, strategy: Strategy, python: str) -> tuple[list[str], ...]:
        """Return the same start of a run on one node by other launchers than accelerate's."""

    def environment(self, strategy: Strategy) -> dict[str, str]:
        """Return the variables by which accelerate knows the engine in a rank, whoever started the rank."""


BACKENDS: tuple[Backend, ...] = (single, ddp, zero, fsdp)
ENGINE_PINS = frozenset[str]().union(*(engine.PINS for engine in BACKENDS))
"""Fields of ``PlanPins`` that only some engines understand."""


def backend(name: str) -> Backend:
    """Return the backend called ``name``, which the job's validation has let through."""
    return next(candidate for candidate in BACKENDS if name == candidate.NAME)


__all__ = [
    "ALLOCATOR_NAMES",
    "BACKENDS",
    "ENGINE_PINS",
    "Backend",
    "backend",
    "can_be_shown",
    "grows_segments",
    "visible_environment",
    "worker_command",
]
