"""What engines hold beside the state itself: gathered layers, buckets, gradients on their way. Pure.

FSDP2 as accelerate 1.15 wraps it: every block is a unit, the input embedding is one, and the last norm with
the output layer is one that stays gathered from the forward to the backward pass.
"""

from functools import lru_cache
from typing import NamedTuple

from ..specs.estimate import Group, PhaseName, Term
from ..specs.workload import DTYPE_BYTES, LossHead, Workload
from .cuts import FSDP, split
from .lines import HELD, Product, rounded, term
from .quantized import packed_bytes
from .state_key import Key, key_of
from .tensors import Part, elements
from .workload import version
from .zero_buffers import zero_buffers

SEPARATE_EMBEDDING_SINCE = (1, 15)
"""First accelerate of which we know that the embedding and the output layer are units of their own."""
IN_FORWARD: frozenset[LossHead] = frozenset({"fused-tiles", "liger", "cce", "chunked", "chunked-128"})
"""Loss heads whose peak is inside the model's forward pass, where the last gather is not yet freed."""
BUCKETS = (
    "torch 2.13.0, csrc/distributed/c10d/reducer.cpp; accelerate 1.15.0: gradient_as_bucket_view is False"
)
UNITS = (
    "torch 2.13.0, distributed/fsdp/_fully_shard/_fsdp_param_group.py; accelerate 1.15.0, fsdp2_prepare_model"
)
FLAT = "torch 2.13.0, distributed/fsdp/_flat_param.py"


class Units(NamedTuple):
    """Bytes of what FSDP gathers at a time, whole."""

    block: int
    """The largest block."""
    blocks: int
    """All of them."""
    embedding: int
    tail: int
    """Last norm and output layer, and a tied embedding."""
    root: int
    """What no unit holds; without separate units the embedding and the output layer too."""


def buffer_terms(w: Workload) -> tuple[Term, ...]:
    """Return what the engine of one rank holds beside the state.

    Raises:
        Refused: The model's parameters are not known, or PEFT refuses the adapter.
    """
    key = key_of(w)
    if w.sharding.backend == "zero":
        return zero_buffers(
            key, is_checkpointed=w.checkpointing != "none", hidden_size=w.model.hidden_size or 0
        )
    if w.sharding.backend == "ddp":
        return _ddp(key)
    if w.sharding.backend in FSDP and w.sharding.num_shards > 1:
        return _fsdp(key, w.loss in IN_FORWARD, _is_split(w))
    return ()


def _is_split(w: Workload) -> bool:
    if w.sharding.backend != "fsdp":
        return False
    if w.trainer in {"trl", "transformers"}:
        return w.stack.accelerate is None or version(w.stack.accelerate) >= SEPARATE_EMBEDDING_SINCE
    return w.trainer == "torchtitan"


@lru_cache(maxsize=1024)
def _ddp(key: Key) -> tuple[Term, ...]:
    """Every gradient has a second place in a bucket, for good."""
    if key.sharding.num_ranks <= 1 or key.drops_gradients:
        return ()
    product = Product(elements(key.trained), key.trained_bytes)
    return term("gradient buckets", "buffers", [product], HELD, source=BUCKETS)


@lru_cache(maxsize=1024)
def _fsdp(key: Key, in_forward: bool, is_split: bool) -> tuple[Term, ...]:  # noqa: FBT001 - a cache's key
    whole = gathered_units(key, everything=True, is_split=is_split)
    trained = gathered_units(key, everything=False, is_split=is_split)
    if key.sharding.backend == "fsdp1":
        return (*_gathered(key, whole), *_root_of_fsdp1(whole, trained))
    lines = (*_gathered(key, whole), *_kept_gathered(whole, is_split=is_split, in_forward=in_forward))
    if not elements(key.trained) or (key.accumulates and not key.sharding.syncs_every_batch):
        return (*lines, *_embedding_at_end(whole, Units(0, 0, 0, 0, 0), 0.0))
    ratio = DTYPE_BYTES[key.sharding.reduce] / key.gather_bytes if key.sharding.reduce else 1.0
    return (*lines, *_reduced(trained, ratio), *_embedding_at_end(whole, trained, ratio))


def _line(
    name: str, num_bytes: float, phases: tuple[PhaseName, ...], source: str = UNITS
) -> tuple[Term, ...]:
    group: Group = "buffers"
    return term(name, group, [Product(int(num_bytes), 1)], phases, source=source)


