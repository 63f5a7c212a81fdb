"""Pieces that most decoders share: embedding, attention, gated MLP, experts, output layer."""

from collections.abc import Sequence
from dataclasses import replace

from .facts import Facts
from .parts import Block, Piece, fused, linear, norm, other

NORMS = ("input_layernorm", "post_attention_layernorm")


def norms(width: int, names: Sequence[str] = NORMS, *, bias: bool = False) -> tuple[Piece, ...]:
    """Return the normalisations of a layer."""
    return tuple(norm(name, width, bias=bias) for name in names)


def attention(
    facts: Facts,
    *,
    qkv_bias: bool = False,
    out_bias: bool = False,
    qk_norm: str | None = None,
    gated: bool = False,
    prefix: str = "self_attn.",
    out: str = "o_proj",
    norm_names: tuple[str, str] = ("q_norm", "k_norm"),
) -> tuple[Piece, ...]:
    """Return query, key, value and output projections.

    Args:
        facts: The configuration.
        qkv_bias: Query, key and value have a bias.
        out_bias: The output has a bias.
        qk_norm: ``head``: queries and keys are normalised per head; ``full``: over all heads.
        gated: The query projection makes a gate of the output too.
        prefix: What the paths start with.
        out: Name of the output projection.
        norm_names: Names of the normalisations of queries and keys.
    """
    hidden, head = facts.hidden_size, facts.head_dim
    q_width, kv_width = facts.num_heads * head, facts.num_kv_heads * head
    pieces = [
        linear(f"{prefix}q_proj", hidden, q_width * (2 if gated else 1), "attention", bias=qkv_bias),
        linear(f"{prefix}k_proj", hidden, kv_width, "attention", bias=qkv_bias),
        linear(f"{prefix}v_proj", hidden, kv_width, "attention", bias=qkv_bias),
        linear(f"{prefix}{out}", q_width, hidden, "attention", bias=out_bias),
    ]
    if qk_norm:
        widths = (head, head) if qk_norm == "head" else (q_width, kv_width)
        pieces += [norm(prefix + name, width) for name, width in zip(norm_names, widths, strict=True)]
    return tuple(pieces)


def gated_mlp(
    hidden: int, width: int, *, prefix: str = "mlp.", group: str = "mlp", bias: bool = False
) -> tuple[Piece, ...]:
    """Return an MLP with a gate."""
    return (
        linear(f"{prefix}gate_proj", hidden, width, group, bias=bias),
        linear(f"{prefix}up_proj", hidden, width, group, bias=bias),
        linear(f"{prefix}down_proj", width, hidden, group, bias=bias),
    )


def plain_mlp(
    hidden: int, width: int, *, names: tuple[str, str], bias: bool, group: str = "mlp"
) -> tuple[Piece, ...]:
    """Return an MLP of two layers."""
    up, down = names
    return (linear(up, hidden, width, group, bias=bias), linear(down, width, hidden, group, bias=bias))


def fused_experts(
    num_experts: int, hidden: int, width: int, *, prefix: str = "mlp.", router: str = "gate"
) -> tuple[Piece, ...]:
    """Return experts whose weights are one tensor per projection, and their router (no linear layer)."""
    return (
        other(f"{prefix}{router}", "router", num_experts, hidden),
        fused(f"{prefix}experts.gate_up_proj", num_experts, 2 * width, hidden),
        fused(f"{prefix}experts.down_proj", num_experts, hidden, width),
    )


def ends(
    facts: Facts,
    *,
    tied: bool | None,
    final_norm: str = "norm",
    norm_bias: bool = False,
    head_bias: bool = False,
    embedding: str = "embed_tokens",
    extra: tuple[Piece, ...] = (),
) -> tuple[tuple[Block, ...], tuple[Block, ...]]:
    """Return what stands before and after the layers.

    Untied models have an output layer of their own; in tied ones it is the embedding again. ``tied`` is what
    the family does when the file does not say; ``None``: it never ties, whatever the file says.
    """
    hidden, vocabulary = facts.hidden_size, facts.vocab_size
    is_tied = tied is not None and facts.flag("tie_word_embeddings", default=tied)
    head = linear("lm_head", hidden, vocabulary, "lm_head", bias=head_bias)
    if is_tied:
        head = replace(head, group="embedding", is_tied=True)
    before = Block((other(embedding, "embedding", vocabulary, hidden), *extra))
    after = Block((norm(final_norm, hidden, bias=norm_bias), head))
    return (before,), (after,)
