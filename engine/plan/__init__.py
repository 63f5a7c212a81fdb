"""Decides how a machine does a job and says why: facts go in, a plan comes out."""

from ..memory.host import DataVolume
from ..specs.job import Job
from ..specs.machine import Machine
from ..specs.model import ModelSpec
from ..specs.plan import Plan
from ..specs.speed import PastStep
from ..specs.workload import Stack
from .careful import MICRO_BATCH_TOKENS, careful_plan
from .fitted import fitted_plan
from .search import Measured

__all__ = ["MICRO_BATCH_TOKENS", "Measured", "recommend"]


def recommend(
    job: Job,
    model: ModelSpec | None,
    machine: Machine,
    *,
    stack: Stack | None = None,
    past: tuple[PastStep, ...] = (),
    measured: Measured | None = None,
    data: DataVolume | None = None,
) -> Plan:
    """Choose the strategy for a job on a machine.

    Args:
        job: What the user wants and pins.
        model: Shape of the model, or ``None`` when only the hub knows it.
        machine: What is in the box.
        stack: Versions of the training libraries; those that ftwiz is tested with when absent.
        past: What steps on such devices were predicted to take, and took; corrects the speed.
        measured: What probes and runs on such devices took stands in place of what is estimated.
        data: What is known of its size.

    Raises:
        BadInput: The pinned choices cannot be combined.
        Refused: The machine does not have what is pinned, or nothing fits into it.
    """
    if model is None or model.parameters is None:
        return careful_plan(job, model, machine)
    return fitted_plan(job, model, machine, stack=stack, past=past, measured=measured, data=data)
