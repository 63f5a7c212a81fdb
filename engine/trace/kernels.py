"""What CUDA's kernels hold and CPU's do not, or the other way round; sizes only.

Sources: torch 2.13, aten/native/cuda/SoftMax.cu (softmax_backward_cuda_out makes ``grad * output`` first),
aten/native/SoftMax.cpp (float16 in, float32 out is one kernel on a GPU; bfloat16 is cast first),
torch/csrc/autograd/input_buffer.cpp (gradients of one tensor are added in place, but never fake ones),
aten/autocast_mode.h (what CUDA's autocast computes in float32 and CPU's does not), aten/native/cuda/
GroupedBlas.cpp (grouped products of other formats than bfloat16 take a plain path; fake ones are refused),
aten/native/Dropout.cpp (one kernel with a mask of bytes; a CPU multiplies with a mask of the input's format).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

HALVES = (torch.bfloat16, torch.float16)
WIDENED: tuple[tuple[Any, str], ...] = (
    (functional, "layer_norm"), (functional, "group_norm"), (functional, "softplus"),
    *((owner, name) for owner in (torch, Tensor) for name in ("pow", "rsqrt", "exp", "log", "reciprocal")),
    (Tensor, "__pow__"),
)  # fmt: skip
"""Functions that cast their inputs to float32 (AT_FORALL_FP32), as far as models use them."""
SUMMED_WIDE: tuple[tuple[Any, str], ...] = tuple(
    (owner, name) for owner in (torch, Tensor) for name in ("softmax", "sum", "cumsum", "prod")
)
"""Functions that are asked for a float32 result (AT_FORALL_FP32_SET_OPT_DTYPE)."""


def _casting(real: Any) -> Any:
    def call(*arguments: Any, **named: Any) -> Any:
        if torch.is_autocast_enabled("cpu"):
            arguments = tuple(_widened(argument) for argument in arguments)
            named = {key: _widened(argument) for key, argument in named.items()}
        return real(*arguments, **named)

    return call


def _summing(real: Any) -> Any:
    def call(values: Any, *arguments: Any, **named: Any) -> Any:
        is_half = isinstance(values, Tensor) and values.dtype in HALVES
        if is_half and torch.is_autocast_enabled("cpu") and named.get("dtype") is None:
            named["dtype"] = torch.float32
        return real(values, *arguments, **named)

    return call


def _widened(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype in HALVES else value


@contextmanager
def _cuda_autocast() -> Iterator[None]:
    """Cast to float32 where CUDA's autocast does and CPU's does not."""
    before = [(owner, name, getattr(owner, name)) for owner, name in (*WIDENED, *SUMMED_WIDE)]
    for owner, name in WIDENED:
        setattr(owner, name, _casting(getattr(owner, name)))
    for owner, name in SUMMED_WIDE:
        setattr(owner, name, _summing(getattr(owner, name)))
    try:
        yield
    finally:
        for owner, name, real in before:
            setattr(owner, name, real)


class GroupedProduct(Function):  # type: ignore[misc]
    """A product of rows with the weights of their experts."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor) -> Tensor:
        """Return (rows, out) of (rows, in) and (experts, in, out)."""
        ctx.save_for_backward(rows, weight)
        return rows.new_empty(rows.shape[0], weight.shape[-1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients that are asked for."""
        rows, weight = ctx.saved_tensors
        of_rows = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        return of_rows, torch.empty_like(weight) if ctx.needs_input_grad[1] else None


class HalfSoftmax(Function):  # type: ignore[misc]
    """Softmax of float16 with a float32 result."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        """Return the result, which is kept."""
        out = torch.empty_like(scores, dtype=torch.float32)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """Return the gradient in float16."""
        (out,) = ctx.saved_tensors
        product = torch.empty_like(grads[0])
        result = torch.empty_like(out, dtype=torch.float16)
        del product
        return result


@contextmanager
def as_on_cuda() -> Iterator[None]:
    """Compute softmax, dropout, grouped products and autocast's float32 functions as a GPU does."""
    real: Any = functional.softmax
    real_grouped: Any = functional.grouped_mm
    real_dropout: Any = functional.dropout

    def softmax(scores: Tensor, *arguments: Any, **more: Any) -> Any:
        if torch.is_autocast_enabled("cpu") and scores.dtype in HALVES and more.get("dtype") is None:
            more["dtype"] = torch.float32
        if scores.dtype == torch.float16 and more.get("dtype") == torch.float32:
            return HalfSoftmax.apply(scores)
        return real(scores, *arguments, **more)

    def grouped_mm(rows: Tensor, weight: Tensor, *arguments: Any, **more: Any) -> Any:
        if rows.dtype != torch.bfloat16:
            return GroupedProduct.apply(rows, weight)
        return real_grouped(rows, weight, *arguments, **more)

    def dropout(values: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:  # noqa: FBT001, FBT002 - torch's
        if not training or not 0 < p < 1 or inplace:
            return real_dropout(values, p, training, inplace)
        kept: Tensor = torch.native_dropout(values, p, True)[0]  # noqa: FBT003 - torch's
        return kept

    replaced: Any = functional
    replaced.softmax, replaced.grouped_mm, replaced.dropout = softmax, grouped_mm, dropout
    try:
        with _cuda_autocast():
            yield
    finally:
        replaced.softmax, replaced.grouped_mm, replaced.dropout = real, real_grouped, real_dropout


def scratch_bytes(name: str, result: Tensor) -> int:
    """Return what a GPU's kernel of this name holds beside its result while it runs."""
    if name.startswith("_softmax_backward_data"):
        return int(result.numel() * result.element_size())
    return 0


def is_sum_of_gradients(name: str, arguments: tuple[Any, ...], shapes: frozenset[torch.Size]) -> bool:
    """Whether an addition is that of two gradients of one weight, which a GPU does in place.

    Args:
        name: Of the operation.
        arguments: Its arguments.
        shapes: Shapes of weights that are used at several places.
    """
    if not name.startswith("add.Tensor") or len(arguments) != 2:  # noqa: PLR2004 - two gradients
        return False
    first, second = arguments
    if not (isinstance(first, Tensor) and isinstance(second, Tensor)):
        return False
    return first.shape in shapes and first.shape == second.shape and first.dtype == second.dtype
