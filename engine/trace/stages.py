"""What one micro batch of a stage does with the model, in the order of trl 1.16's trainers."""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from ..specs.workload import Stage, Workload
from . import heads
from .phases import Phases

Call = Callable[..., Any]
"""A model, called as accelerate calls it."""
PAIRS: frozenset[Stage] = frozenset({"rm", "dpo", "orpo", "simpo"})
"""Stages whose micro batch counts pairs: chosen and rejected go through the model together."""
COMPARED: frozenset[Stage] = frozenset({"dpo", "kto"})
"""Stages that ask the reference while the policy's activations are kept."""
COMPARED_BEFORE: frozenset[Stage] = frozenset({"rloo", "grpo"})
"""Stages that score the answers before the step."""
FUSED_OUTPUTS: dict[Stage, tuple[str, ...]] = {
    "dpo": ("log_probs", "entropy", "mean_logits", "is_top1"),
    "kto": ("log_probs", "entropy", "mean_logits"),
    "grpo": ("log_probs", "entropy"),
    "rloo": ("log_probs", "entropy"),
}
"""What the trainers ask of the fused head (trl 1.16); the others ask what SFT asks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Actors:
    """Who takes part in a step."""

    policy: Call
    reference: Call | None
    """Another model; ``None``: the policy without its adapters."""
    bare: Any
    phases: Phases
    peft: Any
    """The peft wrapper, when there is one."""


def loss(workload: Workload, actors: Actors, batch: heads.Batch, loss_of: heads.LossOf) -> tuple[Tensor, Any]:
    """Run the forward passes of one micro batch; returns the loss, and what the trainer still holds."""
    stage = workload.stage
    if stage in COMPARED:
        return _compared(workload, actors, batch)
    if stage in COMPARED_BEFORE:
        return _policy_gradient(workload, actors, batch)
    if stage == "rm":
        return _reward(actors, batch)
    if stage in ("orpo", "simpo"):
        return _full_logits(actors, batch)
    return loss_of(actors.policy, batch)


def _compared(workload: Workload, actors: Actors, batch: heads.Batch) -> tuple[Tensor, Any]:
    """DPOTrainer and KTOTrainer: the policy first, then the reference, while the policy's graph lives."""
    extra: Tensor | None = None
    if workload.stage == "kto":
        extra = _without_gradients(actors, actors.policy, batch)
    actors.phases.enter("forward start")
    out = actors.policy(**batch, use_cache=False, fused_lm_head=True)
    scores = out.log_probs.sum(dim=1)
    expected = _asked_reference(workload, actors, batch)
    if workload.stage == "kto":
        expected = expected + _asked_reference(workload, actors, batch)
    actors.phases.enter("head")
    result = -nn.functional.logsigmoid(0.1 * (scores - expected)).mean()
    return (result if extra is None else result + 0 * extra.mean()), out


def _policy_gradient(workload: Workload, actors: Actors, batch: heads.Batch) -> tuple[Tensor, Any]:
    """GRPOTrainer and RLOOTrainer: the reference has scored the answers before the step."""
    if actors.reference is not None or workload.stage == "rloo":
        _asked_reference(workload, actors, batch)
    actors.phases.enter("forward start")
    out = actors.policy(**batch, use_cache=False, fused_lm_head=True)
    ratio = torch.exp(out.log_probs - out.log_probs.detach())
    clipped = torch.clamp(ratio, 0.8, 1.2)
    return -torch.min(ratio, clipped).mean(), out


def _reward(actors: Actors, batch: heads.Batch) -> tuple[Tensor, Any]:
    """RewardTrainer: one number per sequence."""
    given = {name: value for name, value in batch.items() if name != "labels"}
    out = actors.policy(**given, use_cache=False)
    chosen, rejected = torch.chunk(out.logits.squeeze(-1), chunks=2)
    return -nn.functional.logsigmoid(chosen - rejected).mean(), out


def _full_logits(actors: Actors, batch: heads.Batch) -> tuple[Tensor, Any]:
    """ORPOTrainer and CPOTrainer (trl/experimental): all logits, a cross entropy and log-probabilities."""
    given = {name: value for name, value in batch.items() if name != "labels"}
    logits = actors.policy(**given, use_cache=False).logits
    labels = batch["labels"].clone()
    half = labels.shape[0] // 2
    shifted = logits[:half, :-1].contiguous()
    goals = labels[:half, 1:].contiguous()
    likely = nn.functional.cross_entropy(shifted.view(-1, shifted.shape[-1]), goals.view(-1))
    del shifted
    scores = SelectedLogProbs.apply(logits[:, :-1]).mean(dim=1)
    return likely + nn.functional.logsigmoid(scores[:half] - scores[half:]).mean(), logits


class SelectedLogProbs(Function):  # type: ignore[misc]
    """Stand in for trl's Triton kernel: one number per token, the logits are kept (trl 1.16 kernels)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        """Return (batch, tokens) of (batch, tokens, words)."""
        rows = logits.shape[:-1]
        sums = [torch.empty(rows, dtype=torch.float32, device=logits.device) for _ in range(3)]
        ctx.save_for_backward(logits, *sums[1:])
        return sums[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """Return the gradient of all logits."""
        return torch.empty_like(ctx.saved_tensors[0], memory_format=torch.contiguous_format)


def _asked_reference(workload: Workload, actors: Actors, batch: heads.Batch) -> Tensor:
    if actors.reference is not None:
        return _without_gradients(actors, actors.reference, batch)
    if workload.method == "lora":
        with actors.peft.disable_adapter():
            return _without_gradients(actors, actors.policy, batch)
    return torch.zeros(batch["input_ids"].shape[0])


def _without_gradients(actors: Actors, call: Call, batch: heads.Batch) -> Tensor:
    actors.phases.enter("reference")
    actors.phases.is_main = False
    try:
        with torch.no_grad(), _not_checkpointed(actors.bare):
            scores: Tensor = call(**batch, use_cache=False, fused_lm_head=True).log_probs.sum(dim=1)
            return scores
    finally:
        actors.phases.is_main = True


@contextmanager
def _not_checkpointed(bare: Any) -> Any:
    """As trl's disable_gradient_checkpointing."""
    parts = [part for part in bare.modules() if getattr(part, "gradient_checkpointing", False)]
    for part in parts:
        part.gradient_checkpointing = False
    try:
        yield
    finally:
        for part in parts:
            part.gradient_checkpointing = True
