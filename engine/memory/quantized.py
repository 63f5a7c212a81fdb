"""Bytes of weights packed in few bits, with their scales, as each library keeps them. Pure."""

from collections.abc import Callable
from functools import lru_cache
from math import ceil, prod

from ..specs.workload import Quantization
from .lines import Product, rounded
from .tensors import Part

NESTED_BLOCK = 256
"""Scales that share one scale themselves (bitsandbytes 0.50.2, functional.py, quantize_4bit)."""
CODES = 16
"""Values of a 4-bit format, in float32; every tensor has its own copy."""
NESTED_CODE_BYTES = 256 * 4
"""The values of packed scales: one table for all tensors."""
AQLM_GROUP = 8
"""Weights that one codebook entry of 16 bits stands for: the common 1x16 scheme."""
AQLM_CODEBOOK = 65_536 * AQLM_GROUP
FP8_BLOCK = 128
MXFP4_BLOCK = 32

SOURCES = {
    "nf4": "bitsandbytes 0.50.2, functional.py, quantize_4bit",
    "fp4": "bitsandbytes 0.50.2, functional.py, quantize_4bit",
    "int8": "bitsandbytes 0.50.2, nn/modules.py, Int8Params (CB and SCB)",
    "gptq": "gptqmodel, QuantLinear: qweight, qzeros, scales, g_idx",
    "awq": "gptqmodel, AwqQuantLinear: qweight, qzeros, scales",
    "hqq": "hqq, core/quantize.py: W_q, scale, zero",
    "aqlm": "aqlm 1.1, inference.py: codes, codebooks, scales (1x16)",
    "eetq": "transformers 5.23.0, integrations/eetq.py: weight, weight_scales",
    "fp8": "transformers 5.23.0, integrations/finegrained_fp8.py: weight, weight_scale_inv",
    "mxfp4": "transformers 5.23.0, integrations/mxfp4.py: blocks, scales",
}
Piece = tuple[int, float]
"""Elements of a tensor, and bytes of one."""
Pieces = tuple[Piece, ...]
"""The tensors that one packed weight becomes: first its own bits."""


def _blocks(number: int, size: int) -> int:
    return -(-number // size)


def _four_bit(shape: tuple[int, ...], how: Quantization) -> Pieces:
    number = prod(shape)
    scales = _blocks(number, how.block_size)
    if not how.double_quant:
        return (number, 0.5), (scales, 4), (CODES, 4)
    return (number, 0.5), (scales, 1), (_blocks(scales, NESTED_BLOCK), 4), (1, 4), (CODES, 4)


def _int8(shape: tuple[int, ...], _how: Quantization) -> Pieces:
    return (prod(shape), 1), (shape[0], 4)


def _groups(shape: tuple[int, ...], how: Quantization) -> int:
    return shape[0] * _blocks(prod(shape[1:]), how.block_size)


def _gptq(shape: tuple[int, ...], how: Quantization) -> Pieces:
    groups = _groups(shape, how)
    return (prod(shape), how.bits / 8), (groups, 2), (groups, how.bits / 8), (prod(shape[1:]), 4)


def _awq(shape: tuple[int, ...], how: Quantization) -> Pieces:
    return _gptq(shape, how)[:3]


def _hqq(shape: tuple[int, ...], how: Quantization) -> Pieces:
    groups = _groups(shape, how)
    return (prod(shape), how.bits / 8), (groups, 2), (groups, 2)


def _aqlm(shape: tuple[int, ...], _how: Quantization) -> Pieces:
    return (prod(shape), 2 / AQLM_GROUP), (AQLM_CODEBOOK, 2), (shape[0], 2)


def _eetq(shape: tuple[int, ...], _how: Quantization) -> Pieces:
    return (prod(shape), 1), (shape[0], 2)


def _fp8(shape: tuple[int, ...], _how: Quantization) -> Pieces:
    *leading, rows, columns = shape
    return (prod(shape), 1), (prod(leading) * _blocks(rows, FP8_BLOCK) * _blocks(columns, FP8_BLOCK), 4)


def _mxfp4(shape: tuple[int, ...], _how: Quantization) -> Pieces:
    number = prod(shape)
    return (number, 0.5), (_blocks(number, MXFP4_BLOCK), 1)


_PACK: dict[str, Callable[[tuple[int, ...], Quantization], Pieces]] = {
    "nf4": _four_bit,
    "fp4": _four_bit,
    "int8": _int8,
    "gptq": _gptq,
    "awq": _awq,
    "hqq": _hqq,
    "aqlm": _aqlm,
    "eetq": _eetq,
    "fp8": _fp8,
    "mxfp4": _mxfp4,
}


@lru_cache(maxsize=1024)
def pieces(shape: tuple[int, ...], how: Quantization) -> Pieces:
    """Return the tensors that one packed weight becomes, as elements and bytes of one; its own bits first.

    Args:
        shape: Rows and columns.
        how: The packing.
    """
    return _PACK[how.kind](shape, how)


def _bytes(piece: Piece) -> int:
    return ceil(piece[0] * piece[1])


def packed_bytes(parts: tuple[Part, ...], how: Quantization) -> tuple[int, int]:
    """Return the bytes of packed weights and of what goes with them, as the allocator rounds them."""
    weights = sum(part.count * rounded(_bytes(pieces(part.shape, how)[0])) for part in parts)
    scales = sum(
        part.count * rounded(_bytes(piece)) for part in parts for piece in pieces(part.shape, how)[1:]
    )
    is_nested = how.kind in {"nf4", "fp4"} and how.double_quant
    return weights, scales + (NESTED_CODE_BYTES if parts and is_nested else 0)


def exact_bytes(parts: tuple[Part, ...], how: Quantization) -> int:
    """Return the bytes of packed weights with their scales in a file, without rounding."""
    return sum(part.count * _bytes(piece) for part in parts for piece in pieces(part.shape, how))


def weight_product(parts: tuple[Part, ...], how: Quantization) -> Product:
    """Return the formula of packed weights: ``6,979,321,856 x 0.5 B``."""
    return _sums(parts, how, 0)


def scale_products(parts: tuple[Part, ...], how: Quantization) -> tuple[Product, ...]:
    """Return the formula of what goes with packed weights, a product for each kind of tensor."""
    kinds = len(pieces(parts[0].shape, how)) if parts else 0
    return tuple(_sums(parts, how, index) for index in range(1, kinds))


def _sums(parts: tuple[Part, ...], how: Quantization, index: int) -> Product:
    found = [(part.count, pieces(part.shape, how)[index]) for part in parts]
    return Product(sum(count * number for count, (number, _) in found), found[0][1][1])
