"""Decoders of the GPT kind: biases everywhere, an MLP of two layers, LayerNorm."""

from .decoder import attention, ends, gated_mlp, norms, plain_mlp
from .facts import Facts, Unknown
from .parts import Block, Body, Piece, layers, linear, norm, other

MODEL_TYPES = frozenset({"gpt2", "gpt_neox", "bloom", "opt", "falcon", "starcoder2", "stablelm", "phi"})


def body(facts: Facts) -> Body:
    """Return the blocks of a GPT-style decoder."""
    makers = {
        "gpt2": _gpt2,
        "gpt_neox": _gpt_neox,
        "bloom": _bloom,
        "opt": _opt,
        "falcon": _falcon,
        "starcoder2": _starcoder2,
        "stablelm": _stablelm,
        "phi": _phi,
    }
    return makers[facts.model_type](facts)


def _stack(
    facts: Facts, unit: str, pieces: tuple[Piece, ...], outside: tuple[tuple[Block, ...], tuple[Block, ...]]
) -> Body:
    before, after = outside
    return Body(before + layers(unit, ["layer"] * facts.num_layers, lambda _: pieces) + after)


def _fused_attention(
    facts: Facts, prefix: str, names: tuple[str, str], width: int, *, bias: bool
) -> tuple[Piece, ...]:
    hidden = facts.hidden_size
    qkv, out = names
    return (
        linear(prefix + qkv, hidden, width, "attention", bias=bias),
        linear(prefix + out, hidden, hidden, "attention", bias=bias),
    )


def _gpt2(facts: Facts) -> Body:
    hidden = facts.hidden_size
    positions = facts.whole("n_positions", "max_position_embeddings")
    pieces = (
        *norms(hidden, ("ln_1", "ln_2"), bias=True),
        *_fused_attention(facts, "attn.", ("c_attn", "c_proj"), 3 * hidden, bias=True),
        *plain_mlp(
            hidden,
            facts.whole("n_inner", default=4 * hidden),
            names=("mlp.c_fc", "mlp.c_proj"),
            bias=True,
        ),
    )
    wpe = other("wpe", "embedding", positions, hidden)
    return _stack(
        facts,
        "GPT2Block",
        pieces,
        ends(facts, tied=True, norm_bias=True, embedding="wte", final_norm="ln_f", extra=(wpe,)),
    )


