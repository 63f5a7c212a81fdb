"""Attention stand-ins: they allocate what the GPU's kernels keep, and compute nothing.

transformers asks for an attention function and a mask function by name; ``register`` adds ours. Sizes follow
torch 2.13: aten/native/transformers/cuda (flash and memory-efficient kernels and their backward passes).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from ..specs.workload import AttentionKind

FUSED, MASKED = "ftwiz_fused", "ftwiz_masked"
NAMES: dict[AttentionKind, str] = {
    "flash": FUSED,
    "sdpa": MASKED,
    "sdpa-mask": MASKED,
    "flex": FUSED,
    "eager": "eager",
}
"""Kind -> name that transformers knows it by. With ``sdpa`` a mask is made only where none can be skipped."""
_ROW_TILE = 128
"""The flash kernels round rows up to this (flash_api.cpp: seqlen_q_rounded)."""


class FusedAttention(Function):  # type: ignore[misc]
    """Keeps query, key, value, output and one fp32 number per row and head."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        """Return the output; (batch, heads, tokens, width) in, (batch, tokens, heads, width) out."""
        batch, heads, rows, _ = query.shape
        out = query.new_empty(batch, rows, heads, value.shape[-1])
        row_sums = query.new_empty(batch, heads, rows, dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, row_sums, bias)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients; fp32 sums of the query's, and per-head gradients of shared keys."""
        query, key, value, _out, _sums, bias = ctx.saved_tensors
        batch, heads, rows, width = query.shape
        rows_up = -(-rows // _ROW_TILE) * _ROW_TILE
        dots = query.new_empty(batch, heads, rows_up, dtype=torch.float32)
        sums = query.new_empty(batch, heads, rows_up, -(-width // 32) * 32, dtype=torch.float32)
        grad_query = torch.empty_like(query)
        shared = key.shape[1] != heads
        wide = [torch.empty_like(query), torch.empty_like(query)] if shared else []
        result = grad_query, torch.empty_like(key), torch.empty_like(value), None
        del dots, sums, wide, bias
        return result


def fused(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **_: Any
) -> tuple[Tensor, None]:
    """Stand in for ``flash_attention_2``: no mask, shared keys stay shared."""
    return FusedAttention.apply(*_cast(query, key, value), None), None


def masked(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **_: Any
) -> tuple[Tensor, None]:
    """Stand in for ``sdpa``.

    With a mask, transformers repeats shared keys for every head, and torch turns the mask into numbers of the
    query's format (transformers 5.23 integrations/sdpa_attention.py; torch convert_boolean_attn_mask).
    """
    bias = None
    query, key, value = _cast(query, key, value)
    groups = getattr(module, "num_key_value_groups", 1)
    if groups > 1 and (attention_mask is not None or key.shape[-1] != value.shape[-1] or key.shape[-1] > 256):  # noqa: PLR2004 - use_gqa_in_sdpa
        key, value = (_repeated(part, groups) for part in (key, value))
    if attention_mask is not None:
        attention_mask = attention_mask[:, :, :, : key.shape[-2]]
        bias = (
            torch.zeros_like(attention_mask, dtype=query.dtype)
            if attention_mask.dtype == torch.bool
            else attention_mask
        )
    return FusedAttention.apply(query, key, value, bias), None


def _cast(*parts: Tensor) -> tuple[Tensor, ...]:
    """Cast as autocast does on a GPU, where fused attention is on its list (aten/autocast_mode.h)."""
    if not torch.is_autocast_enabled("cpu"):
        return parts
    dtype = torch.get_autocast_dtype("cpu")
    return tuple(part.to(dtype) if part.dtype == torch.float32 else part for part in parts)


def _repeated(part: Tensor, groups: int) -> Tensor:
    batch, heads, rows, width = part.shape
    wide = part[:, :, None].expand(batch, heads, groups, rows, width)
    return wide.reshape(batch, heads * groups, rows, width)


def no_mask(*_: Any, **__: Any) -> None:
    """Stand in for the mask of flash attention when nothing is padded."""


def make_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    *_: Any,
    local_size: int | None = None,
    device: Any = "cpu",
    **__: Any,
) -> Tensor:
    """Stand in for ``sdpa_mask`` where it builds one: a bool for every pair of tokens.

    One such tensor more lives while it is made (``and_masks``).
    """
    first = torch.empty(batch_size, 1, q_length, kv_length, dtype=torch.bool, device=device)
    return first & first


def make_mask_if_local(
    batch_size: int,
    q_length: int,
    kv_length: int,
    *_: Any,
    local_size: int | None = None,
    device: Any = "cpu",
    **__: Any,
) -> Tensor | None:
    """Stand in for ``sdpa_mask`` without padding: only a window shorter than the sequence needs a mask."""
    if local_size is None or kv_length < local_size:
        return None
    return make_mask(batch_size, q_length, kv_length, device=device)


def register(kind: AttentionKind) -> str:
    """Make transformers use the stand-in of a kind; return its name there."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(FUSED, fused)
    ALL_MASK_ATTENTION_FUNCTIONS.register(FUSED, no_mask)
    ALL_ATTENTION_FUNCTIONS.register(MASKED, masked)
    ALL_MASK_ATTENTION_FUNCTIONS.register(MASKED, make_mask if kind == "sdpa-mask" else make_mask_if_local)
    return NAMES[kind]
