"""The exact tier for litgpt's own models: two depths of them traced on fake tensors, and what follows."""

import gc
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ..memory.foreign_litgpt import step_of
from ..memory.foreign_litgpt_facts import NO_LONGEST_FIRST, Step
from ..models import spec_from_config
from ..specs.workload import Workload
from . import extrapolate, optimizers
from .allocator import Allocator
from .extrapolate import Peak
from .foreign_litgpt import Gpt, loss_of
from .phases import Moment
from .step import without_collection
from .tracer import StorageTracer, Trace

DEPTHS = (4, 6)
"""Layers of the two traces: the first two are not adapted by LLaMA-Adapter."""


def serves(workload: Workload) -> bool:
    """Say whether it is a step of litgpt on one device."""
    return workload.trainer == "litgpt" and workload.sharding.num_ranks == 1


def traced(workload: Workload) -> tuple[dict[str, Peak], int, tuple[int, ...]]:
    """Return the peaks at full depth, what the allocator holds beyond, and the traced depths.

    Raises:
        Refused: litgpt has no such model, or its operations are not written down.
    """
    step = step_of(workload)
    layers = step.shape.layers
    if layers <= DEPTHS[1]:
        only = _trace(step, workload, layers)
        return extrapolate.peaks(only), _extra(only, workload), (layers,)
    few, many = (_trace(step, workload, depth) for depth in DEPTHS)
    missing = (layers - DEPTHS[0]) / (DEPTHS[1] - DEPTHS[0])
    found = extrapolate.at_full_depth(extrapolate.peaks(few), extrapolate.peaks(many), missing)
    small, large = _extra(few, workload), _extra(many, workload)
    return found, max(large, round(small + (large - small) * missing)), DEPTHS


def answer(
    workload: Workload, config: Mapping[str, Any], report: Callable[[Mapping[str, Peak], int], dict[str, Any]]
) -> dict[str, Any]:
    """Return what a training step takes, as plain values.

    Args:
        workload: A step of litgpt; of its model only the type is read.
        config: Has the widths of the model.
        report: Makes phases and totals of peaks and the allocator's rest.

    Raises:
        BadInput: The configuration has no widths.
        Refused: litgpt has no such model, or its operations are not written down.
    """
    started = time.perf_counter()
    shape = spec_from_config(config, where="config.json")
    model = replace(shape, model_type=workload.model.model_type)
    found, extra, depths = traced(replace(workload, model=model))
    return {
        **report(found, extra),
        "layers": model.num_layers,
        "traced_layers": list(depths),
        "seconds": {"build": 0.0, "trace": round(time.perf_counter() - started, 3)},
        "notes": [],
    }


def _extra(trace: Trace, workload: Workload) -> int:
    allocator = Allocator(expandable=workload.expandable_segments)
    allocator.replay(trace.events)
    return allocator.peak_reserved - max(accumulate(event.num_bytes for event in trace.events))


def _trace(step: Step, workload: Workload, num_layers: int) -> Trace:
    without_collection()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), warnings.catch_warnings():
            # the first layer's input needs no gradient when the embedding is frozen; its hook fires still
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            return _Run(step, workload, num_layers).trace()
    finally:
        gc.enable()


class _Run:
    def __init__(self, step: Step, workload: Workload, num_layers: int) -> None:
        self.step, self.workload = step, workload
        self.tracer = StorageTracer()
        self.is_steady = False
        self.model = Gpt(step, num_layers, torch.float32 if step.autocast else torch.bfloat16)
        for name, tensor in (*self.model.named_parameters(), *self.model.named_buffers()):
            self.tracer.track(tensor, "weights", name)
        self.trained = [part for part in self.model.parameters() if part.requires_grad]
        for number, block in enumerate(self.model.blocks):
            names: dict[int, Moment] = {num_layers - 1: "backward start", 0: "backward end"}
            block.register_full_backward_pre_hook(self._entering(names.get(number, "backward middle")))
        for part in self.trained:
            part.register_post_accumulate_grad_hook(lambda p: self.tracer.regroup(p.grad, "gradients"))

    def _entering(self, moment: Moment) -> Any:
        return lambda *_: self._enter(moment)

    def _enter(self, moment: Moment) -> None:
        self.tracer.phase = moment if self.is_steady else "before"
        words = {"head": "logits", "optimizer": "optimizer"}
        self.tracer.group = words.get(moment, "activations")

    def trace(self) -> Trace:
        """Two passes before (the first with an update), and the one that counts."""
        with self.tracer:
            optimizer = optimizers.make(self.workload.optimizer, self.trained)
            self._micro_batch(None)
            self._enter("optimizer")
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            held = self._micro_batch(None)
            self.is_steady = True
            if self.step.date < NO_LONGEST_FIRST:
                held.clear()
            held = self._micro_batch(held)
            self._enter("optimizer")
            optimizer.step()
            self.tracer.phase = "before"
            del held
        return self.tracer.trace

    def _micro_batch(self, held: list[Tensor] | None) -> list[Tensor]:
        """Run one; what is returned and given is the training loop's variable of the logits."""
        self._enter("forward")
        ids = torch.zeros(self.step.batch, self.step.sequence, dtype=torch.int64)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.step.autocast):
            x = self.model.body(ids)
            made = self.model.logits(x)
        del x
        logits = [part.float() for part in made]
        del made
        if held is not None:
            held.clear()
        self._enter("head")
        loss = loss_of(self.step, logits, ids)
        loss.backward()
        return logits
