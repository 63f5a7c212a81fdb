"""Tells the tracer where in a training step it is, by hooks on the model's layers."""

from typing import Any, Literal

from torch import nn

from ..specs.estimate import PhaseName
from .tracer import StorageTracer

Moment = Literal[
    "load", "before", "reference", "forward start", "forward", "head", "head backward",
    "backward start", "backward middle", "backward end",
    "clip", "optimizer",
]  # fmt: skip
"""Finer than the phases of an estimate: within each of these the peak grows evenly with the depth.

``before`` is everything that has not yet reached the steady state: the first step, without optimizer
states, and micro batches before the last. ``forward start`` goes on through the first layer: FSDP's root
and embedding arrive, which may be more than the last layer of a shallow model and less than of a deep one."""
PHASE_OF: dict[str, PhaseName] = {
    "load": "load",
    "reference": "reference",
    "forward start": "forward",
    "forward": "forward",
    "head": "head",
    "head backward": "head",
    "backward start": "backward start",
    "backward middle": "backward end",
    "backward end": "backward end",
    "clip": "optimizer",
    "optimizer": "optimizer",
}


class Phases:
    """Names the moment that is going on; before the steady state every moment is ``before``."""

    def __init__(self, tracer: StorageTracer) -> None:
        self._tracer = tracer
        self.is_steady = False
        self.is_main = True
        """Off while a reference model runs through the same hooks."""
        tracer.phase = "load"
        self._is_backward = False

    def enter(self, moment: Moment) -> None:
        """Say what begins outside of the layers."""
        self._begin(moment)
        self._tracer.segment()

    def _begin(self, moment: Moment) -> None:
        self._is_backward = moment in _BACKWARD
        self._tracer.phase = moment if self.is_steady or moment == "load" else "before"
        self._tracer.group = (
            "logits" if moment in _HEAD else "optimizer" if moment in _UPDATE else "activations"
        )

    def watch(self, model: Any, layers: nn.ModuleList) -> None:
        """Hook a model's layers.

        Args:
            model: The transformers model, not its peft wrapper.
            layers: Its layers, in order.
        """
        model.base_model.register_forward_hook(self._after_backbone)
        first = next((number for number, layer in enumerate(layers) if _is_trained(layer)), 0)
        last = len(layers) - 1
        for number, layer in enumerate(layers):
            moment: Moment = "backward middle"
            if number == last:
                moment = "backward start"
            elif number == first:
                moment = "backward end"
            layer.register_forward_pre_hook(self._before_forward(number))
            layer.register_full_backward_pre_hook(self._before_backward(number, moment))

    def _before_forward(self, number: int) -> Any:
        def hook(*_: Any) -> None:
            if number == 1 and self._tracer.phase == "forward start":
                self._tracer.phase = "forward"
            if not self._is_backward:  # otherwise it is computed again, which is part of the backward pass
                self._tracer.segment(layer=number, goes_on=self._tracer.layer is not None)

        return hook

    def _before_backward(self, number: int, moment: Moment) -> Any:
        def hook(*_: Any) -> None:
            goes_on = self._is_backward
            self._begin(moment)
            self._tracer.segment(layer=number, goes_on=goes_on)

        return hook

    def _after_backbone(self, *_: Any) -> None:
        if self.is_main:
            self.enter("head")


_UPDATE = ("clip", "optimizer")
_HEAD = ("head", "head backward")
_BACKWARD = ("backward start", "backward middle", "backward end")


def _is_trained(layer: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in layer.parameters())
