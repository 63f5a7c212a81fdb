"""What engines hold beside the state itself: gathered layers, buckets, gradients on their way. Pure.

FSDP2 as accelerate 1.15 wraps it: every block is a unit, the input embedding is one, and the last norm with
the output layer is one that stays gathered from the forward to the backward pass.
"""

from dataclasses import replace
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
TITAN_SPLITS_SINCE = "2025-07-28"
"""Day from which torchtitan does the same (83e6941, apply_fsdp)."""
IN_FORWARD: frozenset[LossHead] = frozenset({"fused-tiles", "liger", "cce", "chunked", "chunked-128"})
"""Loss heads whose peak is inside the model's forward pass, where the last gather is not yet freed."""
ARRIVING, RETURNING = "output layer as it arrives", "embedding, its gradient and the reduction"
AFTER_A_LAYER: dict[str, PhaseName] = {ARRIVING: "forward", RETURNING: "backward end"}
"""Buffers of a moment when no layer is in work, in a phase in which one is."""
IN_WORK = frozenset({
    "layer in work", "adapter weights in full", "unpacked weights", "copies of weights in the compute format",
    "gradients of activations",
})  # fmt: skip
"""Terms of activations that end with their layer."""
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


def moments_apart(terms: tuple[Term, ...]) -> tuple[Term, ...]:
    """Return terms in which what arrives after a layer counts as far as it is more than the layer held.

    Args:
        terms: Of all rooms; those of a checkpointed model, whose layers hold nothing when they are done.
    """
    work = {
        late: sum(line.num_bytes for line in terms if phase in line.phases and line.name in IN_WORK)
        for late, phase in AFTER_A_LAYER.items()
    }
    return tuple(
        replace(line, num_bytes=left, formula=f"{line.formula} - {work[line.name]:,} B")
        if line.name in work
        else line
        for line in terms
        if (left := line.num_bytes - work.get(line.name, 0)) > 0
    )


def _is_split(w: Workload) -> bool:
    if w.sharding.backend != "fsdp":
        return False
    if w.trainer in {"trl", "transformers"}:
        return w.stack.accelerate is None or version(w.stack.accelerate) >= SEPARATE_EMBEDDING_SINCE
    return w.trainer == "torchtitan" and (w.stack.trainer or TITAN_SPLITS_SINCE) >= TITAN_SPLITS_SINCE


@lru_cache(maxsize=1024)
def _ddp(key: Key) -> tuple[Term, ...]:
    """Every gradient has a second place in a bucket, for good."""
    if key.sharding.num_ranks <= 1 or key.drops_gradients:
        return ()
    products = [Product(elements(parts), size) for parts, size in key.groups]
    return term("gradient buckets", "buffers", products, HELD, source=BUCKETS)


@lru_cache(maxsize=1024)
def _fsdp(key: Key, in_forward: bool, is_split: bool) -> tuple[Term, ...]:  # noqa: FBT001 - a cache's key
    whole = gathered_units(key, everything=True, is_split=is_split)
    trained = gathered_units(key, everything=False, is_split=is_split)
    if key.sharding.backend == "fsdp1":
        return (*_gathered(key, whole), *_root_of_fsdp1(whole, trained))
    ratio = DTYPE_BYTES[key.sharding.reduce] / key.gather_bytes if key.sharding.reduce else 1.0
    return (
        *_gathered(key, whole),
        *_kept_gathered(key, whole, is_split=is_split, in_forward=in_forward),
        *_on_the_way_back(key, whole, trained, ratio),
    )


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
    is_tied = _is_tied(key)
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


def _kept_gathered(key: Key, whole: Units, *, is_split: bool, in_forward: bool) -> tuple[Term, ...]:
    """What stays gathered from the forward to the backward pass.

    While a unit is copied out of the buffer that it arrived in, it is there twice, beside the buffer of the
    unit before; the buffer of the last one goes with the forward pass of the model.
    """
    always: tuple[PhaseName, ...] = ("forward", "head", "backward start", "backward end")
    if not is_split:
        return _line("gathered embedding, norm and output layer", whole.root, always)
    kept = _line("gathered rest of the model", whole.root, always)
    if not whole.embedding:
        return (*kept, *_line("gathered embedding", whole.tail, always))
    if not key.sharding.reshard_after_forward:
        kept = (*kept, *_line("gathered embedding, not resharded", whole.embedding, always[:3]))
    beside = whole.tail if in_forward else whole.block
    arriving = max(0, 2 * whole.tail - rounded(whole.block))
    return (
        *kept,
        *_line("gathered output layer", whole.tail, ("head",)),
        *_line("buffer beside the output layer", beside, ("head",)),
        *_line(ARRIVING, arriving, ("forward",)),
    )


def _on_the_way_back(key: Key, whole: Units, trained: Units, ratio: float) -> tuple[Term, ...]:
    """Gradients of one unit are being reduced while those of the next are made; the embedding comes last.

    Whatever is kept to the end (a tied embedding, a root that is no unit) has its gradient there all along.
    """
    is_split, block = bool(whole.embedding), rounded(whole.block)
    kept, arriving = (0, whole.embedding) if is_split else (whole.tail or whole.root, 0)
    last = trained.embedding if is_split else trained.tail or trained.root
    first = 0 if is_split or not last else _head_bytes(key)
    both = last + (first if _is_tied(key) else 0)
    reduced = trained.block * ratio
    held = kept + first + 2 * block + reduced
    moments = (2 * arriving + reduced, kept + arriving + both + reduced, last + last * ratio)
    tail = trained.tail * ratio if is_split else 0
    return (
        *_line("gradient of the output layer, not yet reduced", first, ("backward start", "backward end")),
        *_line("gradients being reduced", max(reduced, tail), ("backward start",)),
        *_line("gradients being reduced", reduced, ("backward end",)),
        *_line(
            RETURNING,
            max(0, *(m - held for m in moments)),
            ("backward end",),
        ),
    )


def _is_tied(key: Key) -> bool:
    has_own = any(part.where == "head" for part in key.held.plain)
    return not has_own and key.held.model.tie_word_embeddings is not False


def _head_bytes(key: Key) -> int:
    where = "embedding" if _is_tied(key) else "head"
    own = split(key.held.trained, key.sharding.tensor_parallel)
    return sum(part.total for part in own if part.where == where) * key.gather_bytes


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
