"""Data parallel: every device holds the whole model and the gradients are averaged.

Source: torch.nn.parallel.DistributedDataParallel.
"""

from ..specs.job import Job, PlanPins
from ..specs.machine import CPU
from ..specs.model import ModelSpec
from ..specs.plan import Cluster, Rule, Strategy
from .launch import node_files, ranks_command, torchrun_command
from .method_rules import ONE_PROCESS
from .rules import NOT_REENTRANT, WHOLE_DEVICES

NAME = "ddp"
RULES = (
    Rule(
        broken=lambda job, _devices: job.plan.num_processes == 1,
        text="ddp needs two ranks or more; plan.num_processes asks for one",
        source="definition",
    ),
    Rule(
        broken=lambda _job, devices: len(devices) == 1,
        text="ddp needs a device per rank, and there is one device",
        source="NCCL refuses two ranks on one GPU",
    ),
    WHOLE_DEVICES,
    NOT_REENTRANT,
    ONE_PROCESS,
)
PINS: frozenset[str] = frozenset()

# accelerate's word for several ranks on this kind of device (accelerate 1.15, utils/dataclasses.py,
# DistributedType).
# MULTI_CPU would silently run one process (measured); MULTI_GPU with use_cpu starts gloo ranks.
_DISTRIBUTED_TYPES = {
    "cuda": "MULTI_GPU",
    "npu": "MULTI_NPU",
    "xpu": "MULTI_XPU",
    CPU: "MULTI_GPU",
}


def strategies(base: Strategy, pins: PlanPins) -> tuple[Strategy, ...]:  # noqa: ARG001 - there is only one way
    """Return the one way to do it."""
    return (base,)


def files(
    strategy: Strategy,
    job: Job,  # noqa: ARG001 - it is not asked
    model: ModelSpec | None,  # noqa: ARG001 - nor is it
    cluster: Cluster | None = None,
) -> dict[str, str]:
    """Return accelerate.yaml for one rank per device."""
    settings: dict[str, object] = {
        "distributed_type": _DISTRIBUTED_TYPES[strategy.device_kind],
        "mixed_precision": strategy.mixed_precision,
        "use_cpu": strategy.device_kind == CPU,
    }
    comment = f"accelerate launch: data parallel, {strategy.num_processes} ranks"
    return node_files(comment, strategy, settings, cluster)


def launch_command(strategy: Strategy, python: str) -> list[str]:
    """Return ``accelerate launch`` of this node's ranks, which are counted in the file."""
    return ranks_command(strategy, python)


def by_hand_commands(strategy: Strategy, python: str) -> tuple[list[str], ...]:
    """Return the equivalent torchrun."""
    return (torchrun_command(strategy, python),)


def environment(strategy: Strategy) -> dict[str, str]:  # noqa: ARG001 - the same for every strategy
    """Return nothing: several ranks are enough for accelerate to take DDP."""
    return {}
