"""Decoders with a mixture of experts and ordinary attention."""

from collections.abc import Callable
from dataclasses import dataclass

from ..specs.model import ExpertsShape
from .decoder import attention, ends, fused_experts, gated_mlp, norms
from .facts import Facts
from .parts import Body, Piece, Sort, fused, layers, linear, other


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """How a family of mixtures of experts is built. A text is the key that decides."""

    unit: str
    num_experts: str
    width: str = "moe_intermediate_size"
    """Key of the width of one expert."""
    top_k: str = "num_experts_per_tok"
    qkv_bias: str | bool = "attention_bias"
    out_bias: str | bool = "attention_bias"
    bias_by_default: bool = False
    qk_norm: str | None = None
    router: str = "gate"
    shared: str | None = None
    """What stands beside the experts: ``gated`` (Qwen2), ``number`` (of experts), ``one``."""
    tied: bool = False


VARIANTS = {
    "mixtral": Variant(
        unit="MixtralDecoderLayer",
        num_experts="num_local_experts",
        width="intermediate_size",
        qkv_bias=False,
        out_bias=False,
    ),
    "qwen2_moe": Variant(
        unit="Qwen2MoeDecoderLayer",
        num_experts="num_experts",
        qkv_bias="qkv_bias",
        out_bias=False,
        bias_by_default=True,
        shared="gated",
    ),
    "qwen3_moe": Variant(unit="Qwen3MoeDecoderLayer", num_experts="num_experts", qk_norm="head"),
    "qwen3_vl_moe_text": Variant(
        unit="Qwen3VLMoeTextDecoderLayer", num_experts="num_experts", qk_norm="head", tied=True
    ),
    "olmoe": Variant(
        unit="OlmoeDecoderLayer", num_experts="num_experts", width="intermediate_size", qk_norm="full"
    ),
    "phimoe": Variant(
        unit="PhimoeDecoderLayer", num_experts="num_local_experts", width="intermediate_size", router="router"
    ),
    "gpt_oss": Variant(
        unit="GptOssDecoderLayer",
        num_experts="num_local_experts",
        width="intermediate_size",
        bias_by_default=True,
        router="router",
    ),
    "glm4_moe": Variant(
        unit="Glm4MoeDecoderLayer", num_experts="n_routed_experts", out_bias=False, shared="number"
    ),
    "ernie4_5_moe": Variant(
        unit="Ernie4_5_MoeDecoderLayer",
        num_experts="moe_num_experts",
        top_k="moe_k",
        qkv_bias="use_bias",
        out_bias="use_bias",
        shared="number",
        tied=True,
    ),
    "minimax_m2": Variant(
        unit="MiniMaxM2DecoderLayer",
        num_experts="num_local_experts",
        width="intermediate_size",
        qkv_bias=False,
        out_bias=False,
        qk_norm="full",
    ),
    "llama4_text": Variant(
        unit="Llama4TextDecoderLayer",
        num_experts="num_local_experts",
        width="intermediate_size",
        router="router",
        shared="one",
    ),
}
"""Model type -> how it is built; read off transformers 5.23 and held by the recorded counts."""

MODEL_TYPES = frozenset(VARIANTS)


def body(facts: Facts) -> Body:
    """Return the blocks of a mixture of experts."""
    variant = VARIANTS[facts.model_type]
    sparse = sparse_layers(facts)
    kinds = ["sparse" if layer in sparse else "dense" for layer in range(facts.num_layers)]
    common = (*_attention(facts, variant), *_norms(facts))

    def make(kind: str) -> tuple[Piece, ...]:
        return common + (_sparse(facts, variant) if kind == "sparse" else _dense(facts))

    biased = facts.model_type == "phimoe"
    head_bias = _ernie_bias(facts) or (biased and facts.flag("lm_head_bias", default=False))
    before, after = ends(facts, tied=variant.tied, norm_bias=biased, head_bias=head_bias)
    return Body(before + layers(variant.unit, kinds, make) + after, _shape(facts, variant, kinds))


def sparse_layers(facts: Facts) -> frozenset[int]:
    """Return the layers that have experts."""
    every = range(facts.num_layers)
    if facts.model_type == "glm4_moe":
        return frozenset(every[facts.optional("first_k_dense_replace") or 0 :])
    if facts.model_type == "ernie4_5_moe":
        return _ernie_layers(facts)
    if facts.model_type == "llama4_text":
        step = facts.whole("interleave_moe_layer_step", default=1)
        return frozenset(facts.wholes("moe_layers")) & frozenset(every) or frozenset(every[step - 1 :: step])
    if facts.model_type in {"qwen2_moe", "qwen3_moe", "qwen3_vl_moe_text"}:
        return stepped_layers(facts)
    return frozenset(every)


def stepped_layers(facts: Facts) -> frozenset[int]:
    """Return Qwen's layers with experts: every so many, but for those that are named."""
    step = facts.whole("decoder_sparse_step", default=1)
    return frozenset(range(facts.num_layers)[step - 1 :: step]) - frozenset(facts.wholes("mlp_only_layers"))


