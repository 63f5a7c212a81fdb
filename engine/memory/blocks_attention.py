"""Attention of transformers' decoders on a tape: projections, positions, every kind of kernel.

Sources: transformers 5.23 (models/llama, integrations/sdpa_attention.py, flash_attention.py), torch 2.13
(aten/src/ATen/native/transformers: what flash and memory-efficient attention keep and hold).
"""

from dataclasses import dataclass
from typing import NamedTuple

from .blocks import Norm, norm, rotate
from .blocks_torch import FP32, HALF, Torch, Weight
from .tape import Tensor
from .tape_sizes import Part, Per

Heads = tuple[Tensor, Tensor, Tensor]
"""Queries, keys, values."""


@dataclass(frozen=True, slots=True)
class Attention:
    """Heads, projections and kernel of an attention."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    out: Weight
    query: Weight | None = None
    key: Weight | None = None
    value: Weight | None = None
    fused: Weight | None = None
    """Query, key and value in one linear layer."""
    splits_once: bool = False
    """By one operation, whose backward joins the gradients; otherwise by slices."""
    kernel: str = "sdpa"
    value_dim: int | None = None
    """Width of a value head, where it is another than that of keys."""
    query_norm: Norm | None = None
    key_norm: Norm | None = None
    rotates: bool = True
    is_gated: bool = False
    """The query projection makes a gate of the output too (Qwen3-Next)."""
    softcap: bool = False
    has_sinks: bool = False
    """Every head has one score more, of no token (GPT-OSS)."""

    @property
    def query_width(self) -> int:
        """Width of all queries."""
        return self.num_heads * self.head_dim

    @property
    def key_width(self) -> int:
        """Width of all keys."""
        return self.num_kv_heads * self.head_dim


def attention(t: Torch, x: Tensor, spec: Attention) -> Tensor:
    """Run an attention with ordinary projections."""
    if spec.fused:
        query, key, value = _split(t, t.linear(x, spec.fused), spec)
        gate = None
    else:
        assert spec.query
        assert spec.key
        assert spec.value
        query, gate = _query(t, x, spec)
        key = _normed(t, t.linear(x, spec.key), spec.key_norm)
        value = t.linear(x, spec.value)
    if spec.rotates:
        query, key = rotate(t, query, "query"), rotate(t, key, "key")
    heads = query, key, value
    del query, key, value
    out = attend(t, heads, spec)
    if gate is not None:
        out = t.mul(
            out, t.tape.op([gate], "gate", gate.width, gate.item_bytes, keeps_output=True), "gated output"
        )
    return t.linear(out, spec.out)


def _query(t: Torch, x: Tensor, spec: Attention) -> tuple[Tensor, Tensor | None]:
    assert spec.query
    query = t.linear(x, spec.query)
    if not spec.is_gated:
        return _normed(t, query, spec.query_norm), None
    gate = t.tape.op([query], "gate", query.width // 2, query.item_bytes)
    half = t.tape.op([query], "query", query.width // 2, query.item_bytes)
    return _normed(t, half, spec.query_norm), gate


def _normed(t: Torch, x: Tensor, spec: Norm | None) -> Tensor:
    return norm(t, x, spec) if spec else x


def _split(t: Torch, fused: Tensor, spec: Attention) -> tuple[Tensor, Tensor, Tensor]:
    """Return views of one tensor; the gradient of a slice fills a tensor of the full width."""
    if spec.splits_once:
        widths = ("query", spec.query_width), ("key", spec.key_width), ("value", spec.key_width)
        query, key, value = t.tape.split(fused, *widths)
        return query, key, value
    query = view(t, fused, "query", spec.query_width)
    key, value = (view(t, fused, name, spec.key_width) for name in ("key", "value"))
    return query, key, value


def view(t: Torch, whole: Tensor, name: str, width: int) -> Tensor:
    """Return a slice of a tensor: no bytes of its own."""
    return t.tape.op([whole], name, width, whole.item_bytes, shares=whole)


def attend(t: Torch, heads: Heads, spec: Attention) -> Tensor:
    """Run the kernel; fused ones compute in autocast's format."""
    if spec.kernel == "eager":
        return _eager(t, heads, spec)
    query, key, value = heads
    compute = t.autocast or (HALF if spec.kernel == "flash" else query.item_bytes)
    heads = (
        t.to(query, compute, "query cast"),
        t.to(key, compute, "key cast"),
        t.to(value, compute, "value cast"),
    )
    del query, key, value
    return _masked(t, heads, spec) if spec.kernel == "sdpa-mask" else _fused_kernel(t, heads, spec)


