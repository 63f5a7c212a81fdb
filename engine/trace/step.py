"""Runs training steps of a workload on fake tensors and returns what the tracer saw."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ..specs.workload import Workload
from . import build, fsdp, heads, kernels, optimizers, stages
from .bench import Bench, set_up
from .tracer import Trace

_WORDS = 1000
"""Token ids below this are in every vocabulary that matters; their values change nothing."""


def trace_steps(model: Any, workload: Workload, reference: Any = None, more_layers: int = 0) -> Trace:
    """Trace two optimizer steps of a prepared model on meta; the second is the steady state.

    Args:
        model: What ``build.prepare`` returned, its layers cut or not.
        workload: What is trained how.
        reference: A second, frozen model on meta, or ``None``.
        more_layers: How many the model has beyond these at full depth.
    """
    is_sharded = workload.sharding.backend in ("fsdp", "fsdp1")
    ranks = fsdp.mesh(workload) if is_sharded else None
    without_collection()
    with FakeTensorMode(allow_non_fake_inputs=True), _as_on_a_gpu(), kernels.as_on_cuda():
        bench = set_up(model, workload, ranks, reference, more_layers)
        bench.tracer.summed_in_place = _shapes_used_twice(model)
        with bench.tracer, fsdp.buffers_told(bench.tracer) if is_sharded else nullcontext():
            optimizer = _optimizer(bench)
            for is_steady in (False, True):
                _optimizer_step(bench, optimizer, is_steady=is_steady)
    return bench.tracer.trace


def without_collection() -> None:
    """Let frees follow from references alone, always at the same place.

    What the imports left is set aside first: looking through it took a tenth of a trace.
    """
    gc.disable()
    if not gc.get_freeze_count():
        gc.freeze()
    gc.collect()


def _optimizer(bench: Bench) -> Any:
    """The optimizer of the step; ``None`` when it runs in the backward pass, or in DeepSpeed's engine."""
    if bench.engine is not None:
        bench.engine.start()
        return None
    if bench.workload.optimizer_in_backward:
        _step_in_backward(bench)
        return None
    return optimizers.make(bench.workload.optimizer, bench.trained)


def _shapes_used_twice(model: Any) -> frozenset[torch.Size]:
    """Return the shapes of trained weights that several modules share: tied embeddings."""
    seen: dict[int, int] = {}
    shapes: dict[int, torch.Size] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad:
                seen[id(parameter)] = seen.get(id(parameter), 0) + 1
                shapes[id(parameter)] = parameter.shape
    return frozenset(shapes[key] for key, times in seen.items() if times > 1)


def _optimizer_step(bench: Bench, optimizer: Any, *, is_steady: bool) -> None:
    num_micro = min(bench.workload.gradient_accumulation_steps, 2) if is_steady else 1
    for number in range(num_micro):
        is_last = number == num_micro - 1
        bench.phases.is_steady = is_steady and is_last
        if bench.workload.sharding.backend == "fsdp" and not bench.workload.sharding.syncs_every_batch:
            bench.model.set_requires_gradient_sync(is_last)
        _micro_batch(bench)
    if bench.engine is not None:
        bench.phases.enter("optimizer")
        bench.engine.step()
        bench.phases.is_steady = False
        bench.phases.enter("before")
    if optimizer is None:
        return
    if bench.workload.sharding.backend != "zero":
        _train_towers(bench)
    bench.phases.enter("clip")
    if bench.workload.clips_gradients:
        nn.utils.clip_grad_norm_(bench.trained, 1.0, foreach=True)
    bench.phases.enter("optimizer")
    with optimizers.as_of(bench.workload.stack.torch):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    bench.phases.is_steady = False
    bench.phases.enter("before")


def _train_towers(bench: Bench) -> None:
    """Give what had nothing to do a gradient: towers run when there are pictures or sound."""
    for parameter in bench.trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
            bench.tracer.regroup(parameter.grad, "gradients")


def _micro_batch(bench: Bench) -> None:
    bench.phases.enter("forward start")
    reference = None if bench.reference is None else _Caller(bench.reference, bench.workload)
    actors = stages.Actors(
        policy=_Caller(bench.model, bench.workload),
        reference=reference,
        bare=bench.bare,
        phases=bench.phases,
        peft=bench.model,
    )
    loss, out = stages.loss(bench.workload, actors, batch(bench.workload), bench.loss_of)
    if not bench.workload.keeps_output:
        del out
    bench.phases.enter("head backward")
    if bench.engine is not None:
        bench.engine.before_backward()
    loss.backward()
    if bench.engine is not None:
        bench.engine.after_backward()
    for parameter in bench.trained:
        if parameter.grad is not None:
            bench.tracer.regroup(parameter.grad, "gradients")


def batch(workload: Workload) -> heads.Batch:
    """Return one micro batch of token ids; padded ones carry a mask, packed ones positions."""
    rows, columns = workload.micro_batch_size, workload.sequence_tokens
    if workload.stage in stages.PAIRS:
        rows *= 2
    if workload.packing:
        rows, columns = 1, rows * columns
    made = {name: torch.randint(0, _WORDS, (rows, columns)) for name in ("input_ids", "labels")}
    if workload.packing:
        made["position_ids"] = torch.zeros(rows, columns, dtype=torch.int64)
    elif workload.attention == "sdpa-mask":
        made["attention_mask"] = torch.ones(rows, columns, dtype=torch.int64)
    return made


class _Caller:
    """Calls a model as accelerate's wrapper does: under autocast, and its output is cast to fp32."""

    def __init__(self, model: Any, workload: Workload) -> None:
        self._model = model
        dtype = workload.autocast
        self._dtype = None if dtype is None or dtype == "fp32" else build.DTYPES[dtype]
        self._converts = self._dtype is not None and workload.trainer in ("trl", "transformers")

    def __call__(self, **arguments: Any) -> Any:
        context = nullcontext() if self._dtype is None else torch.autocast("cpu", dtype=self._dtype)
        with context:
            out = self._model(**arguments)
        if not self._converts:
            return out
        from accelerate.utils.operations import convert_to_fp32

        return convert_to_fp32(out)


def _step_in_backward(bench: Bench) -> None:
    made = {parameter: optimizers.make(bench.workload.optimizer, [parameter]) for parameter in bench.trained}

    def update(parameter: Tensor) -> None:
        with bench.tracer.grouped("optimizer"):
            made[parameter].step()
        made[parameter].zero_grad(set_to_none=True)

    for parameter in bench.trained:
        parameter.register_post_accumulate_grad_hook(update)


@contextmanager
def _as_on_a_gpu() -> Iterator[None]:
    """Answer as on a GPU what libraries ask of torch: peft asks whether autocast is on, and means CUDA's."""
    real = torch.is_autocast_enabled

    def is_enabled(device_type: str = "cpu") -> bool:
        return bool(real(device_type))

    torch.is_autocast_enabled = is_enabled
    try:
        yield
    finally:
        torch.is_autocast_enabled = real
