"""Which part of each tensor a rank holds, and where: on its device, in host memory, on a disk. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from ..specs.estimate import Place
from ..specs.workload import Quantization, Sharding, Workload
from .lines import rounded
from .optimizers import Stretch
from .tensors import Holdings, Part, headless, holdings

FSDP = frozenset({"fsdp", "fsdp1"})
SUB_GROUP_ELEMENTS = 1_000_000_000
"""DeepSpeed's ``sub_group_size`` (deepspeed 0.19.8, runtime/zero/config.py)."""
ALIGNMENT = 2
"""A flat buffer of ZeRO 1 and 2 has a multiple of this for every rank (stage_1_and_2.py)."""
FEW_SIDES = 1
"""Vectors: biases and the weights of norms, which transformers gives no weight decay."""


def holdings_of(w: Workload) -> Holdings:
    """Return the tensors of a workload.

    Raises:
        Refused: The model's parameters are not known, or PEFT refuses the adapter.
        BadInput: Layers to train are named and not there.
    """
    return holdings(
        headless(w.model) if w.stage == "rm" else w.model,
        w.method,
        w.adapter,
        num_trainable_layers=w.num_trainable_layers,
        trained_modules=w.trained_modules,
        quantization=w.quantization,
    )


@dataclass(frozen=True, slots=True)
class Cuts:
    """By how much each kind of state is divided."""

    weights: int
    packed: int
    gradients: int
    optimizer: int


@lru_cache(maxsize=1024)
def cuts(sharding: Sharding, quantization: Quantization | None) -> Cuts:
    """Return how many ranks share each kind of state.

    FSDP cannot cut packed weights that are kept as integers: accelerate 1.15 leaves them out
    (utils/fsdp_utils.py, fsdp2_prepare_model). ZeRO-3 cuts them as bytes.
    """
    shards = max(1, sharding.num_shards)
    if sharding.backend in FSDP:
        is_float = quantization is None or quantization.storage in {"fp32", "bf16", "fp16"}
        return Cuts(shards, shards if is_float else 1, shards, shards)
    if sharding.backend != "zero":
        return Cuts(1, 1, 1, 1)
    stage = sharding.zero_stage
    weights = shards if stage == 3 else 1  # noqa: PLR2004 - ZeRO-3
    return Cuts(weights, weights, shards if stage > 1 else 1, shards if stage else 1)


def places(sharding: Sharding) -> tuple[Place, Place]:
    """Return where the weights and where the optimizer states are; gradients go with the optimizer."""
    where: dict[str, Place] = {"none": "device", "cpu": "host", "nvme": "disk"}
    can_move = sharding.backend in FSDP or (sharding.backend == "zero" and sharding.zero_stage == 3)  # noqa: PLR2004
    weights = where[sharding.offload_parameters] if can_move else "device"
    if sharding.backend in FSDP:
        return weights, weights
    is_zero = sharding.backend == "zero" and sharding.zero_stage > 0
    return weights, where[sharding.offload_optimizer] if is_zero else "device"


def split(parts: tuple[Part, ...], tensor_parallel: int) -> tuple[Part, ...]:
    """Return the tensors of one rank of tensor parallelism: matrices are cut, vectors are not."""
    return parts if tensor_parallel <= 1 else _split(parts, tensor_parallel)


@lru_cache(maxsize=256)
def _split(parts: tuple[Part, ...], ranks: int) -> tuple[Part, ...]:
    return tuple(
        Part(part.path, (-(-part.shape[0] // ranks), *part.shape[1:]), part.count, part.where, part.is_matrix)
        if len(part.shape) > FEW_SIDES
        else part
        for part in parts
    )


def local_bytes(parts: Iterable[Part], item_bytes: int, sharding: Sharding, shards: int) -> int:
    """Return the bytes of tensors on the rank that holds most, as the allocator rounds them."""
    if shards == 1:
        return sum(part.count * rounded(part.size * item_bytes) for part in parts)
    if sharding.backend == "fsdp":
        return sum(part.count * rounded(part.local(shards) * item_bytes) for part in parts)
    return sum(part.count * rounded(-(-part.size // shards) * item_bytes) for part in parts)


def optimizer_stretches(parts: tuple[Part, ...], sharding: Sharding, shards: int) -> tuple[Stretch, ...]:
    """Return the tensors that the optimizer of one rank works on.

    FSDP2 and no sharding: the rank's part of every parameter. DeepSpeed: flat buffers, one per parameter
    group of the trainer (with and without weight decay), under ZeRO-3 cut into sub groups.
    """
    if sharding.backend != "zero" or sharding.zero_stage == 0:
        return tuple(
            Stretch((part.local(shards) // _width(part), *part.shape[1:]), part.count, part.is_matrix)
            for part in parts
        )
    flats: list[Stretch] = []
    for group in _groups(parts):
        flat = flat_elements(group, sharding, shards)
        step = sharding.sub_group_elements or SUB_GROUP_ELEMENTS
        if sharding.zero_stage < 3 or flat <= step:  # noqa: PLR2004 - ZeRO-3
            flats.append(Stretch((flat,), 1))
        else:
            flats += [Stretch((step,), flat // step), Stretch((flat % step or step,), int(flat % step > 0))]
    return tuple(flat for flat in flats if flat.size and flat.number)


def _width(part: Part) -> int:
    return part.size // part.shape[0]


def _groups(parts: tuple[Part, ...]) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    matrices = tuple(part for part in parts if len(part.shape) > FEW_SIDES)
    return matrices, tuple(part for part in parts if len(part.shape) <= FEW_SIDES)


def flat_elements(parts: Iterable[Part], sharding: Sharding, shards: int) -> int:
    """Return the elements of one rank's share of a flat buffer of these tensors.

    ZeRO 1 and 2 cut the buffer, padded to a multiple of twice the ranks; ZeRO-3 cuts every tensor.
    """
    if sharding.zero_stage == 3:  # noqa: PLR2004 - ZeRO-3
        return sum(part.count * -(-part.size // shards) for part in parts)
    number = sum(part.total for part in parts)
    aligned = -(-number // (ALIGNMENT * shards)) * ALIGNMENT * shards
    return aligned // shards


def sub_group_elements(parts: tuple[Part, ...], sharding: Sharding, shards: int) -> int:
    """Return the elements of the largest flat buffer that DeepSpeed's optimizer updates at once."""
    return max((stretch.size for stretch in optimizer_stretches(parts, sharding, shards)), default=0)
