"""What CUDA's kernels hold and CPU's do not, or the other way round; sizes only.

Sources: torch 2.13, aten/native/cuda/SoftMax.cu (softmax_backward_cuda_out makes ``grad * output`` first),
aten/native/SoftMax.cpp (float16 in, float32 out is one kernel on a GPU; bfloat16 is cast first),
torch/csrc/autograd/input_buffer.cpp (gradients of one tensor are added in place, but never fake ones).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional


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
    """Let ``softmax`` of float16 scores be the GPU's one kernel."""
    real: Any = functional.softmax

    def softmax(scores: Tensor, *arguments: Any, **more: Any) -> Any:
        if scores.dtype == torch.float16 and more.get("dtype") == torch.float32:
            return HalfSoftmax.apply(scores)
        return real(scores, *arguments, **more)

    replaced: Any = functional
    replaced.softmax = softmax
    try:
        yield
    finally:
        replaced.softmax = real


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
