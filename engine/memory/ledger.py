"""Collects the terms of an estimate."""

from ..errors import Refused
from ..specs.estimate import Estimate, Term
from ..specs.workload import Workload
from .states import state_terms


def estimate(workload: Workload) -> Estimate:
    """Return what a workload takes.

    Raises:
        Refused: The model's parameters are not known.
    """
    if workload.model.parameters is None:
        raise Refused(f"the memory of this model cannot be estimated: {workload.model.unknown_reason}")
    terms: tuple[Term, ...] = state_terms(workload)
    basis = "weights, gradients and optimizer only; activations are not counted"
    return Estimate(tier="fast", terms=terms, uncertainty=1.0, basis=basis)
