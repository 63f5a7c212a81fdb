"""Layers that other trainers' models are made of, for a trace: their operations, on fake weights."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from ..memory.foreign_ops import BLOCK, Kind

SCALE_BLOCK = 256
"""Scales that share a scale (bitsandbytes, quantize_4bit with compress_statistics)."""


def parameter(*shape: int, dtype: torch.dtype, trained: bool) -> nn.Parameter:
    """Return weights without contents."""
    return nn.Parameter(torch.empty(*shape, dtype=dtype), requires_grad=trained)


class Attention(Function):  # type: ignore[misc]
    """Fused attention: keeps inputs, output and a number per row; sums the queries' gradient in float32.

    The output is laid out as the queries are (flash) or token by token (memory-efficient kernel).
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, like_query: bool) -> Tensor:  # noqa: FBT001 - autograd passes no names
        """Return (batch, heads, tokens, width)."""
        batch, heads, rows, width = query.shape
        out = (
            torch.empty_like(query)
            if like_query
            else query.new_empty(batch, rows, heads, width).transpose(1, 2)
        )
        sums = query.new_empty(batch, heads, rows, dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, sums)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of query, key and value."""
        del grads
        query, key, value, _out, _sums = ctx.saved_tensors
        total = torch.empty_like(query, dtype=torch.float32)
        dots = query.new_empty(query.shape[:-1], dtype=torch.float32)
        result = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None
        del total, dots
        return result


class Dropped(Function):  # type: ignore[misc]
    """Dropout as CUDA's kernel does it: a byte per element says what is left."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return a tensor as large."""
        ctx.save_for_backward(torch.empty_like(x, dtype=torch.bool))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """Return the gradient."""
        (grad,) = grads
        return torch.empty_like(grad)


class PackedProduct(Function):  # type: ignore[misc]
    """bitsandbytes' MatMul4Bit: unpacked in float16 and cast; before 0.43.2 the node holds its input."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, layer: "Linear") -> Tensor:
        """Return (..., out) for (..., in)."""
        ctx.layer = layer
        if layer.kind.packing == "bnb-keeps-input" and ctx.needs_input_grad[0]:
            ctx.tensors = rows
        return nn.functional.linear(rows, layer.unpacked(rows))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the input's gradient."""
        (grad,) = grads
        return torch.matmul(grad, ctx.layer.unpacked(grad)), None


class Linear(nn.Module):  # type: ignore[misc]
    """A linear layer: frozen, trained or packed; with an adapter or a trained bias and scale."""

    def __init__(self, num_in: int, num_out: int, kind: Kind, dtype: torch.dtype) -> None:
        super().__init__()
        self.widths, self.kind = (num_in, num_out), kind
        if kind.packing == "none":
            self.weight = parameter(num_out, num_in, dtype=dtype, trained=kind.trained)
        else:
            self._pack(num_in * num_out)
        if kind.rank:
            self.low = parameter(kind.rank, num_in, dtype=dtype, trained=True)
            self.high = parameter(num_out, kind.rank, dtype=dtype, trained=True)
        if kind.scales_output:
            self.shift = parameter(num_out, dtype=dtype, trained=True)
            self.scale = parameter(num_out, dtype=dtype, trained=True)

    def _pack(self, num_weights: int) -> None:
        self.weight = nn.Parameter(torch.empty(-(-num_weights // 2), dtype=torch.uint8), requires_grad=False)
        scales = -(-num_weights // BLOCK)
        if self.kind.packs_scales:
            self.register_buffer("scales", torch.empty(scales, dtype=torch.uint8))
            self.register_buffer("scales_of_scales", torch.empty(-(-scales // SCALE_BLOCK)))
        else:
            self.register_buffer("scales", torch.empty(scales))

    def unpacked(self, like: Tensor) -> Tensor:
        """Return the weights in a tensor's format, by way of float16."""
        num_in, num_out = self.widths
        scales = torch.empty(num_in * num_out // BLOCK) if self.kind.packs_scales else None
        half = torch.empty(num_out, num_in, dtype=torch.float16)
        del scales
        return half.to(like.dtype)

    def base(self, x: Tensor) -> Tensor:
        """Run it alone."""
        if self.kind.packing != "none":
            out: Tensor = PackedProduct.apply(x, self)
            return out
        return nn.functional.linear(x, self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Run it with what is trained beside it."""
        out = self.base(x)
        if self.kind.scales_output:
            return self.scale * (out + self.shift)
        if not self.kind.rank:
            return out
        source = Dropped.apply(x) if self.kind.dropout else x
        return out + (source @ self.low.transpose(0, 1) @ self.high.transpose(0, 1)) * 2.0