def _fused_kernel(t: Torch, heads: Heads, spec: Attention) -> Tensor:
    """Flash attention: keeps q, k, v, the output and a float32 per head and token.

    Backward: float32 sum of the query's gradient, and gradients of keys and values for every query head.
    """
    query, key, value = heads
    width = spec.num_heads * (spec.value_dim or spec.head_dim)
    statistics = t.tape.tensor("attention statistics", spec.num_heads, FP32)
    scratch = [
        Part("query gradient sum", "gradient", query.width, FP32, "token"),
        Part("attention delta", "gradient", spec.num_heads, FP32, "token"),
    ]
    if spec.num_heads != spec.num_kv_heads:
        scratch += [Part("repeated key gradient", "gradient", query.width, query.item_bytes, "token")]
        scratch += [Part("repeated value gradient", "gradient", width, query.item_bytes, "token")]
    return t.tape.op(
        [query, key, value], "attention output", width, query.item_bytes,
        keeps=[query, key, value, statistics], keeps_output=True, backward_scratch=scratch,
    )  # fmt: skip


def _repeat(t: Torch, x: Tensor, spec: Attention, name: str) -> Tensor:
    """repeat_kv copies keys and values to every query head; a single one is only seen more often."""
    groups = spec.num_heads // spec.num_kv_heads
    if groups == 1:
        return x
    if spec.num_kv_heads == 1:
        return t.tape.op([x], f"repeated {name}", x.width * groups, x.item_bytes, shares=x)
    return t.tape.op([x], f"repeated {name}", x.width * groups, x.item_bytes)


def _masked(t: Torch, heads: Heads, spec: Attention) -> Tensor:
    """Memory-efficient attention with a mask: repeated keys and values, and the mask as numbers, are kept."""
    query, key, value = heads
    key, value = _repeat(t, key, spec, "keys"), _repeat(t, value, spec, "values")
    mask = t.tape.tensor("attention mask as numbers", 1, query.item_bytes, per="pair")
    statistics = t.tape.tensor("attention statistics", spec.num_heads, FP32)
    width = spec.num_heads * (spec.value_dim or spec.head_dim)
    delta = [Part("attention delta", "gradient", spec.num_heads, FP32, "token")]
    return t.tape.op(
        [query, key, value], "attention output", width, query.item_bytes,
        keeps=[query, key, value, mask, statistics], keeps_output=True, backward_scratch=delta,
    )  # fmt: skip


def _eager(t: Torch, heads: Heads, spec: Attention) -> Tensor:
    """eager_attention_forward: scores of every head, softmax in float32, a copy in the model's format.

    CUDA's backward of softmax multiplies weights and gradient first (torch 2.13, cuda/SoftMax.cu).
    """
    query, key, value = heads
    key, value = _repeat(t, key, spec, "keys"), _repeat(t, value, spec, "values")
    item_bytes, number, original = t.autocast or query.item_bytes, spec.num_heads, query.item_bytes

    scores = t.times(_product(t, (query, key), "scores", _Extent("pair", number)), "scaled scores")
    if spec.softcap:
        capped = t.tape.op([t.times(scores)], "tanh", number, item_bytes, per="pair", keeps_output=True)
        scores = t.times(capped, "capped scores")
        del capped
    scores = t.tape.op([scores], "masked scores", number, item_bytes, per="pair", passes=True)
    if spec.has_sinks:
        weights = _with_sinks(t, scores, spec)
        del scores
        return _weighted_values(t, weights, value, spec)
    # float16 in and float32 out is one kernel, bfloat16 is cast first (torch 2.13, aten/native/SoftMax.cpp).
    widened = t.tape.same(scores) if t.is_float16 else t.to(scores, FP32, "float32 scores")
    product = [Part("weights times their gradient", "gradient", number, FP32, "pair")]
    weights = t.tape.op(
        [widened], "attention weights", number, FP32, per="pair", keeps_output=True, backward_scratch=product
    )
    del widened
    return _weighted_values(t, t.to(weights, original, "attention weights cast"), value, spec)


def _weighted_values(t: Torch, weights: Tensor, value: Tensor, spec: Attention) -> Tensor:
    width = spec.num_heads * (spec.value_dim or spec.head_dim)
    out = _product(t, (weights, value), "attention output", _Extent("token", width))
    return t.copy(out, "attention output copy")


def _with_sinks(t: Torch, scores: Tensor, spec: Attention) -> Tensor:
    """GPT-OSS (models/gpt_oss): scores and sinks, less the largest; softmax in their own format."""
    number, item_bytes = spec.num_heads, scores.item_bytes

    def made(x: Tensor, name: str) -> Tensor:
        return t.tape.op([x], name, number, item_bytes, per="pair")

    joined = t.times(made(scores, "scores and sinks"), "scores less the largest")
    product = [Part("weights times their gradient", "gradient", number, item_bytes, "pair")]
    weights = t.tape.op(
        [joined], "attention weights", number, item_bytes, per="pair", keeps_output=True,
        backward_scratch=product,
    )  # fmt: skip
    return t.tape.op([weights], "weights of tokens", number, item_bytes, per="pair", shares=weights)


class _Extent(NamedTuple):
    per: Per
    width: int


def _product(t: Torch, factors: tuple[Tensor, Tensor], name: str, extent: _Extent) -> Tensor:
    item_bytes = t.autocast or factors[0].item_bytes
    a, b = (t.to(factor, item_bytes, f"{name} input cast") for factor in factors)
    return t.tape.op([a, b], name, extent.width, item_bytes, per=extent.per, keeps=[a, b])
