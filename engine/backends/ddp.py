"""Data parallel: every device holds the whole model and the gradients are averaged.

Source: torch.nn.parallel.DistributedDataParallel.
"""

from ..specs.machine import CPU
from ..specs.plan import Rule, Strategy
from .launch import ACCELERATE_FILE, RUN_FOLDER, WORKER_MODULE, accelerate_command, accelerate_file

NAME = "ddp"
RULES = (
    Rule(
        broken=lambda pins, _devices: pins.num_processes == 1,
        text="ddp needs two ranks or more; plan.num_processes asks for one",
        source="definition",
    ),
    Rule(
        broken=lambda _pins, devices: len(devices) == 1,
        text="ddp needs a device per rank, and there is one device",
        source="NCCL refuses two ranks on one GPU",
    ),
    Rule(
        broken=lambda _pins, devices: any(device.partition is not None for device in devices),
        text="ddp needs whole devices: a process sees one slice of a partitioned card",
        source="NVIDIA Multi-Instance GPU user guide, on CUDA device enumeration",
    ),
)

# accelerate's word for several ranks on this kind of device (accelerate 1.15, utils/dataclasses.py,
# DistributedType).
# MULTI_CPU would silently run one process (measured); MULTI_GPU with use_cpu starts gloo ranks.
_DISTRIBUTED_TYPES = {
    "cuda": "MULTI_GPU",
    "npu": "MULTI_NPU",
    "xpu": "MULTI_XPU",
    CPU: "MULTI_GPU",
}


def files(strategy: Strategy) -> dict[str, str]:
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


def by_hand_command(strategy: Strategy, python: str) -> list[str]:
    """Return the equivalent torchrun."""
    ranks = str(strategy.num_processes)
    torchrun = [python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", ranks]
    return [*torchrun, "-m", WORKER_MODULE, RUN_FOLDER]
