"""What is held of gradients, and when: engines keep them whole, cut, or in another place. Pure."""

from ..specs.estimate import PhaseName, Place, Term
from ..specs.workload import DTYPE_BYTES
from .cuts import FSDP, flat_elements, local_bytes
from .lines import HELD, Product, term
from .state_key import ZERO3, ZERO12, Key
from .tensors import elements, largest

AT_END: tuple[PhaseName, ...] = ("backward end", "optimizer")
ACCUMULATED: tuple[PhaseName, ...] = (
    "reference", "forward", "head", "backward start", "backward end", "optimizer",
)  # fmt: skip
"""With accumulation the gradients of earlier micro batches are there all the time."""
AUTOGRAD = "torch 2.13.0, autograd: a gradient has the format of its parameter"
FSDP2 = "torch 2.13.0, distributed/fsdp/_fully_shard/_fsdp_collectives.py, foreach_reduce"


def gradient_terms(key: Key, at: Place) -> tuple[Term, ...]:
    """Return the gradients of one rank: see ``AT_END`` and ``ACCUMULATED``.

    What a layer makes on its way is the activations' business; before the end of the backward pass only the
    output layer's gradient is counted here.
    """
    name = "adapter gradients" if key.held.added else "gradients"
    if key.drops_gradients:
        product = Product(largest(key.trained), key.trained_bytes)
        phases: tuple[PhaseName, ...] = ("backward start", "backward end")
        return term("gradient in use", "gradients", [product], phases, source=AUTOGRAD)
    if key.zero:
        return _zero_gradients(key, name, at)
    phases = ACCUMULATED if key.accumulates else AT_END
    if key.sharding.backend in FSDP and key.cuts.gradients > 1:
        return _fsdp_gradients(key, name, at)
    if key.optimizer == "badam":
        products = [Product(active_elements(key), key.trained_bytes)]
        lines = term(name, "gradients", products, phases, source=AUTOGRAD)
    else:
        lines = _cut_gradients(key, name, phases, 1)
    return lines if key.accumulates else (*lines, *_head_gradient(key, name))


def _cut_gradients(
    key: Key, name: str, phases: tuple[PhaseName, ...], shards: int, *, at: Place = "device"
) -> tuple[Term, ...]:
    return term(
        name,
        "gradients",
        [Product(elements(parts), size, shards) for parts, size in key.groups],
        phases,
        source=AUTOGRAD if shards == 1 else FSDP2,
        num_bytes=sum(local_bytes(parts, size, key.sharding, shards) for parts, size in key.groups),
        place=at,
    )


def active_elements(key: Key) -> int:
    """Return what BAdam trains at a time: one block."""
    count = key.held.model.parameters
    largest_unit = max((unit.num_parameters for unit in count.units), default=0) if count else 0
    return min(largest_unit or elements(key.trained), elements(key.trained))


def _head_gradient(key: Key, name: str) -> tuple[Term, ...]:
    """The output layer's gradient is made first."""
    wheres = {"head"} if any(part.where == "head" for part in key.trained) else {"embedding"}
    if "embedding" in wheres and not key.is_full:
        return ()
    products = [
        Product(elements(part for part in parts if part.where in wheres), size) for parts, size in key.groups
    ]
    return term(f"{name} of the output layer", "gradients", products, ("backward start",), source=AUTOGRAD)


def _fsdp_gradients(key: Key, name: str, at: Place) -> tuple[Term, ...]:
    """Sharded after the reduction; without one after each micro batch, whole until the last."""
    shards = key.cuts.gradients
    phases = ACCUMULATED if key.accumulates and key.sharding.syncs_every_batch else AT_END
    sharded = _cut_gradients(key, name, phases, shards, at=at)
    if not key.accumulates or key.sharding.syncs_every_batch:
        return sharded
    size = DTYPE_BYTES[key.sharding.reduce] if key.sharding.reduce else key.gather_bytes
    whole: tuple[PhaseName, ...] = ("reference", "forward", "head", "backward start")
    source = "accelerate 1.15.0, accelerator.py, no_sync: set_requires_gradient_sync(False)"
    named, all_of_them = f"{name} not yet reduced", Product(_made_elements(key), size)
    left = Product(_left_at_the_end(key), size)
    return (
        *sharded,
        *term(named, "gradients", [all_of_them], whole, source=source),
        *term(named, "gradients", [left], ("backward end",), source=f"{source}; every layer's goes with it"),
    )


def _made_elements(key: Key) -> int:
    return active_elements(key) if key.optimizer == "badam" else elements(key.trained)


def _left_at_the_end(key: Key) -> int:
    """Elements of what is reduced last: a block and the embedding."""
    blocks = sum(part.total for part in key.trained if part.where == "block")
    embedding = sum(part.total for part in key.trained if part.where == "embedding")
    return -(-blocks // max(1, key.held.model.num_layers or 1)) + embedding


def _zero_gradients(key: Key, name: str, at: Place) -> tuple[Term, ...]:
    """DeepSpeed's accumulated gradients: whole (1), one partition (2), one flat buffer for good (3).

    With the optimizer elsewhere they are there too, in the format of the second copy.
    """
    shards, size = key.cuts.optimizer, key.trained_bytes
    partition = flat_elements(key.trained, key.sharding, shards)
    if at != "device":
        host = [Product(partition, key.optimized_bytes)]
        if key.zero == 3 or key.accumulates:  # noqa: PLR2004 - ZeRO-3
            host.append(Product(partition, size))
        source = ZERO3 if key.zero == 3 else ZERO12  # noqa: PLR2004 - ZeRO-3
        return term(name, "gradients", host, HELD, source=source, place="host")
    if key.zero == 3:  # noqa: PLR2004 - ZeRO-3
        source = f"{ZERO3}, grad_partitions_flat_buffer"
        return term(name, "gradients", [Product(partition, size)], HELD, source=source)
    during: tuple[PhaseName, ...] = ACCUMULATED[:-1] if key.accumulates else AT_END[:1]
    if key.zero == 1 and shards > 1:
        whole = term(name, "gradients", [Product(elements(key.trained), size)], during, source=ZERO12)
        rest = term(name, "gradients", [Product(partition, size)], ("optimizer",), source=ZERO12)
        return (*whole, *rest)
    return term(name, "gradients", [Product(partition, size)], (*during, "optimizer"), source=ZERO12)
