"""Stand-ins for quantized linear layers: the exact bytes that are kept, and what a product allocates.

Sources: bitsandbytes 0.50.2 (autograd/_functions.py: MatMul4Bit, MatMul8bitLt; backends/cuda/ops.py:
_dequant_linear_fallback; functional.py: dequantize_4bit, QuantState; nn/modules.py: Linear4bit).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from ..errors import Refused
from ..specs.workload import Quantization

FOUR_BIT = ("nf4", "fp4")
_STORAGE = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
SCALE_BLOCK = 256
"""Scales that share a scale (bitsandbytes functional.py, quantize_4bit with compress_statistics)."""
CODE_BYTES = {"nf4": 16 * 4, "fp4": 16 * 4}
"""The table of values, one per layer (QuantState.code)."""


class FourBitProduct(Function):  # type: ignore[misc]
    """A product with packed weights: unpacks them into the compute format, forward and backward.

    bitsandbytes multiplies without unpacking below 512 to 1536 rows, depending on the GPU; a training batch
    is larger. The packed weights are kept, the input is not.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, packed: Tensor, bias: Tensor | None, layer: "Any") -> Tensor:
        """Return (..., out) for (..., in)."""
        ctx.packed, ctx.layer = packed, layer
        scales = _unpacked_scales(layer, rows.device)
        weight = rows.new_empty(layer.out_features, layer.in_features)
        out = nn.functional.linear(rows, weight, bias)
        del scales
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the input's gradient."""
        (grad,) = grads
        scales = _unpacked_scales(ctx.layer, grad.device)[:1]
        weight = grad.new_empty(ctx.layer.out_features, ctx.layer.in_features, dtype=ctx.layer.unpacked_dtype)
        del scales  # dequantize_4bit has returned
        return torch.matmul(grad, weight.to(grad.dtype)), None, None, None


def _unpacked_scales(layer: Any, device: torch.device) -> list[Tensor]:
    """Scales as numbers again, and the same plus the offset."""
    if not layer.scales_packed:
        return []
    return [torch.empty(layer.num_scales, dtype=torch.float32, device=device) for _ in range(2)]


class EightBitProduct(Function):  # type: ignore[misc]
    """LLM.int8: rows become int8, the product int32; the input is kept, weights are unpacked backward."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, layer: Any) -> Tensor:
        """Return (..., out) for (..., in)."""
        flat = rows.reshape(-1, rows.shape[-1])
        half = flat.to(torch.float16)
        codes = torch.empty_like(half, dtype=torch.int8)
        whole = flat.new_empty(flat.shape[0], layer.out_features, dtype=torch.int32)
        out = whole.to(torch.float16).to(rows.dtype)
        if bias is not None:
            out = out + bias
        ctx.kept, ctx.weight, ctx.dtype = flat, weight, rows.dtype
        del codes, half
        return out.reshape(*rows.shape[:-1], layer.out_features)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the input's gradient."""
        (grad,) = grads
        weight = ctx.weight.to(ctx.dtype).mul_(1.0)
        return torch.matmul(grad.to(ctx.dtype), weight), None, None, None


class OtherProduct(Function):  # type: ignore[misc]
    """Any other packing: weights are unpacked into the input's format, forward and backward."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, packed: Tensor, bias: Tensor | None, layer: Any) -> Tensor:
        """Return (..., out) for (..., in)."""
        ctx.packed, ctx.layer = packed, layer
        return nn.functional.linear(rows, rows.new_empty(layer.out_features, layer.in_features), bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the input's gradient."""
        (grad,) = grads
        weight = grad.new_empty(ctx.layer.out_features, ctx.layer.in_features)
        return torch.matmul(grad, weight), None, None, None


def quantize(model: Any, quantization: Quantization, compute: torch.dtype) -> None:
    """Replace every linear layer but the output layer (or that of a reward), in place, on the meta device.

    Args:
        model: A transformers model on meta.
        quantization: What is asked for.
        compute: Format that weights are unpacked into.

    Raises:
        Refused: bitsandbytes is not installed and is what packs.
    """
    make = _maker(quantization, compute)
    # transformers 5.23, quantizers/base.py, get_keys_to_not_convert: the last module is left alone.
    head = (
        None
        if quantization.quantizes_head
        else model.get_output_embeddings() or getattr(model, "score", None)
    )
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear) and layer is not head:
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, make(layer))
    if quantization.kind in FOUR_BIT:
        model.is_loaded_in_4bit = True
    elif quantization.kind == "int8":
        model.is_loaded_in_8bit = True


def _maker(quantization: Quantization, compute: torch.dtype) -> Any:
    if quantization.kind in (*FOUR_BIT, "int8"):
        try:
            import bitsandbytes as bnb
        except ImportError as error:
            raise Refused(
                "tracing weights that bitsandbytes packs needs bitsandbytes",
                hint="pip install 'ftwiz[quant]'",
            ) from error
        if quantization.kind == "int8":
            return lambda layer: _eight_bit(bnb.nn.Linear8bitLt, layer)
        return lambda layer: _four_bit(bnb.nn.Linear4bit, layer, quantization, compute)
    return lambda layer: _other(layer, quantization)


