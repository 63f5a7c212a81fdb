"""What this rank really holds, counted on the tensors themselves after the engine has taken the model."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from . import packed


@dataclass(frozen=True, kw_only=True, slots=True)
class Census:
    """Weights and optimizer states of one rank, in elements."""

    sharding: str | None
    """``zero-2``, ``fsdp2``; ``None``: nothing is split."""
    num_parameters: int
    """Of the whole model."""
    num_trainable_parameters: int
    num_local_parameters: int
    """What of them this rank holds between two steps."""
    num_optimizer_parameters: int | None
    """Trained elements whose optimizer states this rank holds; ``None``: not to be seen."""
    num_shards: int
    """Parts that the weights (ZeRO-1 and -2: the optimizer states) are split into."""
    parameter_bytes: dict[str, int]
    packed: packed.Found


def take(trainer: Any) -> Census:
    """Count what this rank holds of the trainer's model."""
    parameters = list(trainer.model.parameters())
    held: dict[str, int] = {}
    for parameter in parameters:
        local = local_part(parameter)
        dtype = str(local.dtype).removeprefix("torch.")
        held[dtype] = held.get(dtype, 0) + local.numel() * local.element_size()
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return Census(
        sharding=_sharding(trainer.model_wrapped),
        num_parameters=sum(map(_num_elements, parameters)),
        num_trainable_parameters=sum(map(_num_elements, trained)),
        num_local_parameters=sum(local_part(parameter).numel() for parameter in parameters),
        num_optimizer_parameters=_num_optimizer_parameters(trainer.model_wrapped, trained),
        num_shards=_num_shards(trainer, parameters),
        parameter_bytes=held,
        packed=packed.find(trainer.model, local_part),
    )


def local_part(parameter: Any) -> Any:
    """Return the tensor that this rank holds of a parameter: a shard, or all of it."""
    from torch.distributed.tensor import DTensor

    if isinstance(parameter, DTensor):
        return parameter.to_local()
    return getattr(parameter, "ds_tensor", parameter)  # ZeRO-3 leaves an empty tensor in its place


def _num_elements(parameter: Any) -> int:
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def _sharding(model: Any) -> str | None:
    from torch.distributed.fsdp import FSDPModule

    if isinstance(model, FSDPModule):
        return "fsdp2"
    stage = getattr(model, "zero_optimization_stage", None)
    return f"zero-{stage()}" if callable(stage) else None


def _num_shards(trainer: Any, parameters: Iterable[Any]) -> int:
    """Return the smallest split found: a single whole weight makes it 1."""
    from torch.distributed.tensor import DTensor

    stage = getattr(trainer.model_wrapped, "zero_optimization_stage", None)
    if callable(stage):
        return int(trainer.accelerator.num_processes) if stage() > 0 else 1
    splits = [_split_of(parameter) if isinstance(parameter, DTensor) else 1 for parameter in parameters]
    return min(splits, default=1)


def _split_of(parameter: Any) -> int:
    mesh, split = parameter.device_mesh, 1
    for dimension, placement in enumerate(parameter.placements):
        split *= mesh.size(dimension) if placement.is_shard() else 1
    return split


def _num_optimizer_parameters(model: Any, trained: list[Any]) -> int | None:
    """Return the elements that the optimizer of this rank steps over.

    DeepSpeed 0.19.8 holds its parts under another name in each stage; on a disk they are not to be seen.
    """
    if not callable(getattr(model, "zero_optimization_stage", None)):
        return int(sum(local_part(parameter).numel() for parameter in trained))
    optimizer = model.optimizer
    for name in (
        "single_partition_of_fp32_groups",  # stages 1, 2
        "fp32_partitioned_groups_flat",  # stage 3
        "fp32_groups_flat_partition",  # stage 1 in bfloat16
    ):
        if parts := getattr(optimizer, name, None):
            return int(sum(part.numel() for part in parts)) or None
    return sum(_num_elements(parameter) for parameter in trained)
