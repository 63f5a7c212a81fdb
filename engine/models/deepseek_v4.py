"""DeepSeek-V4: compressed attention, hash-routed layers and hyper-connections."""

from ..specs.model import ExpertsShape
from .decoder import ends, fused_experts, gated_mlp, norms
from .facts import Facts, Unknown
from .parts import Block, Body, Piece, layers, linear, norm, other

MODEL_TYPES = frozenset({"deepseek_v4"})
FINE = 4
"""Tokens per compressed entry where an indexer picks among the entries; other ratios read all of them."""


def body(facts: Facts) -> Body:
    """Return the blocks of a DeepSeek-V4."""
    ratios = facts.wholes("compress_ratios")[: facts.num_layers]
    if len(ratios) != facts.num_layers:
        raise Unknown("compress_ratios does not name every layer")
    if facts.flag("mlp_bias", default=False):
        raise Unknown("mlp_bias of deepseek_v4 is not in the closed form")
    hidden, streams = facts.hidden_size, facts.whole("hc_mult")
    experts, width = facts.whole("n_routed_experts"), facts.whole("moe_intermediate_size")
    shared = (facts.optional("n_shared_experts") or 0) * width
    common = (
        *_attention(facts),
        *fused_experts(experts, hidden, width),
        *gated_mlp(hidden, shared, prefix="mlp.shared_experts.", group="shared_experts"),
        *norms(hidden),
        _connection("attn_hc", "other", hidden, streams),
        _connection("ffn_hc", "mlp", hidden, streams),
    )
    before, after = ends(facts, tied=False)
    head = other("hc_head", "other", streams * streams * hidden + streams + 1)
    return Body(
        before
        + layers("DeepseekV4DecoderLayer", ratios, lambda ratio: common + _compressor(facts, ratio))
        + after
        + (Block((head,)),),
        ExpertsShape(
            num_experts=experts,
            num_experts_per_token=facts.whole("num_experts_per_tok"),
            intermediate_size=width,
            num_layers=facts.num_layers,
            shared_intermediate_size=shared,
        ),
    )


def _connection(path: str, group: str, hidden: int, streams: int) -> Piece:
    """Mixing weights of the residual streams, their base and three scales."""
    outputs = streams * (streams + 2)
    return other(path, group, outputs * streams * hidden + outputs + 3)


def _attention(facts: Facts) -> tuple[Piece, ...]:
    hidden, heads, head = facts.hidden_size, facts.num_heads, facts.whole("head_dim")
    rank, groups = facts.whole("q_lora_rank"), facts.whole("o_groups")
    out = groups * facts.whole("o_lora_rank")
    return (
        other("self_attn.sinks", "attention", heads),
        linear("self_attn.q_a_proj", hidden, rank, "attention"),
        norm("self_attn.q_a_norm", rank),
        linear("self_attn.q_b_proj", rank, heads * head, "attention"),
        linear("self_attn.kv_proj", hidden, head, "attention"),
        norm("self_attn.kv_norm", head),
        linear("self_attn.o_a_proj", heads * head // groups, out, "attention"),
        linear("self_attn.o_b_proj", out, hidden, "attention"),
    )


def _compressor(facts: Facts, ratio: int) -> tuple[Piece, ...]:
    if not ratio:
        return ()
    hidden, head = facts.hidden_size, facts.whole("head_dim")
    width = 2 * head if ratio == FINE else head
    pieces: tuple[Piece, ...] = (
        other("self_attn.compressor.position_bias", "attention", ratio, width),
        linear("self_attn.compressor.kv_proj", hidden, width, "attention"),
        linear("self_attn.compressor.gate_proj", hidden, width, "attention"),
        norm("self_attn.compressor.kv_norm", head),
    )
    return (*pieces, *_indexer(facts)) if ratio == FINE else pieces


def _indexer(facts: Facts) -> tuple[Piece, ...]:
    hidden, heads, head = facts.hidden_size, facts.whole("index_n_heads"), facts.whole("index_head_dim")
    start, group = "self_attn.compressor.indexer.", "linear_attention_ssm"
    return (
        other(f"{start}position_bias", group, FINE, 2 * head),
        linear(f"{start}kv_proj", hidden, 2 * head, group),
        linear(f"{start}gate_proj", hidden, 2 * head, group),
        norm(f"{start}kv_norm", head),
        linear(f"{start}q_b_proj", facts.whole("q_lora_rank"), heads * head, group),
        linear(f"{start}scorer.weights_proj", hidden, heads, group),
    )
