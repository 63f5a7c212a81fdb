"""DeepSpeed's buffers: reduction buckets, parameters that stay, gathered and fetched ahead. Pure.

Source of every rule: deepspeed 0.19.8, runtime/zero (stage_1_and_2.py, stage3.py,
partitioned_param_coordinator.py), with the values that transformers 5.23.0 gives for ``auto``.
"""

from functools import lru_cache
from typing import NamedTuple

from ..specs.estimate import PhaseName, Term
from ..specs.workload import Sharding
from .cuts import places, split
from .lines import HELD, Product, term
from .state_key import ZERO3, ZERO12, Key
from .tensors import Part, elements, largest

HF_AUTO = "transformers 5.23.0, integrations/deepspeed.py"
COORDINATOR = "deepspeed 0.19.8, runtime/zero/partitioned_param_coordinator.py"
PREFETCH_SHARE = 0.9
PERSISTENCE_ROWS = 10
LIVE_ELEMENTS = 1_000_000_000
"""``stage3_max_live_parameters`` and ``stage3_max_reuse_distance`` when the file does not say otherwise."""
BACKWARD: tuple[PhaseName, ...] = ("backward start", "backward end")


class Live(NamedTuple):
    """Elements of parameters that are whole on a rank, beside those that persist."""

    forward: int
    head: int
    backward: int
    kept: int
    """Blocks at the end of the forward pass that are needed again soon."""


def reduce_bucket(sharding: Sharding, hidden_size: int) -> int:
    """Return the elements of DeepSpeed's reduction bucket; ``auto`` is the hidden size squared."""
    return sharding.reduce_bucket_elements or hidden_size * hidden_size


def persistent_elements(key: Key, hidden_size: int) -> int:
    """Return the elements of the small tensors that ZeRO-3 never partitions away; ``auto`` is ten rows."""
    wanted = key.sharding.persistence_threshold_elements
    threshold = PERSISTENCE_ROWS * hidden_size if wanted is None else wanted
    return sum(part.total for part in _all(key) if part.size <= threshold)


def _all(key: Key) -> tuple[Part, ...]:
    held = key.held
    return split((*held.plain, *held.packed, *held.added, *held.copies), key.sharding.tensor_parallel)


@lru_cache(maxsize=2048)
def zero_buffers(key: Key, *, is_checkpointed: bool, hidden_size: int) -> tuple[Term, ...]:
    """Return the buffers of one rank under DeepSpeed.

    Args:
        key: What the states depend on.
        is_checkpointed: Layers are computed again in the backward pass, and so fetched once more.
        hidden_size: The model's, for values that are ``auto``.
    """
    if key.zero == 0:
        return ()
    if key.zero < 3:  # noqa: PLR2004 - ZeRO-3
        return (*_buckets(key, hidden_size), *_offload_buffer(key))
    return (*_buckets(key, hidden_size), *_parameters(key, hidden_size, is_checkpointed=is_checkpointed))


def _buckets(key: Key, hidden_size: int) -> tuple[Term, ...]:
    """ZeRO 1 and 2 make their buckets for each backward pass, two of them to overlap; ZeRO-3 keeps one.

    Before deepspeed 0.18.3 that was ahead of the loss's own backward pass, while the logits are there.
    """
    bucket = reduce_bucket(key.sharding, hidden_size)
    size = key.trained_bytes
    phases: tuple[PhaseName, ...]
    if key.zero < 3:  # noqa: PLR2004 - ZeRO-3
        number = 2 if key.sharding.overlap_comm else 1
        products = [Product(bucket * number, size)]
        phases = BACKWARD if key.makes_buckets_late else ("head", *BACKWARD)
        return term(
            "reduction bucket", "buffers", products, phases, source=f"{ZERO12}, setup_buckets; {HF_AUTO}"
        )
    kept = term("reduction bucket", "buffers", [Product(bucket, size)], HELD, source=f"{ZERO3}; {HF_AUTO}")
    lines = kept
    for phases, wheres in ((BACKWARD[:1], {"head", "block"}), (BACKWARD[1:], {"embedding", "block"})):
        large = largest(part for part in key.trained if part.where in wheres)
        copied = Product(min(max(bucket, large), max(large, elements(key.trained))), size)
        source = "deepspeed 0.19.8, runtime/comm/coalesced_collectives.py: the bucket, cut and joined again"
        lines = (*lines, *term("gradients being reduced", "buffers", [copied], phases, source=source))
    return lines


def _offload_buffer(key: Key) -> tuple[Term, ...]:
    """The largest gradient passes through a buffer of its own on its way to the host."""
    if places(key.sharding)[1] == "device":
        return ()
    product = Product(largest(key.trained), key.trained_bytes)
    source = f"{ZERO12}, temp_grad_buffer_for_gpu_offload"
    return term("gradient on its way to the host", "buffers", [product], HELD, source=source)


def _parameters(key: Key, hidden_size: int, *, is_checkpointed: bool) -> tuple[Term, ...]:
    size = key.weight_bytes
    persistent = persistent_elements(key, hidden_size)
    wanted = key.sharding.prefetch_bucket_elements
    ahead = int(PREFETCH_SHARE * hidden_size * hidden_size) if wanted is None else wanted
    live = live_elements(key, is_checkpointed=is_checkpointed)
    lines = term(
        "small parameters, whole on every rank",
        "buffers",
        [Product(persistent, size)],
        HELD,
        source=f"{ZERO3}; persistence threshold from {HF_AUTO}",
    )
    phases: tuple[tuple[PhaseName, int], ...] = (
        ("forward", live.forward),
        ("head", live.head),
        ("backward start", live.backward + live.kept),
        ("backward end", live.backward),
    )
    total = elements(_all(key))
    for phase, number in phases:
        products = [Product(min(number + ahead, total), size)]
        source = f"{COORDINATOR}; prefetch from {HF_AUTO}"
        lines = (
            *lines,
            *term("parameters gathered and fetched ahead", "buffers", products, (phase,), source=source),
        )
    return lines


def live_elements(key: Key, *, is_checkpointed: bool) -> Live:
    """Return the parameters that are whole on a rank.

    A parameter is let go after its use, unless it is needed again before ``max_reuse_distance`` others: in
    the backward pass that keeps a whole block, at the end of the forward pass the last blocks.
    """
    parts = _all(key)
    head = sum(part.size for part in parts if part.where == "head") or max(
        (part.size for part in parts if part.where == "embedding"), default=0
    )
    block = _block(key, parts)
    reach = key.sharding.max_live_parameters or LIVE_ELEMENTS
    passes = 3 if is_checkpointed else 2
    layers = key.held.model.num_layers or 1
    kept = 0
    if block and 2 * head < reach:
        kept = min(layers, (reach - 2 * head - 1) // (passes * block) + 1)
    others = largest(part for part in parts if part.where == "block")
    return Live(
        forward=others + kept * block, head=head + kept * block, backward=block, kept=max(0, kept - 1) * block
    )


def _block(key: Key, parts: tuple[Part, ...]) -> int:
    count = key.held.model.parameters
    units = [unit for unit in count.units if not unit.is_nested] if count else []
    total = sum(unit.num_parameters * unit.count for unit in units)
    own = sum(part.total for part in parts if part.where == "block")
    share = max((unit.num_parameters for unit in units), default=0) / total if total else 1.0
    return int(own * share)