def _ernie_layers(facts: Facts) -> frozenset[int]:
    start = facts.optional("moe_layer_start_index") or 0
    # -1 stands for the last layer, as transformers writes it.
    end = facts.value("moe_layer_end_index")
    last = end if isinstance(end, int) and end >= 0 else facts.num_layers - 1
    step = facts.whole("moe_layer_interval", default=1)
    return frozenset(
        layer for layer in range(facts.num_layers) if (layer + 1) % step == 0 and start <= layer <= last
    )


def _shape(facts: Facts, variant: Variant, kinds: list[str]) -> ExpertsShape:
    return ExpertsShape(
        num_experts=_number(facts, variant),
        num_experts_per_token=facts.whole(variant.top_k, "num_experts_per_tok"),
        intermediate_size=facts.whole(variant.width),
        num_layers=kinds.count("sparse"),
        shared_intermediate_size=_shared_width(facts, variant),
    )


def _number(facts: Facts, variant: Variant) -> int:
    return facts.whole(variant.num_experts, "num_experts", "num_local_experts")


def _shared_width(facts: Facts, variant: Variant) -> int:
    if variant.shared == "gated":
        return facts.whole("shared_expert_intermediate_size")
    if variant.shared == "one":
        return facts.whole(variant.width)
    if variant.shared == "number":
        number = facts.optional("n_shared_experts", "moe_num_shared_experts") or 0
        return number * facts.whole(variant.width)
    return 0


def _attention(facts: Facts, variant: Variant) -> tuple[Piece, ...]:
    def flag(key: str | bool) -> bool:  # noqa: FBT001 - a field's value
        return key if isinstance(key, bool) else facts.flag(key, default=variant.bias_by_default)

    qk_norm = variant.qk_norm
    if facts.flag("use_qk_norm", default=False) and facts.model_type == "glm4_moe":
        qk_norm = "head"
    pieces = attention(
        facts, qkv_bias=flag(variant.qkv_bias), out_bias=flag(variant.out_bias), qk_norm=qk_norm
    )
    if facts.model_type == "gpt_oss":
        pieces += (other("self_attn.sinks", "attention", facts.num_heads),)
    return pieces


def _norms(facts: Facts) -> tuple[Piece, ...]:
    return norms(facts.hidden_size, bias=facts.model_type == "phimoe")


def _ernie_bias(facts: Facts) -> bool:
    return facts.model_type == "ernie4_5_moe" and facts.flag("use_bias", default=False)


def _dense(facts: Facts) -> tuple[Piece, ...]:
    if facts.model_type == "llama4_text":
        return gated_mlp(facts.hidden_size, facts.whole("intermediate_size_mlp"), prefix="feed_forward.")
    return gated_mlp(facts.hidden_size, facts.whole("intermediate_size"), bias=_ernie_bias(facts))


def _sparse(facts: Facts, variant: Variant) -> tuple[Piece, ...]:
    special: dict[str, Callable[[Facts], tuple[Piece, ...]]] = {
        "gpt_oss": _gpt_oss_experts,
        "llama4_text": _llama4_experts,
    }
    if facts.model_type in special:
        return special[facts.model_type](facts)
    hidden = facts.hidden_size
    number = _number(facts, variant)
    pieces = fused_experts(number, hidden, facts.whole(variant.width), router=variant.router)
    if facts.model_type == "phimoe":  # its router is a linear layer
        pieces = (linear("mlp.router", hidden, number, "router"), *pieces[1:])
    if facts.model_type == "ernie4_5_moe":
        pieces += (other("mlp.gate.moe_statics", "router", number),)
    width = _shared_width(facts, variant)
    if variant.shared == "gated":
        pieces += gated_mlp(hidden, width, prefix="mlp.shared_expert.", group="shared_experts")
        pieces += (linear("mlp.shared_expert_gate", hidden, 1, "shared_experts"),)
    elif width:
        bias = _ernie_bias(facts)
        pieces += gated_mlp(hidden, width, prefix="mlp.shared_experts.", group="shared_experts", bias=bias)
    return pieces


def _gpt_oss_experts(facts: Facts) -> tuple[Piece, ...]:
    hidden, number = facts.hidden_size, facts.whole("num_local_experts")
    width = facts.whole("intermediate_size")
    return (
        Piece("mlp.router", "router", (hidden, number), Sort.OTHER, bias=True),
        fused("mlp.experts.gate_up_proj", number, hidden, 2 * width),
        fused("mlp.experts.gate_up_proj_bias", number, 2 * width),
        fused("mlp.experts.down_proj", number, width, hidden),
        fused("mlp.experts.down_proj_bias", number, hidden),
    )


def _llama4_experts(facts: Facts) -> tuple[Piece, ...]:
    hidden, number = facts.hidden_size, facts.whole("num_local_experts")
    width = facts.whole("intermediate_size")
    return (
        fused("feed_forward.experts.gate_up_proj", number, hidden, 2 * width),
        fused("feed_forward.experts.down_proj", number, width, hidden),
        linear("feed_forward.router", hidden, number, "router"),
        *gated_mlp(hidden, width, prefix="feed_forward.shared_expert.", group="shared_experts"),
    )
