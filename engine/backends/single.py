"""One process on one device: no communication, nothing sharded."""

from ..specs.job import Job, PlanPins
from ..specs.machine import CPU
from ..specs.model import ModelSpec
from ..specs.plan import Cluster, Rule, Strategy
from .launch import accelerate_command, node_files, worker_command

NAME = "single"
RULES = (
    Rule(
        broken=lambda job, _devices: job.plan.num_processes not in ("auto", 1),
        text="single is one process; plan.num_processes asks for more",
        source="definition",
    ),
)
PINS: frozenset[str] = frozenset()


def strategies(base: Strategy, pins: PlanPins) -> tuple[Strategy, ...]:  # noqa: ARG001 - there is only one way
    """Return the one way to do it."""
    return (base,)


def files(
    strategy: Strategy,
    job: Job,  # noqa: ARG001 - it is not asked
    model: ModelSpec | None,  # noqa: ARG001 - nor is it
    cluster: Cluster | None = None,
) -> dict[str, str]:
    """Return accelerate.yaml for one process."""
    settings: dict[str, object] = {
        "distributed_type": "NO",
        "mixed_precision": strategy.mixed_precision,
        "use_cpu": strategy.device_kind == CPU,
    }
    return node_files("accelerate launch: one process on one device", strategy, settings, cluster)


def launch_command(strategy: Strategy, python: str) -> list[str]:  # noqa: ARG001 - the same for every strategy
    """Return ``accelerate launch`` of one worker."""
    return accelerate_command(python)


def by_hand_commands(strategy: Strategy, python: str) -> tuple[list[str], ...]:  # noqa: ARG001 - see above
    """Return the worker itself: one process needs no launcher."""
    return (worker_command(python),)


def environment(strategy: Strategy) -> dict[str, str]:  # noqa: ARG001 - the same for every strategy
    """Return nothing: accelerate needs no word for one process."""
    return {}
