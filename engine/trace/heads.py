"""How the last hidden states become a loss: trl and transformers for real, stand-ins for others' heads."""

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from ..specs.workload import LossHead

Batch = dict[str, Tensor]
LossOf = Callable[[Any, Batch], tuple[Tensor, Any]]
"""Model and batch -> the loss, and the output object."""
_TORCHTUNE_CHUNKS = 8
_LITGPT_CHUNK_TOKENS = 128
FUSED_OUTPUTS = ("log_probs", "entropy", "is_top1")
"""What trl's SFTTrainer asks of the head (trl 1.16 trainer/sft_trainer.py)."""


class CompactRows(Function):  # type: ignore[misc]
    """Picks the labelled rows as ``hidden[mask]`` does, without looking at the mask: all are labelled."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor) -> Tensor:
        """Return (tokens, width) of (batch, tokens, width)."""
        flat = hidden.shape[:-1].numel()
        ctx.save_for_backward(*(torch.empty(flat, dtype=torch.int64, device=hidden.device) for _ in range(2)))
        ctx.shape = hidden.shape
        return hidden.new_empty(flat, hidden.shape[-1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """Scatter the gradient back; ``index_put_`` sorts the positions first."""
        (grad,) = grads
        rows = grad.shape[0]
        sorting = [torch.empty(rows, dtype=torch.int64, device=grad.device) for _ in range(4)]
        result = torch.zeros(ctx.shape, dtype=grad.dtype, device=grad.device)
        del sorting
        return result


def add_trl_head(model: Any, outputs: tuple[str, ...] = FUSED_OUTPUTS) -> None:
    """Patch the real fused head of trl onto a model, with the Triton path's allocations."""
    import trl.kernels.chunked_logprob as kernels
    from trl.trainer import utils

    real = kernels.ChunkedLogProbFunction

    class OnGpu:
        """Calls the real function on rows picked as on a GPU."""

        @staticmethod
        def apply(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, *rest: Any) -> Any:
            """Return what the real function returns, in the shape of all tokens."""
            return real.apply(CompactRows.apply(hidden), weight, bias, targets.clone(), *rest)

    def nothing(*_: Any, **__: Any) -> None:
        """The Triton kernels work in place and allocate nothing."""

    kernels._forward_tile = kernels._backward_tile = kernels._addmm_fp32 = nothing  # noqa: SLF001 - patched in a process of our own
    utils._ChunkedLogProbFunction = OnGpu  # noqa: SLF001
    utils.add_fused_lm_head(model, outputs=outputs)


def install(
    model: Any, head: LossHead, *, is_cast_outside: bool, outputs: tuple[str, ...] = FUSED_OUTPUTS
) -> LossOf:
    """Make a model compute its loss in a certain way; return how to ask for it.

    Args:
        model: The transformers model itself, not its peft wrapper.
        head: Which way.
        is_cast_outside: It is accelerate that makes the logits fp32, after the model has returned.
        outputs: What the fused head is asked for.
    """
    if head == "fused-tiles":
        add_trl_head(model, outputs)
        return _fused_loss
    if head != "logits" and not (head == "logits-fp32" and is_cast_outside):
        model.forward = MethodType(_FORWARDS[head], model)
    return _own_loss


def _fused_loss(model: Any, batch: Batch) -> tuple[Tensor, Any]:
    """As SFTTrainer.compute_loss of trl 1.16."""
    out = model(**batch, use_cache=False, fused_lm_head=True)
    per_token = -out.log_probs
    tokens = out.label_mask.sum()
    loss = per_token.sum() / torch.as_tensor(tokens).clamp(min=1)
    out.entropy.detach().sum()
    out.is_top1.sum()
    return loss, out


def _own_loss(model: Any, batch: Batch) -> tuple[Tensor, Any]:
    out = model(**batch, use_cache=False)
    return out.loss, out


def _hidden(model: Any, arguments: dict[str, Any]) -> Tensor:
    given = {key: value for key, value in arguments.items() if key != "labels"}
    result: Tensor = model.base_model(**given).last_hidden_state
    return result


def _output(loss: Tensor, logits: Tensor | None = None) -> Any:
    from transformers.modeling_outputs import CausalLMOutputWithPast

    return CausalLMOutputWithPast(loss=loss, logits=logits)


def _forward_fp32(self: Any, labels: Tensor, **arguments: Any) -> Any:
    """As transformers before 4.45: the fp32 logits are the output; shifted copies go into the loss."""
    logits = self.get_output_embeddings()(_hidden(self, arguments)).float()
    shifted = logits[..., :-1, :].contiguous()
    targets = labels[..., 1:].contiguous()
    loss = nn.functional.cross_entropy(shifted.view(-1, shifted.shape[-1]), targets.view(-1))
    return _output(loss, logits)


