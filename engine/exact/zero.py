"""Fills in what DeepSpeed's engine holds, which cannot run on tensors without data: closed form. Pure."""

from ..memory.sharding import buffer_terms
from ..memory.states import state_terms
from ..specs.estimate import Term
from ..specs.workload import Workload

NOTE = "DeepSpeed's engine cannot be traced: one rank's activations are, and its states are in closed form"
_TRACED = frozenset({"activations", "logits", "overhead"})


def needs_closed_form(workload: Workload) -> bool:
    """Say whether the states of a workload are beyond the trace."""
    return workload.sharding.backend == "zero"


def with_states(traced: tuple[Term, ...], workload: Workload) -> tuple[Term, ...]:
    """Return the traced terms with the engine's own states and buffers instead of one rank's.

    Raises:
        Refused: The model's parameters are not known.
    """
    kept = tuple(term for term in traced if term.group in _TRACED)
    return (*state_terms(workload), *buffer_terms(workload), *kept)
