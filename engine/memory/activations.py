"""What a forward and a backward pass hold besides the states of training: tensors that come and go. Pure.

The terms of one phase are one moment, the phase's highest: they add up. Who counts what, so that nothing is
counted twice:

- Weights, adapters, gradients that stay (``backward end``, ``optimizer``; with accumulation all phases; the
  output layer's also in ``backward start``), optimizer states: ``state_terms``. Gathered layers, buckets and
  the gradients that an engine shards: ``buffer_terms``.
- Here: kept layer inputs and activations, the layer that is being computed (again), gradients of activations,
  the batch, position tables and masks, logits and what replaces them, unpacked weights, autocast's copies of
  weights, a gradient of a weight while it is made, and (without accumulation) the output layer's gradient in
  ``head`` and the last layer's in ``backward start``.
- ``backward end`` is the first layer's backward pass. Its gradients are all counted by the states, the
  embedding's too, which is made after that layer: so the largest of both moments is taken, each without what
  the states count already.

Source of the operations: the modules ``blocks*`` and ``heads``; of the walk: ``tape``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from ..specs.estimate import PhaseName, Term
from ..specs.model import ModelSpec
from ..specs.workload import DTYPE_BYTES, Workload
from .blocks_model import program_of
from .blocks_parts import Formats
from .blocks_peaks import Peak, peaks_of
from .blocks_sampling import sampling_terms
from .blocks_step import Rules, step
from .foreign_terms import foreign_activation_terms, is_foreign
from .heads import TILE_TOKENS
from .workload import version

REFERENCES = frozenset({"dpo", "kto", "grpo", "rloo"})
"""Stages that may compare with the model as it was."""
SAMPLING = frozenset({"grpo", "rloo"})
PAIRS = frozenset({"rm", "dpo", "orpo", "simpo"})
"""Stages whose micro batch counts pairs: two sequences each."""
PACKINGS = {"nf4": "4bit", "fp4": "4bit", "int8": "8bit", "gptq": "gptq"}
NARROW_SINCE = (4, 45)
"""First version of transformers whose logits are not float32."""
GATHERED = frozenset({"fsdp", "fsdp1"})
"""Engines that gather weights in the format that they are computed in."""


@dataclass(frozen=True, slots=True)
class _Question:
    """What the walk depends on; not the number of tokens, nor how states are sharded."""

    model: ModelSpec
    formats: Formats
    rules: Rules


@lru_cache(maxsize=512)
def _peaks(question: _Question) -> dict[PhaseName, tuple[Peak, ...]] | None:
    program = program_of(question.model, question.formats)
    return peaks_of(step(program, question.rules)) if program else None


def activation_terms(w: Workload) -> tuple[Term, ...]:
    """Return what a forward and a backward pass hold on one device.

    A model whose shapes are not known is bounded by its width and depth. Other trainers bring their own
    models (``foreign_terms``).
    """
    if is_foreign(w):
        return foreign_activation_terms(w)
    phases = _peaks(_Question(w.model, _formats(w), _rules(w)))
    if phases is None:
        return _bound(w)
    terms = [
        term for phase, peaks in phases.items() if phase != "reference" for term in _highest(w, phase, peaks)
    ]
    if w.stage in REFERENCES and (w.reference_model or w.method == "lora"):
        terms += _reference(w)
        if w.stage not in SAMPLING:
            terms += _beside_the_reference(w)
    if w.stage in SAMPLING:
        terms += sampling_terms(w)
    return tuple(terms)


def _highest(w: Workload, phase: PhaseName, peaks: Sequence[Peak]) -> list[Term]:
    if not peaks:
        return []
    tokens, sequence = tokens_of(w), _positions(w)
    highest = max(peaks, key=lambda peak: peak.size.at(tokens, sequence))
    return [line.term(phase, tokens, sequence) for line in highest.lines]


def _reference(w: Workload) -> list[Term]:
    """Return the pass of the model as it was: nothing is kept, no adapter runs (trl 1.16, DPOTrainer)."""
    formats = replace(_formats(w), trained=False, adapter=None, num_trained_layers=None)
    rules = replace(_rules(w), checkpointing="none", needs_input_grad=False, keeps_output=False)
    phases = _peaks(_Question(w.model, formats, rules)) or {}
    return _highest(w, "reference", [*phases.get("forward", ()), *phases.get("head", ())])


def _beside_the_reference(w: Workload) -> list[Term]:
    """Return what the policy keeps while the reference is asked (trl 1.16, DPOTrainer and KTOTrainer)."""
    phases = _peaks(_Question(w.model, _formats(w), _rules(w))) or {}
    return _highest(w, "reference", phases.get("reference", ()))


def _positions(w: Workload) -> int:
    """Return the positions that a token's scores and masks reach: packed sequences are one row (trl 1.16)."""
    return tokens_of(w) if w.packing else w.sequence_tokens


