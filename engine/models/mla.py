"""Decoders with multi-head latent attention: the DeepSeek line and those that follow it."""

from ..specs.model import ExpertsShape, LatentAttention
from .decoder import ends, fused_experts, gated_mlp, norms
from .facts import Facts, Unknown
from .parts import Body, Piece, layers, linear, norm

UNITS = {
    "deepseek_v2": "DeepseekV2DecoderLayer",
    "deepseek_v3": "DeepseekV3DecoderLayer",
    "deepseek_v32": "DeepseekV32DecoderLayer",
    "mistral4": "Mistral4DecoderLayer",
    "glm4_moe_lite": "Glm4MoeLiteDecoderLayer",
}
MODEL_TYPES = frozenset(UNITS)


def body(facts: Facts) -> Body:
    """Return the blocks of a model with latent attention."""
    if facts.model_type == "deepseek_v2" and facts.flag("mlp_bias", default=False):
        raise Unknown("mlp_bias of deepseek_v2 is not in the closed form")
    kinds = _kinds(facts)
    common = (*latent_attention(facts), *_indexer(facts), *norms(facts.hidden_size))

    def make(kind: str) -> tuple[Piece, ...]:
        if kind == "dense":
            return common + gated_mlp(facts.hidden_size, facts.whole("intermediate_size"))
        return common + experts(facts)

    before, after = ends(facts, tied=False)
    return Body(before + layers(UNITS[facts.model_type], kinds, make) + after, shape(facts, kinds))


def _kinds(facts: Facts) -> list[str]:
    types = facts.names("mlp_layer_types")
    if types is not None and len(types) == facts.num_layers:
        return list(types)
    usual = 1 if facts.model_type == "glm4_moe_lite" else 0
    dense = facts.whole("first_k_dense_replace", default=usual, low=0)
    return ["dense" if layer < dense else "sparse" for layer in range(facts.num_layers)]


def latent(facts: Facts) -> LatentAttention:
    """Return the ranks and widths."""
    return LatentAttention(
        q_lora_rank=facts.optional("q_lora_rank", low=1),
        kv_lora_rank=facts.whole("kv_lora_rank"),
        qk_rope_head_dim=facts.whole("qk_rope_head_dim"),
        qk_nope_head_dim=facts.whole("qk_nope_head_dim"),
        v_head_dim=facts.whole("v_head_dim"),
    )


def latent_attention(facts: Facts) -> tuple[Piece, ...]:
    """Return the projections; the compressed ones and the output have biases when the file says so."""
    hidden, heads, ranks = facts.hidden_size, facts.num_heads, latent(facts)
    bias = facts.flag("attention_bias", default=False)
    q_width = heads * ranks.qk_head_dim
    queries: tuple[Piece, ...]
    if ranks.q_lora_rank is None:
        queries = (linear("self_attn.q_proj", hidden, q_width, "attention"),)
    else:
        queries = (
            linear("self_attn.q_a_proj", hidden, ranks.q_lora_rank, "attention", bias=bias),
            norm("self_attn.q_a_layernorm", ranks.q_lora_rank),
            linear("self_attn.q_b_proj", ranks.q_lora_rank, q_width, "attention"),
        )
    compressed = ranks.kv_lora_rank + ranks.qk_rope_head_dim
    kv_width = heads * (ranks.qk_nope_head_dim + ranks.v_head_dim)
    return (
        *queries,
        linear("self_attn.kv_a_proj_with_mqa", hidden, compressed, "attention", bias=bias),
        norm("self_attn.kv_a_layernorm", ranks.kv_lora_rank),
        linear("self_attn.kv_b_proj", ranks.kv_lora_rank, kv_width, "attention"),
        linear("self_attn.o_proj", heads * ranks.v_head_dim, hidden, "attention", bias=bias),
    )


def experts(facts: Facts) -> tuple[Piece, ...]:
    """Return routed and shared experts."""
    hidden, width = facts.hidden_size, facts.whole("moe_intermediate_size")
    pieces = fused_experts(facts.whole("n_routed_experts", "num_experts"), hidden, width)
    shared = _num_shared(facts) * width
    if shared:
        pieces += gated_mlp(hidden, shared, prefix="mlp.shared_experts.", group="shared_experts")
    return pieces


def shape(facts: Facts, kinds: list[str]) -> ExpertsShape:
    """Return the facts of the mixture of experts."""
    width = facts.whole("moe_intermediate_size")
    return ExpertsShape(
        num_experts=facts.whole("n_routed_experts", "num_experts"),
        num_experts_per_token=facts.whole("num_experts_per_tok", "num_experts_per_token"),
        intermediate_size=width,
        num_layers=kinds.count("sparse"),
        shared_intermediate_size=_num_shared(facts) * width,
    )


def _num_shared(facts: Facts) -> int:
    return facts.optional("n_shared_experts", "num_shared_experts") or 0


def _indexer(facts: Facts) -> tuple[Piece, ...]:
    """The part of DeepSeek-V3.2 that picks the tokens to attend to."""
    if facts.model_type != "deepseek_v32":
        return ()
    heads, head, group = facts.whole("index_n_heads"), facts.whole("index_head_dim"), "linear_attention_ssm"
    return (
        linear("self_attn.indexer.wq_b", facts.whole("q_lora_rank"), heads * head, group),
        linear("self_attn.indexer.wk", facts.hidden_size, head, group),
        norm("self_attn.indexer.k_norm", head, bias=True),
        linear("self_attn.indexer.weights_proj", facts.hidden_size, heads, group),
    )
