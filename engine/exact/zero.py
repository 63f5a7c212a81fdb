"""What of DeepSpeed's engine is traced, and what is filled in, since it needs data to run. Pure."""

from ..memory.sharding import buffer_terms
from ..memory.states import state_terms
from ..specs.estimate import PHASES, Term
from ..specs.workload import Workload

NOTE = "DeepSpeed's engine cannot be traced: one rank's activations are, and its states are in closed form"
WRITTEN_DOWN = "DeepSpeed's engine is a stand-in that allocates what its source does, in its order"
_COORDINATOR = "deepspeed 0.19.8, runtime/zero/partitioned_param_coordinator.py: __allgather_stream"
_GATHERED = "parameters gathered and fetched ahead"
_TRACED = frozenset({"activations", "logits", "overhead"})
_WHOLE_WEIGHTS, _SPREAD_WEIGHTS = 2, 3


def is_written_down(workload: Workload) -> bool:
    """Say whether the trace has a stand-in for the engine: ZeRO 2 or 3 with a second copy, on the device."""
    sharding = workload.sharding
    return (
        sharding.backend == "zero"
        and sharding.zero_stage in (_WHOLE_WEIGHTS, _SPREAD_WEIGHTS)
        and sharding.master is not None
        and sharding.offload_optimizer == "none"
        and sharding.offload_parameters == "none"
    )


def needs_closed_form(workload: Workload) -> bool:
    """Say whether the states of a workload are beyond the trace."""
    is_traced = is_written_down(workload) and workload.sharding.zero_stage == _WHOLE_WEIGHTS
    return workload.sharding.backend == "zero" and not is_traced


def completed(traced: tuple[Term, ...], workload: Workload) -> tuple[tuple[Term, ...], tuple[str, ...]]:
    """Return the terms of an estimate, and what is to be said about them.

    Raises:
        Refused: The model's parameters are not known.
    """
    if needs_closed_form(workload):
        return with_states(traced, workload), (NOTE,)
    return traced, (WRITTEN_DOWN,) if workload.sharding.backend == "zero" else ()


def with_states(traced: tuple[Term, ...], workload: Workload) -> tuple[Term, ...]:
    """Return the traced terms with the engine's own states and buffers instead of one rank's.

    Raises:
        Refused: The model's parameters are not known.
    """
    kept = tuple(term for term in traced if term.group in _TRACED)
    buffers = buffer_terms(workload)
    return (*state_terms(workload), *buffers, *_gathered_before(buffers), *kept)


def _gathered_before(buffers: tuple[Term, ...]) -> tuple[Term, ...]:
    """What was gathered for another phase and is let go: it serves only the stream that gathers."""
    held = {
        phase: sum(term.num_bytes for term in buffers if term.name == _GATHERED and phase in term.phases)
        for phase in PHASES
    }
    most = max(held.values())
    return tuple(
        Term(
            name="cache of the gathering stream",
            group="overhead",
            num_bytes=most - own,
            phases=(phase,),
            formula=f"{most:,} B gathered at most - {own:,} B now",
            source=_COORDINATOR,
            place="reserved",
        )
        for phase, own in held.items()
        if most > own and phase != "load"
    )
