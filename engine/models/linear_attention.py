"""Decoders that mix linear attention with full attention: Qwen3-Next, Qwen3.5, Kimi Linear, MiniMax."""

from ..specs.model import ExpertsShape
from . import mla, moe
from .decoder import attention, ends, fused_experts, gated_mlp, norms
from .facts import Facts
from .parts import Body, Piece, layers, linear, norm, other

SSM = "linear_attention_ssm"
UNITS = {
    "qwen3_next": "Qwen3NextDecoderLayer",
    "qwen3_5_text": "Qwen3_5DecoderLayer",
    "qwen3_5_moe_text": "Qwen3_5MoeDecoderLayer",
    "kimi_linear": "KimiLinearDecoderLayer",
    "minimax": "MiniMaxDecoderLayer",
}
MODEL_TYPES = frozenset(UNITS)
LINEAR, FULL = "linear_attention", "full_attention"


def body(facts: Facts) -> Body:
    """Return the blocks of a model with linear attention."""
    types = _types(facts)
    sparse = _sparse_layers(facts)
    kinds = [(kind, layer in sparse) for layer, kind in enumerate(types)]

    def make(kind: tuple[str, bool]) -> tuple[Piece, ...]:
        name, is_sparse = kind
        mixer = _linear_mixer(facts) if name == LINEAR else _full_mixer(facts)
        return (*mixer, *(_experts(facts) if is_sparse else _dense(facts)), *norms(facts.hidden_size))

    can_tie = facts.model_type != "kimi_linear"
    before, after = ends(facts, tied=facts.model_type == "qwen3_5_text" if can_tie else None)
    num_sparse = sum(is_sparse for _, is_sparse in kinds)
    experts = _shape(facts, num_sparse) if num_sparse else None
    return Body(before + layers(UNITS[facts.model_type], kinds, make) + after, experts)


def _types(facts: Facts) -> tuple[str, ...]:
    default = None
    if facts.model_type.startswith("qwen3"):
        interval = facts.whole("full_attention_interval", default=4)
        default = tuple(FULL if (layer + 1) % interval == 0 else LINEAR for layer in range(facts.num_layers))
    return facts.layer_types(default)


def _sparse_layers(facts: Facts) -> frozenset[int]:
    every = range(facts.num_layers)
    if facts.model_type == "qwen3_next":
        return moe.stepped_layers(facts)
    if facts.model_type == "kimi_linear":
        types = facts.names("mlp_layer_types")
        if types and len(types) == facts.num_layers:
            return frozenset(layer for layer, kind in enumerate(types) if kind == "sparse")
        return frozenset(every[facts.whole("first_k_dense_replace", default=1, low=0) :])
    return frozenset() if facts.model_type == "qwen3_5_text" else frozenset(every)


def _linear_mixer(facts: Facts) -> tuple[Piece, ...]:
    if facts.model_type == "minimax":
        return _lightning(facts)
    return _delta(facts) if facts.model_type == "kimi_linear" else _gated_delta(facts)


def _full_mixer(facts: Facts) -> tuple[Piece, ...]:
    if facts.model_type == "kimi_linear":
        return mla.latent_attention(facts)
    if facts.model_type == "minimax":
        return attention(facts)
    bias = facts.flag("attention_bias", default=False)
    return attention(facts, qkv_bias=bias, out_bias=bias, qk_norm="head", gated=True)


def _gated_delta(facts: Facts) -> tuple[Piece, ...]:
    """Gated delta net; Qwen3-Next keeps its projections in two layers, Qwen3.5 in four."""
    hidden = facts.hidden_size
    num_keys, num_values = facts.whole("linear_num_key_heads"), facts.whole("linear_num_value_heads")
    key = num_keys * facts.whole("linear_key_head_dim")
    value_head = facts.whole("linear_value_head_dim")
    value = num_values * value_head
    inside = (
        (("qkvz", 2 * key + 2 * value), ("ba", 2 * num_values))
        if facts.model_type == "qwen3_next"
        else (("qkv", 2 * key + value), ("z", value), ("b", num_values), ("a", num_values))
    )
    return (
        other("linear_attn.dt_bias", SSM, num_values),
        other("linear_attn.A_log", SSM, num_values),
        other("linear_attn.conv1d", SSM, 2 * key + value, facts.whole("linear_conv_kernel_dim", default=4)),
        *(linear(f"linear_attn.in_proj_{name}", hidden, width, SSM) for name, width in inside),
        norm("linear_attn.norm", value_head),
        linear("linear_attn.out_proj", value, hidden, SSM),
    )


def _delta(facts: Facts) -> tuple[Piece, ...]:
    """Kimi delta attention."""
    hidden, heads = facts.hidden_size, facts.whole("linear_num_heads")
    head = facts.whole("linear_head_dim")
    width, group = heads * head, "attention"
    return (
        *(linear(f"self_attn.{name}_proj", hidden, width, group) for name in "qkv"),
        other("self_attn.conv1d", group, 3 * width, facts.whole("linear_conv_kernel_dim", default=4)),
        other("self_attn.forget_gate.dt_bias", group, width),
        other("self_attn.forget_gate.A_log", group, heads),
        linear("self_attn.forget_gate.f_a_proj", hidden, head, group),
        linear("self_attn.forget_gate.f_b_proj", head, width, group),
        linear("self_attn.b_proj", hidden, heads, group),
        linear("self_attn.g_a_proj", hidden, head, group),
        linear("self_attn.g_b_proj", head, width, group),
        norm("self_attn.o_norm", head),
        linear("self_attn.o_proj", width, hidden, group),
    )


def _lightning(facts: Facts) -> tuple[Piece, ...]:
    """MiniMax's lightning attention."""
    hidden, width = facts.hidden_size, facts.num_heads * facts.head_dim
    return (
        norm("self_attn.norm", width),
        linear("self_attn.qkv_proj", hidden, 3 * width, "attention"),
        linear("self_attn.out_proj", width, hidden, "attention"),
        linear("self_attn.output_gate", hidden, width, "attention"),
    )


def _dense(facts: Facts) -> tuple[Piece, ...]:
    return gated_mlp(facts.hidden_size, facts.whole("intermediate_size"))


def _experts(facts: Facts) -> tuple[Piece, ...]:
    hidden = facts.hidden_size
    if facts.model_type == "kimi_linear":
        return mla.experts(facts)
    if facts.model_type == "minimax":
        return fused_experts(facts.whole("num_local_experts"), hidden, facts.whole("intermediate_size"))
    return (
        *fused_experts(facts.whole("num_experts"), hidden, facts.whole("moe_intermediate_size")),
        *gated_mlp(
            hidden,
            facts.whole("shared_expert_intermediate_size"),
            prefix="mlp.shared_expert.",
            group="shared_experts",
        ),
        linear("mlp.shared_expert_gate", hidden, 1, "shared_experts"),
    )


def _shape(facts: Facts, num_layers: int) -> ExpertsShape:
    if facts.model_type == "kimi_linear":
        return mla.shape(facts, ["sparse"] * num_layers)
    is_minimax = facts.model_type == "minimax"
    return ExpertsShape(
        num_experts=facts.whole("num_local_experts" if is_minimax else "num_experts"),
        num_experts_per_token=facts.whole("num_experts_per_tok"),
        intermediate_size=facts.whole("intermediate_size" if is_minimax else "moe_intermediate_size"),
        num_layers=num_layers,
        shared_intermediate_size=facts.whole("shared_expert_intermediate_size", default=0)
        if not is_minimax
        else 0,
    )
