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
    number, size = _gradient_elements(key), key.trained_bytes
    parts = key.trained
    exact = local_bytes(parts, size, key.sharding, 1) if key.optimizer != "badam" else None
    lines = term(name, "gradients", [Product(number, size)], phases, source=AUTOGRAD, num_bytes=exact)
    return lines if key.accumulates else (*lines, *_head_gradient(key, name))


def _gradient_elements(key: Key) -> int:
    """All that is trained; BAdam trains one block at a time."""
    return active_elements(key) if key.optimizer == "badam" else elements(key.trained)


def active_elements(key: Key) -> int:
    """Return what BAdam trains at a time: one block."""
    count = key.held.model.parameters
    largest_unit = max((unit.num_parameters for unit in count.units), default=0) if count else 0
    return min(largest_unit or elements(key.trained), elements(key.trained))


def _head_gradient(key: Key, name: str) -> tuple[Term, ...]:
    """The output layer's gradient is made first."""
    heads = [part for part in key.trained if part.where == "head"]
    if not heads and key.is_full:
        heads = [part for part in key.trained if part.where == "embedding"]
    return term(
        f"{name} of the output layer",
        "gradients",
        [Product(elements(heads), key.trained_bytes)],
        ("backward start",),
        source=AUTOGRAD,
    )


def _fsdp_gradients(key: Key, name: str, at: Place) -> tuple[Term, ...]:
    """Sharded after the reduction; without one after each micro batch, whole until the last."""
    shards = key.cuts.gradients
    sharded = term(
        name,
        "gradients",
        [Product(elements(key.trained), key.trained_bytes, shards)],
        ACCUMULATED if key.accumulates and key.sharding.syncs_every_batch else AT_END,
        source=FSDP2,
        num_bytes=local_bytes(key.trained, key.trained_bytes, key.sharding, shards),
        place=at,
    )
    if not key.accumulates or key.sharding.syncs_every_batch:
        return sharded
    size = DTYPE_BYTES[key.sharding.reduce] if key.sharding.reduce else key.gather_bytes
    whole: tuple[PhaseName, ...] = ("reference", "forward", "head", "backward start", "backward end")
    source = "accelerate 1.15.0, accelerator.py, no_sync: set_requires_gradient_sync(False)"
    product = Product(elements(key.trained), size)
    return (*sharded, *term(f"{name} not yet reduced", "gradients", [product], whole, source=source))


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
