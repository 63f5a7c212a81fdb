"""Data parallel: every device holds the whole model and the gradients are averaged.

Source: torch.nn.parallel.DistributedDataParallel.
"""

from ..specs.job import Job, PlanPins
from ..specs.machine import CPU
from ..specs.model import ModelSpec
from ..specs.plan import Rule, Strategy
from .launch import ACCELERATE_FILE, accelerate_command, accelerate_file, torchrun_command
from .rules import WHOLE_DEVICES

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


def files(strategy: Strategy, job: Job, model: ModelSpec | None) -> dict[str, str]:  # noqa: ARG001 - asks neither
    """Return accelerate.yaml for one rank per device."""
    settings: dict[str, object] = {
        "distributed_type": _DISTRIBUTED_TYPES[strategy.device_kind],
        "num_processes": strategy.num_processes,
        "mixed_precision": strategy.mixed_precision,
        "use_cpu": strategy.device_kind == CPU,
    }
    comment = f"accelerate launch: data parallel, {strategy.num_processes} ranks"
    return {ACCELERATE_FILE: accelerate_file(comment, settings)}


def launch_command(strategy: Strategy, python: str) -> list[str]:  # noqa: ARG001 - ranks are counted in the file
    """Return ``accelerate launch`` on a free port."""
    return accelerate_command(python, "--main_process_port", "0")


def by_hand_commands(strategy: Strategy, python: str) -> tuple[list[str], ...]:
    """Return the equivalent torchrun."""
    return (torchrun_command(python, strategy.num_processes),)


def environment(strategy: Strategy) -> dict[str, str]:  # noqa: ARG001 - the same for every strategy
    """Return nothing: several ranks are enough for accelerate to take DDP."""
    return {}