def _gpt_neox(facts: Facts) -> Body:
    hidden = facts.hidden_size
    pieces = (
        *norms(hidden, bias=True),
        *_fused_attention(
            facts,
            "attention.",
            ("query_key_value", "dense"),
            3 * hidden,
            bias=facts.flag("attention_bias", default=True),
        ),
        *plain_mlp(
            hidden,
            facts.whole("intermediate_size"),
            names=("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
            bias=True,
        ),
    )
    outside = ends(facts, tied=False, norm_bias=True, embedding="embed_in", final_norm="final_layer_norm")
    return _stack(facts, "GPTNeoXLayer", pieces, outside)


def _bloom(facts: Facts) -> Body:
    hidden = facts.hidden_size
    pieces = (
        *norms(hidden, bias=True),
        *_fused_attention(facts, "self_attention.", ("query_key_value", "dense"), 3 * hidden, bias=True),
        *plain_mlp(hidden, 4 * hidden, names=("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"), bias=True),
    )
    first = norm("word_embeddings_layernorm", hidden, bias=True)
    outside = ends(
        facts, tied=True, norm_bias=True, embedding="word_embeddings", final_norm="ln_f", extra=(first,)
    )
    return _stack(facts, "BloomBlock", pieces, outside)


def _opt(facts: Facts) -> Body:
    hidden, vocabulary = facts.hidden_size, facts.vocab_size
    width = facts.whole("word_embed_proj_dim", default=hidden)
    bias = facts.flag("enable_bias", default=True)
    is_pre_norm = facts.flag("do_layer_norm_before", default=True)
    pieces = (
        *(
            linear(f"self_attn.{name}", hidden, hidden, "attention", bias=bias)
            for name in ("k_proj", "v_proj", "q_proj", "out_proj")
        ),
        *norms(hidden, ("self_attn_layer_norm", "final_layer_norm"), bias=True),
        *plain_mlp(hidden, facts.whole("ffn_dim"), names=("fc1", "fc2"), bias=bias),
    )
    before = [
        other("embed_tokens", "embedding", vocabulary, width),
        other("embed_positions", "embedding", facts.whole("max_position_embeddings") + 2, hidden),
    ]
    if width != hidden:
        before.append(linear("project_out", hidden, width, "other"))
        before.append(linear("project_in", width, hidden, "other"))
    if is_pre_norm and not facts.flag("_remove_final_layer_norm", default=False):
        before.append(norm("final_layer_norm", hidden, bias=True))
    head = linear("lm_head", width, vocabulary, "lm_head")
    if facts.flag("tie_word_embeddings", default=True):
        head = Piece(head.path, "embedding", head.shape, head.sort, is_tied=True)
    return _stack(facts, "OPTDecoderLayer", pieces, ((Block(tuple(before)),), (Block((head,)),)))


def _falcon(facts: Facts) -> Body:
    hidden, heads, bias = facts.hidden_size, facts.num_heads, facts.flag("bias", default=False)
    head = hidden // heads
    if facts.flag("new_decoder_architecture", default=False):
        width = (heads + 2 * facts.whole("num_kv_heads", default=heads)) * head
        num_norms = facts.whole("num_ln_in_parallel_attn", default=2)
    else:
        width = hidden + 2 * head if facts.flag("multi_query", default=True) else 3 * hidden
        num_norms = 1 if facts.flag("parallel_attn", default=True) else 2
    pieces = (
        *_fused_attention(facts, "self_attention.", ("query_key_value", "dense"), width, bias=bias),
        *plain_mlp(
            hidden,
            facts.whole("ffn_hidden_size", default=4 * hidden),
            names=("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
            bias=bias,
        ),
        *norms(hidden, ("input_layernorm", "post_attention_layernorm")[:num_norms], bias=True),
    )
    outside = ends(facts, tied=True, norm_bias=True, embedding="word_embeddings", final_norm="ln_f")
    return _stack(facts, "FalconDecoderLayer", pieces, outside)


def _starcoder2(facts: Facts) -> Body:
    hidden, bias = facts.hidden_size, facts.flag("use_bias", default=True)
    pieces = (
        *attention(facts, qkv_bias=bias, out_bias=bias),
        *plain_mlp(hidden, facts.whole("intermediate_size"), names=("mlp.c_fc", "mlp.c_proj"), bias=bias),
        *norms(hidden, bias=True),
    )
    return _stack(facts, "Starcoder2DecoderLayer", pieces, ends(facts, tied=True, norm_bias=True))


def _stablelm(facts: Facts) -> Body:
    if facts.flag("qk_layernorm", default=False):
        raise Unknown("qk_layernorm of stablelm is not in the closed form")
    hidden = facts.hidden_size
    num_norms = 1 if facts.flag("use_parallel_residual", default=False) else 2
    pieces = (
        *attention(facts, qkv_bias=facts.flag("use_qkv_bias", default=False)),
        *gated_mlp(hidden, facts.whole("intermediate_size")),
        *norms(hidden, ("input_layernorm", "post_attention_layernorm")[:num_norms], bias=True),
    )
    return _stack(facts, "StableLmDecoderLayer", pieces, ends(facts, tied=False, norm_bias=True))


def _phi(facts: Facts) -> Body:
    if facts.flag("qk_layernorm", default=False):
        raise Unknown("qk_layernorm of phi is not in the closed form")
    hidden = facts.hidden_size
    pieces = (
        *attention(facts, qkv_bias=True, out_bias=True, out="dense"),
        *plain_mlp(hidden, facts.whole("intermediate_size"), names=("mlp.fc1", "mlp.fc2"), bias=True),
        norm("input_layernorm", hidden, bias=True),
    )
    outside = ends(facts, tied=False, norm_bias=True, head_bias=True, final_norm="final_layernorm")
    return _stack(facts, "PhiDecoderLayer", pieces, outside)
