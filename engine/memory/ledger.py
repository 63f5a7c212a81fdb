"""Collects the terms of an estimate."""

from ..errors import Refused
from ..specs.estimate import Estimate, Term
from ..specs.workload import Workload
from .activations import activation_terms
from .disk import disk_terms
from .host import DataVolume, host_terms
from .overhead import fixed_overhead, overhead_notes, overhead_terms
from .sharding import buffer_terms, moments_apart
from .states import state_terms

REPLAYED = "gaps of the allocator"
"""The exact tier replays the allocator in place of this term."""
OWN_MODELS = frozenset({"litgpt", "torchtitan", "torchtune"})
"""Trainers that bring their own models."""
UNCERTAINTY = 0.12
BASIS = "112 published measurements that are fully specified: half within 3 %, nine of ten within 12 %"
VARIED_UNCERTAINTY = 0.26
VARIED_BASIS = "154 published measurements, lengths that vary among them: nine of ten within 26 %"
"""From docs/accuracy.md, its errors of the fast tier (tests/accuracy/test_corpus_rows.py). Where segments
grow, lengths that vary leave no gaps."""


def estimate(workload: Workload, *, data: DataVolume | None = None) -> Estimate:
    """Return what a workload takes.

    Args:
        workload: The step.
        data: What is known of the data, for the host and the disk.

    Raises:
        Refused: The model's parameters are not known.
    """
    if workload.model.parameters is None:
        raise Refused(f"the memory of this model cannot be estimated: {workload.model.unknown_reason}")
    tensors = (*state_terms(workload), *buffer_terms(workload), *_activations(workload))
    if workload.sharding.backend == "fsdp" and workload.checkpointing == "full":
        tensors = moments_apart(tensors)
    return Estimate(
        tier="fast",
        terms=(*tensors, *overhead_terms(workload, tensors), *_beside_the_device(workload, data)),
        uncertainty=VARIED_UNCERTAINTY if _has_gaps(workload) else UNCERTAINTY,
        basis=VARIED_BASIS if _has_gaps(workload) else BASIS,
        notes=overhead_notes(workload),
    )


def floor(workload: Workload) -> Estimate:
    """Return what a workload takes at least, whatever its micro batch: states, context, host; no activations.

    It costs no walk over the model's operations, so a planner can leave out at once what cannot fit.

    Raises:
        Refused: The model's parameters are not known.
    """
    if workload.model.parameters is None:
        raise Refused(f"the memory of this model cannot be estimated: {workload.model.unknown_reason}")
    return Estimate(
        tier="fast",
        terms=(*state_terms(workload), *fixed_overhead(workload), *host_terms(workload)),
        uncertainty=VARIED_UNCERTAINTY if _has_gaps(workload) else UNCERTAINTY,
        basis=VARIED_BASIS if _has_gaps(workload) else BASIS,
    )


def _has_gaps(workload: Workload) -> bool:
    return workload.varied_lengths and not workload.expandable_segments


def _activations(workload: Workload) -> tuple[Term, ...]:
    if workload.trainer in OWN_MODELS:
        from .foreign_terms import foreign_activation_terms  # noqa: PLC0415 - only for published measurements

        return foreign_activation_terms(workload)
    return activation_terms(workload)


def completed(traced: Estimate, workload: Workload) -> Estimate:
    """Return a traced estimate with what no trace of one step sees.

    That is the context and workspaces, what lengths that vary cost the allocator, host and disk.
    """
    known = {term.name for term in traced.terms} | {REPLAYED}
    beside = (*overhead_terms(workload, traced.terms), *_beside_the_device(workload))
    terms = (*traced.terms, *(term for term in beside if term.name not in known))
    return Estimate(
        tier=traced.tier,
        terms=terms,
        uncertainty=traced.uncertainty,
        basis=traced.basis,
        notes=(*traced.notes, *overhead_notes(workload)),
    )


def _beside_the_device(workload: Workload, data: DataVolume | None = None) -> tuple[Term, ...]:
    return (*host_terms(workload, data=data), *disk_terms(workload, data=data))
