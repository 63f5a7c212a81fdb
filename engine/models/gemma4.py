"""Gemma 4: two widths of heads, shared keys and values, inputs per layer, and experts beside the MLP."""

from dataclasses import dataclass

from ..specs.model import ExpertsShape
from .decoder import ends, gated_mlp, norms
from .facts import Facts
from .parts import Block, Body, Piece, fused, layers, linear, norm, other

MODEL_TYPES = frozenset({"gemma4_text"})
PER_LAYER = "per_layer_input_altup"
NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)
EXPERT_NORMS = (
    "post_feedforward_layernorm_1",
    "post_feedforward_layernorm_2",
    "pre_feedforward_layernorm_2",
)


@dataclass(frozen=True, slots=True)
class Layer:
    """What decides a layer's pieces."""

    is_full: bool
    is_shared: bool
    """It takes keys and values from an earlier layer and has none of its own."""


def body(facts: Facts) -> Body:
    """Return the blocks of the language part."""
    shared = facts.optional("num_kv_shared_layers") or 0
    first_shared = facts.num_layers - shared
    kinds = [
        Layer(kind == "full_attention", layer >= first_shared)
        for layer, kind in enumerate(facts.layer_types())
    ]
    has_experts = facts.flag("enable_moe_block", default=False)
    common = (*norms(facts.hidden_size, NORMS), *_per_layer(facts), *(_experts(facts) if has_experts else ()))
    before, after = ends(facts, tied=True)
    blocks = layers(
        "Gemma4TextDecoderLayer",
        kinds,
        lambda kind: (*_attention(facts, kind), *_mlp(facts, kind), *common),
    )
    return Body(before + blocks + after + _per_layer_root(facts), _shape(facts) if has_experts else None)


def _attention(facts: Facts, layer: Layer) -> tuple[Piece, ...]:
    hidden = facts.hidden_size
    head = facts.whole("global_head_dim", default=512) if layer.is_full else facts.head_dim
    is_one_projection = layer.is_full and facts.flag("attention_k_eq_v", default=False)
    heads = facts.num_kv_heads
    if is_one_projection:
        heads = facts.whole("num_global_key_value_heads", default=heads)
    bias = facts.flag("attention_bias", default=False)
    width = facts.num_heads * head
    pieces = [
        linear("self_attn.q_proj", hidden, width, "attention", bias=bias),
        norm("self_attn.q_norm", head),
        linear("self_attn.o_proj", width, hidden, "attention", bias=bias),
    ]
    if not layer.is_shared:
        names = ("k_proj",) if is_one_projection else ("k_proj", "v_proj")
        pieces.append(norm("self_attn.k_norm", head))
        pieces += [
            linear(f"self_attn.{name}", hidden, heads * head, "attention", bias=bias) for name in names
        ]
    return tuple(pieces)


def _mlp(facts: Facts, layer: Layer) -> tuple[Piece, ...]:
    is_double = layer.is_shared and facts.flag("use_double_wide_mlp", default=False)
    return gated_mlp(facts.hidden_size, facts.whole("intermediate_size") * (2 if is_double else 1))


def _per_layer(facts: Facts) -> tuple[Piece, ...]:
    width = facts.optional("hidden_size_per_layer_input") or 0
    if not width:
        return ()
    return (
        linear("per_layer_input_gate", facts.hidden_size, width, PER_LAYER),
        linear("per_layer_projection", width, facts.hidden_size, PER_LAYER),
        norm("post_per_layer_input_norm", facts.hidden_size),
    )


def _per_layer_root(facts: Facts) -> tuple[Block, ...]:
    width = facts.optional("hidden_size_per_layer_input") or 0
    if not width:
        return ()
    rows, all_layers = facts.whole("vocab_size_per_layer_input"), facts.num_layers * width
    return (
        Block(
            (
                other("embed_tokens_per_layer", "embedding", rows, all_layers),
                linear("per_layer_model_projection", facts.hidden_size, all_layers, PER_LAYER),
                norm("per_layer_projection_norm", width),
            )
        ),
    )


def _experts(facts: Facts) -> tuple[Piece, ...]:
    hidden, shape = facts.hidden_size, _shape(facts)
    return (
        other("router.scale", "router", hidden),
        other("router.per_expert_scale", "router", shape.num_experts),
        linear("router.proj", hidden, shape.num_experts, "router"),
        fused("experts.gate_up_proj", shape.num_experts, 2 * shape.intermediate_size, hidden),
        fused("experts.down_proj", shape.num_experts, hidden, shape.intermediate_size),
        *norms(hidden, EXPERT_NORMS),
    )


def _shape(facts: Facts) -> ExpertsShape:
    return ExpertsShape(
        num_experts=facts.whole("num_experts"),
        num_experts_per_token=facts.whole("top_k_experts"),
        intermediate_size=facts.whole("moe_intermediate_size", "expert_intermediate_size"),
        num_layers=facts.num_layers,
    )
