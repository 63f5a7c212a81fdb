"""From a model's shape to its layers: which pieces of ``blocks*`` they are, and how many of each. Pure.

What the shape does not say (which norms come before, what runs beside what) follows from the names of the
modules, which are those of transformers 5.23.
"""

from dataclasses import dataclass, replace

from ..specs.model import ModelSpec
from .blocks import Mlp, Norm
from .blocks_find import Mixer, mixers, mlps
from .blocks_moe import Moe
from .blocks_parts import Formats, Parts
from .blocks_torch import Weight

PARALLEL = frozenset({"gpt_neox", "phi", "cohere", "cohere2"})
"""Attention and MLP run beside each other."""
BEFORE_ATTENTION = (
    "input_layernorm", "ln_1", "operator_norm", "attention_layernorm", "self_attn_layer_norm", "norm",
)  # fmt: skip
BEFORE_MLP = ("pre_feedforward_layernorm", "ln_2", "ffn_norm", "feedforward_layernorm", "pre_ff_layernorm")
AFTER_ATTENTION = ("post_self_attn_layernorm",)
AFTER_MLP = ("post_feedforward_layernorm", "post_mlp_layernorm")


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer."""

    mixer: Mixer
    mlp: Mlp | Moe | None
    before: Norm | None = None
    before_mlp: Norm | None = None
    after: Norm | None = None
    after_mlp: Norm | None = None
    is_parallel: bool = False


Kinds = tuple[tuple[Layer, int], ...]


@dataclass(frozen=True, slots=True)
class Program:
    """A model's layers by kind, in order of their first appearance, and what stands around them."""

    kinds: tuple[tuple[Layer, int], ...]
    hidden: int
    embedding: Weight
    norm: Norm
    head: Weight
    is_tied: bool
    head_dim: int
    scales_embedding: bool = False
    softcaps_logits: bool = False


def program_of(model: ModelSpec, formats: Formats) -> Program | None:
    """Return a model's layers, or ``None`` when its shapes are not known."""
    count = model.parameters
    if count is None or not count.linears or not model.hidden_size:
        return None
    kinds = _kinds(Parts(model, formats))
    parts = Parts(model, formats)
    if formats.num_trained_layers is not None:
        parts = Parts(model, replace(formats, trained=False))
        kinds = _last_trained(_kinds(parts), kinds, formats.num_trained_layers)
    if not kinds:
        return None
    return Program(
        kinds=kinds,
        hidden=model.hidden_size,
        embedding=parts.embedding(),
        norm=parts.norm("norm", model.hidden_size, final=True),
        head=parts.head(),
        is_tied=bool(model.tie_word_embeddings),
        head_dim=model.head_dim or 0,
        scales_embedding=model.model_type.startswith("gemma"),
        softcaps_logits=model.model_type in {"gemma2", "gemma3n", "gemma4"},
    )


def _last_trained(frozen: Kinds, trained: Kinds, number: int) -> Kinds:
    """Return frozen layers, and as many trained ones at the end."""
    left, kinds = sum(count for _, count in frozen) - number, list[tuple[Layer, int]]()
    for (plain, count), (learning, _) in zip(frozen, trained, strict=True):
        still = max(0, min(count, left))
        left -= count
        kinds += [(layer, n) for layer, n in ((plain, still), (learning, count - still)) if n]
    return tuple(kinds)


def _kinds(parts: Parts) -> tuple[tuple[Layer, int], ...]:
    """Pair mixers with MLPs: dense ones stand before experts."""
    mixer_queue, mlp_queue = mixers(parts), mlps(parts)
    paired: list[tuple[Layer, int]] = []
    while mixer_queue and mlp_queue:
        (mixer, left), (mlp, right) = mixer_queue.pop(0), mlp_queue.pop(0)
        number = min(left, right)
        paired.append((_layer(parts, mixer, mlp), number))
        if left > number:
            mixer_queue.insert(0, (mixer, left - number))
        if right > number:
            mlp_queue.insert(0, (mlp, right - number))
    return tuple(paired)


def _layer(parts: Parts, mixer: Mixer, mlp: Mlp | Moe | None) -> Layer:
    hidden = parts.model.hidden_size or 0
    names = {part.path for part in parts.others if part.count > 1 or part.path != "norm"}
    first = _first(BEFORE_ATTENTION, names)
    before_mlp = _first(BEFORE_MLP, names)
    has_both = "pre_feedforward_layernorm" in names
    after, after_mlp = _first(AFTER_ATTENTION, names), _first(AFTER_MLP, names)
    if has_both or first is None:
        after = after or ("post_attention_layernorm" if "post_attention_layernorm" in names else None)
    elif before_mlp is None:
        before_mlp = "post_attention_layernorm" if "post_attention_layernorm" in names else None
    if parts.model.model_type == "opt":
        before_mlp = "final_layer_norm"
    return Layer(
        mixer, mlp,
        before=parts.norm(first, hidden) if first else None,
        before_mlp=parts.norm(before_mlp, hidden) if before_mlp else None,
        after=parts.norm(after, hidden) if after else None,
        after_mlp=parts.norm(after_mlp, hidden) if after_mlp else None,
        is_parallel=parts.model.model_type in PARALLEL or (
            parts.model.model_type == "falcon" and before_mlp is None
        ),
    )  # fmt: skip


def _first(names: tuple[str, ...], there: set[str]) -> str | None:
    return next((name for name in names if name in there), None)