def gathered_units(key: Key, *, everything: bool, is_split: bool) -> Units:
    """Return the bytes of units in the format that they are gathered in.

    Args:
        key: What the states depend on.
        everything: All of a unit; otherwise what has gradients.
        is_split: Embedding and output layer are units of their own.
    """
    ranks = key.sharding.tensor_parallel
    own = (*key.held.plain, *key.held.added) if everything else key.held.trained
    parts = split(own, ranks)
    sums = {"block": 0, "embedding": 0, "head": 0, "rest": 0}
    for part in parts:
        sums[part.where] += part.total * key.gather_bytes
    if everything and key.quantization is not None and key.cuts.packed > 1:
        sums["block"] += packed_bytes(split(key.held.packed, ranks), key.quantization)[0]
    block = int(sums["block"] * _share_of_largest(key))
    if not is_split:
        return Units(block, sums["block"], 0, 0, sums["embedding"] + sums["head"] + sums["rest"])
    norms = sum(
        part.total * key.gather_bytes for part in parts if part.where == "rest" and _is_last_norm(part)
    )
    is_tied = not any(part.where == "head" for part in key.held.plain)
    tail = norms + (sums["embedding"] if is_tied else sums["head"])
    return Units(block, sums["block"], 0 if is_tied else sums["embedding"], tail, sums["rest"] - norms)


def _is_last_norm(part: Part) -> bool:
    return len(part.shape) == 1 and "." not in part.path.removesuffix(".bias")


def _share_of_largest(key: Key) -> float:
    """The largest unit's part of all units; the same for what is trained."""
    count = key.held.model.parameters
    units = [unit for unit in count.units if not unit.is_nested] if count else []
    total = sum(unit.num_parameters * unit.count for unit in units)
    return max((unit.num_parameters for unit in units), default=0) / total if total else 1.0


def _gathered(key: Key, whole: Units) -> tuple[Term, ...]:
    """One unit is in use while the next one arrives; without resharding all stay till their backward pass."""
    one = rounded(whole.block)
    if key.sharding.reshard_after_forward:
        phases: tuple[PhaseName, ...] = ("forward", "backward start", "backward end")
        product = Product(one, 2)
        return term(
            "gathered blocks", "buffers", [product], phases, source=f"{UNITS}; one in use, one arriving"
        )
    return (
        *_line("gathered blocks, not resharded", whole.blocks, ("forward", "head", "backward start")),
        *_line("gathered blocks", one, ("forward", "backward start", "backward end")),
    )


def _kept_gathered(whole: Units, *, is_split: bool, in_forward: bool) -> tuple[Term, ...]:
    if not is_split:
        phases: tuple[PhaseName, ...] = ("forward", "head", "backward start", "backward end")
        return _line("gathered embedding, norm and output layer", whole.root, phases)
    is_tied = whole.embedding == 0
    tail = _line("gathered output layer", whole.tail, ("head",))
    if is_tied:
        tail = _line("gathered embedding", whole.tail, ("forward", "head", "backward start"))
    elif in_forward:
        tail = (*tail, *_line("buffer that the output layer was gathered in", whole.tail, ("head",)))
    kept = _line(
        "gathered rest of the model", whole.root, ("forward", "head", "backward start", "backward end")
    )
    return (*tail, *kept)


def _reduced(trained: Units, ratio: float) -> tuple[Term, ...]:
    """The last unit's gradients are being reduced while the next unit's are made."""
    first = trained.tail if trained.embedding else 0
    return (
        *_line("gradients being reduced", max(trained.block, first) * ratio, ("backward start",)),
        *_line("gradients being reduced", trained.block * ratio, ("backward end",)),
    )


def _embedding_at_end(whole: Units, trained: Units, ratio: float) -> tuple[Term, ...]:
    """The embedding's unit comes last: gathered, its gradient whole, then copied to be reduced.

    Whichever is more: both beside the gathered unit, or both beside the copy; less the block that is done.
    """
    first = trained.embedding or trained.tail or trained.root
    gathered = whole.embedding or whole.tail or whole.root
    is_kept = not whole.embedding and not whole.tail
    block = rounded(whole.block)
    arriving = gathered - (block if whole.embedding else 0)
    most = max(gathered + first, first + first * ratio) - 2 * block
    left = max(0 if is_kept else arriving, most - (gathered if is_kept else 0), 0)
    return _line("embedding, its gradient and the reduction", left, ("backward end",))


def _root_of_fsdp1(whole: Units, trained: Units) -> tuple[Term, ...]:
    """The root stays gathered; its gradients are joined to one flat tensor at the end."""
    phases: tuple[PhaseName, ...] = ("forward", "head", "backward start", "backward end")
    left = max(0, 2 * trained.root - 2 * rounded(whole.block))
    during: tuple[PhaseName, ...] = ("backward start", "backward end")
    return (
        *_line("gathered embedding, norm and output layer", whole.root, phases, FLAT),
        *_line("gradients being reduced", trained.block, during, FLAT),
        *_line("gradients of the root, and their flat copy", left, ("backward end",), FLAT),
    )
