"""Mixers that are no ordinary attention, on a tape: latent attention, linear attention, state spaces.

Latent attention is exact. The others are coarse: what they keep depends on kernels that may or may not be
installed (flash-linear-attention, mamba-ssm, causal-conv1d); without them transformers computes in float32.
"""

from dataclasses import dataclass

from .blocks import Norm, norm, rotate
from .blocks_attention import Attention, attend
from .blocks_torch import FP32, Torch, Weight
from .tape import Tensor
from .tape_sizes import Part

CHUNK = 64
"""Tokens of a chunk of gated linear attention: torch_chunk_gated_delta_rule."""


@dataclass(frozen=True, slots=True)
class Latent:
    """Multi-head latent attention: DeepseekV3Attention of transformers 5.23."""

    core: Attention
    """Heads, widths of keys and values, output projection, kernel."""
    rope_width: int
    """Of one head."""
    latent_width: int
    down: Weight
    """To the latent and the shared key."""
    up: Weight
    """From the latent to keys and values."""
    latent_norm: Norm
    query: Weight | None = None
    query_down: Weight | None = None
    query_up: Weight | None = None
    query_norm: Norm | None = None


def latent_attention(t: Torch, x: Tensor, spec: Latent) -> Tensor:
    """Run latent attention."""
    core, heads = spec.core, spec.core.num_heads
    turned, plain = spec.rope_width, spec.core.head_dim - spec.rope_width
    queries = _latent_query(t, x, spec)
    passed, rotated = t.tape.split(
        queries, ("query without position", heads * plain), ("query", heads * turned)
    )
    compressed = t.linear(x, spec.down)
    latent, key = t.tape.split(compressed, ("latent", spec.latent_width), ("key", turned))
    latent = norm(t, latent, spec.latent_norm)
    rotated, key = rotate(t, rotated, "query"), rotate(t, key, "key")
    query = t.tape.op([passed, rotated], "query", heads * core.head_dim, rotated.item_bytes)
    keys, values = _expanded(t, latent, key, spec)
    out = attend(t, (query, keys, values), core)
    return t.linear(out, core.out)


def _latent_query(t: Torch, x: Tensor, spec: Latent) -> Tensor:
    if spec.query:
        return t.linear(x, spec.query)
    assert spec.query_down
    assert spec.query_up
    assert spec.query_norm
    return t.linear(norm(t, t.linear(x, spec.query_down), spec.query_norm), spec.query_up)


def _expanded(t: Torch, latent: Tensor, key: Tensor, spec: Latent) -> tuple[Tensor, Tensor]:
    """expand_kv: keys are copied together with the shared rotated key; values are a view."""
    core, heads = spec.core, spec.core.num_heads
    plain, value = core.head_dim - spec.rope_width, core.value_dim or core.head_dim
    both = t.linear(latent, spec.up)
    plain_keys, values = t.tape.split(both, ("key without position", heads * plain), ("value", heads * value))
    scratch = [Part("key gradient copy", "gradient", heads * core.head_dim, both.item_bytes, "token")]
    keys = t.tape.op(
        [plain_keys, key], "key", heads * core.head_dim, both.item_bytes, backward_scratch=scratch
    )
    return keys, values


@dataclass(frozen=True, slots=True)
class Recurrent:
    """Linear attention or a state space: projections, a short convolution, a scan, an output projection."""

    inputs: tuple[Weight, ...]
    out: Weight
    conv_width: int
    """Channels of the convolution; 0: none."""
    kept_width: int
    """Elements that the scan keeps per token, float32."""
    gate_width: int = 0


def recurrent(t: Torch, x: Tensor, spec: Recurrent) -> Tensor:
    """Run it: what the scan keeps and holds is one number each."""
    projected = [t.linear(x, weight) for weight in spec.inputs]
    first = projected[0]
    if spec.conv_width:
        joined = t.tape.op([first], "convolution input", spec.conv_width, first.item_bytes)
        first = t.apply(t.apply(joined, "convolution"), "activated convolution")
    scanned = t.tape.tensor("scan", spec.kept_width, FP32)
    mixed = t.tape.op(
        [first, *projected], "scan output", spec.out.num_in, first.item_bytes,
        keeps=[first, scanned],
        backward_scratch=[Part("scan gradients", "gradient", spec.kept_width // 2, FP32, "token")],
    )  # fmt: skip
    del scanned, first
    if spec.gate_width:
        widened = t.to(mixed, FP32, "scan output float32")
        mixed = t.to(t.mul(widened, t.to(projected[-1], FP32), "gated"), mixed.item_bytes)
    return t.linear(mixed, spec.out)


def delta_rule_width(*, value_heads: int, key_dim: int, value_dim: int) -> int:
    """Return what torch_chunk_gated_delta_rule keeps per token.

    Counted from transformers 5.23, models/qwen3_next: queries 3, keys 6, values 5, four matrices of a chunk,
    and two states per chunk.
    """
    vectors = value_heads * (9 * key_dim + 5 * value_dim)
    return vectors + value_heads * (4 * CHUNK + 2 * key_dim * value_dim // CHUNK)
