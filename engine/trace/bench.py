"""Sets a model up for a traced step: fake weights, hooks, head, ranks, and what is held beside it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..exact.zero import is_written_down
from ..specs.workload import Workload
from . import build, fsdp, heads, stages, zero
from .layers import blocks
from .phases import Phases
from .tracer import StorageTracer

_BUCKET_BYTES = 25 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """A model on fake tensors with everything that a step needs."""

    workload: Workload
    model: Any
    """As it is called: wrapped by peft when adapters are trained."""
    bare: Any
    """The transformers model inside."""
    reference: Any
    """A second, frozen model, or ``None``."""
    trained: list[nn.Parameter]
    tracer: StorageTracer
    phases: Phases
    loss_of: heads.LossOf
    held: list[Tensor]
    """What nothing else would keep alive: buckets."""
    engine: zero.Engine | None = None
    """DeepSpeed's, where it is written down."""


def set_up(model: Any, workload: Workload, ranks: Any, reference: Any, more_layers: int = 0) -> Bench:
    """Return the bench of a prepared model on meta; runs inside a fake tensor mode.

    Args:
        model: What ``build.prepare`` returned.
        workload: What is trained how.
        ranks: The mesh of the ranks, when weights are sharded.
        reference: A second, frozen model on meta, or ``None``.
        more_layers: How many it has beyond these at full depth.
    """
    build.as_fake(model, workload)
    bare = model.get_base_model() if workload.method == "lora" else model
    layers = blocks(bare)
    model.train()
    if workload.checkpointing in ("full", "every-2nd"):
        bare.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if workload.checkpointing == "every-2nd":
            for layer in layers[1::2]:
                layer.gradient_checkpointing = False
        if workload.method == "lora":
            bare.enable_input_require_grads()
    is_cast_outside = workload.autocast is not None and workload.trainer in ("trl", "transformers")
    outputs = stages.FUSED_OUTPUTS.get(workload.stage, heads.FUSED_OUTPUTS)
    loss_of = heads.install(bare, workload.loss, is_cast_outside=is_cast_outside, outputs=outputs)
    tracer = StorageTracer()
    phases = Phases(tracer)
    phases.watch(bare, layers)
    if ranks is not None:
        fsdp.shard(model, bare, layers, workload, ranks)
    if reference is not None:
        _prepare_reference(reference, workload, ranks)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    _track(model, reference, [layers, *([] if reference is None else [blocks(reference)])], tracer)
    is_doubled = workload.sharding.backend == "ddp" and workload.sharding.num_ranks > 1
    buckets = _buckets(trained) if is_doubled else []
    for bucket in buckets:
        tracer.track(bucket, "buffers", "bucket")
    engine = None
    if is_written_down(workload):
        engine = zero.Engine(bare, trained, workload, tracer, more_layers)
    for parameter in trained:
        parameter.register_post_accumulate_grad_hook(_taker(workload, tracer, engine))
    return Bench(
        workload=workload,
        model=model,
        bare=bare,
        reference=reference,
        trained=trained,
        tracer=tracer,
        phases=phases,
        loss_of=loss_of,
        held=buckets,
        engine=engine,
    )


def _taker(
    workload: Workload, tracer: StorageTracer, engine: zero.Engine | None
) -> Callable[[nn.Parameter], None]:
    """Who looks at a gradient as soon as it is there."""
    if engine is not None:
        return engine.take
    if workload.sharding.backend == "zero":
        return _taken
    return lambda parameter: tracer.regroup(parameter.grad, "gradients")


def _taken(parameter: nn.Parameter) -> None:
    """DeepSpeed takes every gradient into buffers of its own, which are in closed form (exact/zero.py)."""
    parameter.grad = None


def _track(model: Any, reference: Any, all_layers: list[nn.ModuleList], tracer: StorageTracer) -> None:
    """Count the weights: what is frozen first, adapters after it, as they come onto the device."""
    is_adapted = any(not parameter.requires_grad for parameter in model.parameters())
    late = []
    owners = {
        id(part): number
        for layers in all_layers
        for number, layer in enumerate(layers)
        for part in layer.modules()
    }
    for held in (model, reference):
        for path, module in () if held is None else held.named_modules():
            for name, tensor in (*module._parameters.items(), *module._buffers.items()):  # noqa: SLF001 - with their module
                if tensor is None:
                    continue
                if is_adapted and tensor.requires_grad:
                    late.append((tensor, f"{path}.{name}", owners.get(id(module))))
                    continue
                is_packed = name == "weight" and hasattr(module, "dequantize")
                layer = owners.get(id(module))
                tracer.track(tensor, "weights", f"{path}.{name}", layer=layer, is_packed=is_packed)
    tracer.segment()
    for tensor, name, layer in late:
        tracer.track(tensor, "weights", name, layer=layer)
    tracer.segment()


def _buckets(trained: list[nn.Parameter]) -> list[Tensor]:
    """DistributedDataParallel keeps every gradient a second time, in buckets of 25 MiB.

    Source: torch 2.13 csrc/distributed/c10d/reducer.cpp; accelerate 1.15: gradient_as_bucket_view is off.
    """
    buckets: list[Tensor] = []
    by_type: dict[torch.dtype, int] = {}
    for parameter in reversed(trained):
        size = by_type.get(parameter.dtype, 0) + parameter.numel()
        by_type[parameter.dtype] = size
        if size * parameter.dtype.itemsize >= _BUCKET_BYTES:
            buckets.append(torch.empty(by_type.pop(parameter.dtype), dtype=parameter.dtype))
    return buckets + [torch.empty(size, dtype=dtype) for dtype, size in by_type.items()]


def _prepare_reference(reference: Any, workload: Workload, ranks: Any) -> None:
    build.as_fake(reference, workload)
    reference.eval()
    heads.add_trl_head(reference, ("log_probs",))
    if ranks is not None:
        fsdp.shard(reference, reference, blocks(reference), workload, ranks)