def _forward_shifted(self: Any, labels: Tensor, **arguments: Any) -> Any:
    """As models that came with their own code: shifted copies, the loss in their format or autocast's."""
    logits = self.get_output_embeddings()(_hidden(self, arguments))
    shifted = logits[..., :-1, :].contiguous()
    targets = labels[..., 1:].contiguous()
    loss = nn.functional.cross_entropy(shifted.view(-1, shifted.shape[-1]), targets.view(-1))
    return _output(loss, logits)


def _forward_chunked(self: Any, labels: Tensor, **arguments: Any) -> Any:
    """As torchtune: hidden states in eight chunks, logits of each kept, fp32 inside the loss."""
    hidden = _hidden(self, arguments)
    head = self.get_output_embeddings()
    targets = nn.functional.pad(labels, (0, 1), value=-100)[..., 1:]
    logits = [head(part) for part in hidden.chunk(_TORCHTUNE_CHUNKS, dim=1)]
    losses = [
        nn.functional.cross_entropy(
            part.reshape(-1, part.shape[-1]).float(), goal.reshape(-1), reduction="sum"
        )
        for part, goal in zip(logits, targets.chunk(_TORCHTUNE_CHUNKS, dim=1), strict=True)
    ]
    return _output(torch.stack(losses).sum())


def _forward_litgpt(self: Any, labels: Tensor, **arguments: Any) -> Any:
    """As litgpt: chunks of 128 tokens, each with its own logits; their losses are put together."""
    hidden = _hidden(self, arguments)
    head = self.get_output_embeddings()
    logits = [head(part) for part in hidden.split(_LITGPT_CHUNK_TOKENS, dim=1)]
    goals = nn.functional.pad(labels, (0, 1), value=-100)[..., 1:].split(_LITGPT_CHUNK_TOKENS, dim=1)
    losses = [
        nn.functional.cross_entropy(part.reshape(-1, part.shape[-1]), goal.reshape(-1), reduction="none")
        for part, goal in zip(logits, goals, strict=True)
    ]
    return _output(torch.cat(losses).sum())


class LinearCrossEntropy(Function):  # type: ignore[misc]
    """Cut Cross-Entropy: no logits; gradients are summed in fp32 (ml-cross-entropy, cce_backward)."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor) -> Tensor:
        """Return the loss of (tokens, width) and (words, width)."""
        ctx.save_for_backward(hidden, weight, hidden.new_empty(hidden.shape[0], dtype=torch.float32))
        return hidden.new_empty((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients, cast from fp32."""
        hidden, weight, _sums = ctx.saved_tensors
        of_hidden = torch.empty_like(hidden, dtype=torch.float32)
        of_weight = torch.empty_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        return of_hidden.to(hidden.dtype), None if of_weight is None else of_weight.to(weight.dtype)


class LigerLoss(Function):  # type: ignore[misc]
    """Liger-Kernel's fused linear cross entropy: gradients are made in the forward pass, chunk by chunk."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor) -> Tensor:
        """Return the loss; chunks are as many as the words outnumber the width, rounded to powers of two."""
        tokens, width = hidden.shape
        factor = -(-weight.shape[0] // width)
        rows = 1 << (max(1, -(-tokens // factor)) - 1).bit_length()
        of_hidden = torch.zeros_like(hidden)
        of_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        for start in range(0, tokens, rows):
            part = hidden[start : start + rows]
            logits = nn.functional.linear(part, weight)
            torch.mm(logits, weight, out=of_hidden[start : start + rows])
            if of_weight is not None:
                of_weight += torch.mm(logits.t(), part)
        ctx.save_for_backward(of_hidden, of_weight)
        return hidden.new_empty((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Return what the forward pass made."""
        of_hidden, of_weight = ctx.saved_tensors
        return of_hidden, of_weight


def _forward_with(kernel: Any) -> Any:
    def forward(self: Any, labels: Tensor, **arguments: Any) -> Any:
        hidden = _hidden(self, arguments)
        rows = hidden.reshape(-1, hidden.shape[-1])
        weight = self.get_output_embeddings().weight
        if torch.is_autocast_enabled("cpu"):
            rows = rows.to(torch.get_autocast_dtype("cpu"))
            weight = weight.to(rows.dtype)
        return _output(kernel.apply(rows, weight))

    return forward


_FORWARDS: dict[LossHead, Any] = {
    "logits-shifted": _forward_shifted,
    "logits-fp32": _forward_fp32,
    "chunked": _forward_chunked,
    "chunked-128": _forward_litgpt,
    "cce": _forward_with(LinearCrossEntropy),
    "liger": _forward_with(LigerLoss),
}