def _four_bit(base: type, layer: nn.Linear, quantization: Quantization, compute: torch.dtype) -> nn.Module:
    made = _class_of("FourBitLinear", base, _four_bit_forward)(
        layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta"
    )
    num_weights = layer.in_features * layer.out_features
    storage = _STORAGE.get(quantization.storage, torch.uint8)
    packed = torch.empty(-(-num_weights // (2 * storage.itemsize)), 1, dtype=storage, device="meta")
    made.weight = nn.Parameter(packed, requires_grad=False)
    made.weight.compress_statistics, made.weight.quant_type = quantization.double_quant, quantization.kind
    made.bias = layer.bias
    made.compute_dtype, made.compute_type_is_set = compute, True
    made.unpacked_dtype, made.scales_packed = compute, quantization.double_quant
    made.num_scales = -(-num_weights // quantization.block_size)
    scale_type = torch.uint8 if quantization.double_quant else torch.float32
    _buffer(made, "scales", made.num_scales, scale_type)
    _buffer(made, "codes", 16, torch.float32)
    if quantization.double_quant:
        _buffer(made, "scales_of_scales", -(-made.num_scales // SCALE_BLOCK), torch.float32)
        _buffer(made, "codes_of_scales", 256, torch.float32)
        _buffer(made, "offset", 1, torch.float32)
    return made


def _four_bit_forward(layer: Any, rows: Tensor) -> Tensor:
    bias = None if layer.bias is None else layer.bias.to(layer.compute_dtype)
    out: Tensor = FourBitProduct.apply(rows.to(layer.compute_dtype), layer.weight, bias, layer)
    return out.to(rows.dtype)


def _eight_bit(base: type, layer: nn.Linear) -> nn.Module:
    made = _class_of("EightBitLinear", base, _eight_bit_forward)(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        has_fp16_weights=False,
        device="meta",
    )
    shape = layer.out_features, layer.in_features
    made.weight = nn.Parameter(torch.empty(shape, dtype=torch.int8, device="meta"), requires_grad=False)
    made.bias = layer.bias
    _buffer(made, "scales", layer.out_features, torch.float32)
    return made


def _eight_bit_forward(layer: Any, rows: Tensor) -> Tensor:
    out: Tensor = EightBitProduct.apply(rows, layer.weight, layer.bias, layer)
    return out


def _other(layer: nn.Linear, quantization: Quantization) -> nn.Module:
    forward = _gptq_forward if quantization.kind == "gptq" else _other_forward
    made = _class_of(f"PackedLinear{quantization.kind}", nn.Linear, forward)(
        layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta"
    )
    num_weights = layer.in_features * layer.out_features
    num_bytes = -(-int(num_weights * quantization.bits) // 8)
    made.weight = nn.Parameter(torch.empty(num_bytes, dtype=torch.uint8, device="meta"), requires_grad=False)
    made.bias = layer.bias
    _buffer(made, "scales", -(-num_weights // max(1, quantization.block_size)), torch.float16)
    return made


def _gptq_forward(layer: Any, rows: Tensor) -> Tensor:
    """auto-gptq 0.5, qlinear_cuda_old.py: an ordinary product, which keeps the unpacked weight.

    Integers are shifted out of 32 bits, then are bytes, then lose their zero, then have their scales.
    """
    shape = layer.in_features, layer.out_features
    numbers = torch.empty(shape, dtype=torch.int32, device=rows.device).to(torch.int8)
    numbers = numbers - torch.empty(1, dtype=torch.int8, device=rows.device)
    weight = torch.empty(shape, dtype=rows.dtype, device=rows.device)
    del numbers
    out = torch.matmul(rows, weight)
    return out if layer.bias is None else out + layer.bias


def _other_forward(layer: Any, rows: Tensor) -> Tensor:
    out: Tensor = OtherProduct.apply(rows, layer.weight, layer.bias, layer)
    return out


_CLASSES: dict[tuple[str, type], type] = {}


def _class_of(name: str, base: type, forward: Any) -> Any:
    """A subclass of the real layer, so that peft dispatches to what it would take on a GPU."""
    key = name, base
    if key not in _CLASSES:
        # peft unpacks a layer that has W_q (as hqq's do) by asking the layer itself
        _CLASSES[key] = type(
            name, (base,), {"forward": forward, "W_q": property(_packed_weight), "dequantize": _dequantized}
        )
    return _CLASSES[key]


def _packed_weight(layer: Any) -> Tensor:
    weight: Tensor = layer.weight
    return weight


def _dequantized(layer: Any) -> Tensor:
    dtype = getattr(layer, "unpacked_dtype", torch.bfloat16)
    return torch.empty(layer.out_features, layer.in_features, dtype=dtype, device=layer.weight.device)


def _buffer(layer: nn.Module, name: str, size: int, dtype: torch.dtype) -> None:
    layer.register_buffer(name, torch.empty(size, dtype=dtype, device="meta"), persistent=False)
