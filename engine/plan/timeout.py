"""How long ranks wait for each other: longer than the slowest thing they do, short enough that a hang ends.

The slowest is a checkpoint, for which all wait. A limit of years (180,000,000 s in many recipes)
means that a hang never ends.
"""

import math
from dataclasses import replace

from ..memory.disk import checkpoint_bytes
from ..memory.workload import workload_of
from ..specs.job import Job
from ..specs.machine import Machine
from ..specs.model import ModelSpec
from ..specs.plan import Plan, Reason, Strategy

LEAST_SECONDS = 1800
"""Torch's own for gloo, and three times NCCL's: loading and compiling differ between ranks too."""
MOST_SECONDS = 21_600
MARGIN = 4
"""Times the predicted save: others use the disk too."""
WRITES = {"memory": 1e9, "nvme": 1e9, "ssd": 400e6, "overlay": 200e6, "hdd": 100e6, "network": 100e6}
"""Bytes per second that a disk writes for sure, by its medium."""
UNKNOWN_WRITES = 100e6


def with_timeout(plan: Plan, job: Job, model: ModelSpec | None, machine: Machine) -> Plan:
    """Return a plan whose ranks wait for each other as long as saving takes, with the reason.

    Args:
        plan: What was decided.
        job: What the user wants.
        model: Its shape, or ``None``.
        machine: Its disks say how fast a checkpoint is written.
    """
    strategy = plan.strategy
    if strategy.num_processes == 1:
        return plan
    seconds, text = _timeout(job, model, strategy, machine)
    reason = Reason(about="timeout_seconds", text=text)
    return replace(plan, strategy=replace(strategy, timeout_seconds=seconds), reasons=(*plan.reasons, reason))


def _timeout(job: Job, model: ModelSpec | None, strategy: Strategy, machine: Machine) -> tuple[int, str]:
    if model is None or model.parameters is None:
        return LEAST_SECONDS, "how long a checkpoint takes is not known; a hang ends after this"
    num_bytes = checkpoint_bytes(workload_of(job, model, strategy))
    rate = _writes(machine)
    seconds = num_bytes / rate
    size = f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"  # noqa: PLR2004 - bytes
    save = f"a checkpoint of {size} takes about {math.ceil(seconds):,} s at {rate / 1e6:,.0f} MB/s"
    wanted = math.ceil(MARGIN * seconds / 60) * 60
    if wanted <= LEAST_SECONDS:
        return LEAST_SECONDS, f"{save}; less than {LEAST_SECONDS} s would end slow starts"
    if wanted > MOST_SECONDS:
        return max(MOST_SECONDS, math.ceil(1.5 * seconds)), f"{save}, half as long again is enough"
    return wanted, f"{save}, and {MARGIN} times that is enough"


def _writes(machine: Machine) -> float:
    rates = [WRITES.get(disk.medium or "", UNKNOWN_WRITES) for disk in machine.disks if "runs" in disk.holds]
    return min(rates, default=UNKNOWN_WRITES)


def grace_seconds(plan: Plan) -> int:
    """Return the time from a warning to the end that a step and a checkpoint need, 2 minutes at least."""
    step = plan.speed.step_seconds if plan.speed else 60.0
    save = plan.strategy.timeout_seconds / MARGIN if plan.strategy.timeout_seconds > LEAST_SECONDS else 60.0
    return max(120, math.ceil((2 * step + save) / 60) * 60)