def tokens_of(w: Workload) -> int:
    """Return the tokens of a pass; a pair is two sequences."""
    return w.tokens * (2 if w.stage in PAIRS else 1)


def _formats(w: Workload) -> Formats:
    weight_bytes = DTYPE_BYTES[w.weights]
    if w.autocast and w.sharding.backend in GATHERED:
        weight_bytes = DTYPE_BYTES[w.autocast]
    adapter_bytes = DTYPE_BYTES[w.trainable]
    if w.autocast and w.sharding.backend in GATHERED:
        adapter_bytes = DTYPE_BYTES[w.autocast]
    packing = PACKINGS.get(w.quantization.kind, "other") if w.quantization else None
    compute = DTYPE_BYTES[w.autocast or w.weights]
    return Formats(
        weight_bytes=compute if packing else weight_bytes,
        other_bytes=4 if w.upcast_frozen else weight_bytes,
        trained=w.method != "lora",
        packing=packing,
        adapter=w.adapter if w.method == "lora" else None,
        adapter_bytes=adapter_bytes,
        num_trained_layers=w.num_trainable_layers if w.method == "freeze" else None,
        kernel=w.attention,
    )


def _rules(w: Workload) -> Rules:
    sharded = w.sharding.backend in GATHERED
    lands = w.gradient_accumulation_steps == 1 and w.sharding.backend == "single"
    return Rules(
        checkpointing=w.checkpointing,
        autocast=DTYPE_BYTES[w.autocast] if w.autocast else None,
        caches_casts=not sharded,
        counts_weight_gradients=not sharded,
        lands_gradients=lands and not w.optimizer_in_backward,
        needs_input_grad=w.method == "lora" and w.checkpointing != "none",
        kernel=w.attention,
        head_kind=_head_kind(w),
        keeps_output=w.keeps_output,
        widens_output=w.autocast is not None and w.trainer in ("trl", "transformers"),
        fills_tiles=tokens_of(w) >= TILE_TOKENS,
        is_float16=_scores_are_float16(w),
        casts_layers=w.sharding.backend == "fsdp",
    )


def _head_kind(w: Workload) -> str:
    """Since transformers 4.45 the model's logits stay narrow, and accelerate widens them after the loss."""
    if w.stage == "rm":
        return "score"
    stays_narrow = w.stack.transformers is None or version(w.stack.transformers) >= NARROW_SINCE
    is_widened = w.autocast is not None and w.trainer in ("trl", "transformers")
    return "logits" if w.loss == "logits-fp32" and is_widened and stays_narrow else w.loss


def _scores_are_float16(w: Workload) -> bool:
    """Frozen weights that became float32 give float32 activations, and so float32 scores."""
    return (w.autocast or ("fp32" if w.upcast_frozen else w.weights)) == "fp16"


def _bound(w: Workload) -> tuple[Term, ...]:
    """Bound a model of unknown shapes: 34 bytes x hidden size per token and layer, as a GPT without flash.

    Source: Korthikanti et al., arXiv 2205.05198, section 4.1.
    """
    hidden, layers = w.model.hidden_size, w.model.num_layers
    if not hidden or not layers:
        return ()
    per_token = 34 * hidden
    kept = layers * 2 * hidden if w.checkpointing == "full" else layers * per_token
    tokens = tokens_of(w)
    phases: tuple[PhaseName, ...] = ("forward", "head", "backward start")
    return (
        Term(
            name="kept for the backward pass", group="activations", num_bytes=tokens * kept, phases=phases,
            formula=f"{tokens:,} tokens x {kept:,} B", source="arXiv 2205.05198, section 4.1",
        ),
        Term(
            name="layer in work", group="activations", num_bytes=tokens * per_token,
            phases=(*phases, "backward end"),
            formula=f"{tokens:,} tokens x 34 x {hidden:,} B", source="arXiv 2205.05198, section 4.1",
        ),
    )  # fmt: skip
