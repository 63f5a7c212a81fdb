"""FSDP2 for real, on a process group that talks to nobody: one rank of many.

Wraps as accelerate 1.15 does (utils/fsdp_utils.py, fsdp2_prepare_model): every block, the input embedding,
and the last norm with the output layer are units.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..specs.workload import Workload
from .build import DTYPES
from .tracer import StorageTracer

_COMMUNICATING = ("unshard", "wait_for_unshard", "post_backward", "finalize_backward")
"""Methods of FSDP's parameter group that allocate buffers (torch 2.13, _fsdp_param_group.py)."""


def mesh(workload: Workload) -> Any:
    """Return the device mesh of a run's ranks; call it outside of a fake tensor mode."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    sharding = workload.sharding
    if dist.is_initialized() and dist.get_world_size() != sharding.num_ranks:
        dist.destroy_process_group()
    if not dist.is_initialized():
        dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=sharding.num_ranks)
    copies = sharding.num_ranks // sharding.num_shards
    if copies > 1:
        return init_device_mesh("cpu", (copies, sharding.num_shards), mesh_dim_names=("copies", "shards"))
    return init_device_mesh("cpu", (sharding.num_shards,), mesh_dim_names=("shards",))


def shard(model: Any, bare: Any, layers: nn.ModuleList, workload: Workload, on: Any) -> None:
    """Split a model's parameters over the mesh, in place.

    Args:
        model: As it is called.
        bare: The transformers model inside.
        layers: Its layers.
        workload: Decides formats and when gathered layers are dropped.
        on: What ``mesh`` returned.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    dtype = _compute(workload)
    reduce = DTYPES[workload.sharding.reduce] if workload.sharding.reduce else dtype
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=reduce, output_dtype=dtype)
    whole = {p for p in model.parameters() if not p.is_floating_point()}  # bytes cannot be sharded
    common: dict[str, Any] = {"mesh": on, "mp_policy": policy, "ignored_params": whole}
    keep = {**common, "reshard_after_forward": workload.sharding.reshard_after_forward}
    for layer in layers:
        fully_shard(layer, **keep)
    if workload.trainer in ("trl", "transformers"):
        _shard_towers(bare, layers, keep)
    if workload.trainer in ("trl", "transformers", "torchtitan"):
        _shard_ends(bare, keep, common)
    fully_shard(model, **common)


def _shard_towers(bare: Any, layers: nn.ModuleList, keep: dict[str, Any]) -> None:
    """Wrap what else transformers does not split: layers of towers, the inner ones first."""
    from torch.distributed.fsdp import fully_shard

    names = set(getattr(bare, "_no_split_modules", None) or ())
    own = {id(part) for layer in layers for part in layer.modules()}
    for part in reversed(list(bare.modules())):
        if type(part).__name__ in names and id(part) not in own:
            fully_shard(part, **keep)


def _shard_ends(bare: Any, keep: dict[str, Any], common: dict[str, Any]) -> None:
    from torch.distributed.fsdp import fully_shard

    embedding, head = bare.get_input_embeddings(), bare.get_output_embeddings()
    norms = [part for part in bare.base_model.children() if "Norm" in type(part).__name__]
    is_tied = head is not None and embedding.weight is head.weight
    if not is_tied:
        fully_shard(embedding, **keep)
    tail = [*norms[-1:], *([embedding] if is_tied else []), *([head] if head is not None else [])]
    if tail:
        fully_shard(tail, **{**common, "reshard_after_forward": False})


def _compute(workload: Workload) -> torch.dtype | None:
    """The format that weights are gathered in; ``None``: their own."""
    if workload.autocast:
        return DTYPES[workload.autocast]
    return DTYPES["bf16"] if workload.weights == "bf16" else None


@contextmanager
def buffers_told(tracer: StorageTracer) -> Iterator[None]:
    """Count what FSDP allocates for communication as buffers while it lasts."""
    from torch.distributed.fsdp._fully_shard._fsdp_param_group import FSDPParamGroup

    real = {name: getattr(FSDPParamGroup, name) for name in _COMMUNICATING}

    def counted(method: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            with tracer.grouped("buffers"):
                return method(*arguments, **named)

        return call

    for name, method in real.items():
        setattr(FSDPParamGroup, name, counted(method))
    try:
        yield
    finally:
        for name, method in real.items():
            setattr(FSDPParamGroup, name, method)
