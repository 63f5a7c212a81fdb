"""What training holds from step to step: weights, gradients, optimizer states, second copies. Pure."""

from functools import lru_cache

from ..specs.estimate import PHASES, Place, Term
from ..specs.workload import DTYPE_BYTES, Sharding, Workload
from .cuts import FSDP, local_bytes, optimizer_stretches, places, split, sub_group_elements
from .gradients import active_elements, gradient_terms
from .lines import HELD, Product, rounded, term
from .optimizers import StateBytes, state_bytes, step_products
from .quantized import SOURCES, packed_bytes, scale_products, weight_product
from .state_key import ZERO3, ZERO12, Key, key_of
from .tensors import Part, elements, largest

DOUBLE_BYTES = 8
TRANSFORMERS = "transformers 5.23.0, modeling_utils.py"
PEFT = "peft 0.21.2, tuners/lora/layer.py"


def state_terms(w: Workload) -> tuple[Term, ...]:
    """Return what one rank's device holds from step to step.

    Raises:
        Refused: The model's parameters are not known, or PEFT refuses the adapter.
        BadInput: The optimizer or the layers to train do not exist.
    """
    return tuple(line for line in rank_states(key_of(w)) if line.place == "device")


@lru_cache(maxsize=4096)
def rank_states(key: Key) -> tuple[Term, ...]:
    """Return the states of one rank wherever they are: on its device, its host or a disk."""
    at, optimizer_at = places(key.sharding)
    return (
        *_weights(key, at),
        *_trained_weights(key, at),
        *gradient_terms(key, optimizer_at),
        *_optimizer(key, optimizer_at),
        *_at_the_step(key, optimizer_at),
        *_reference(key, at),
        *_loading(key, at),
    )


def _frozen_bytes(key: Key) -> int:
    return 4 if key.upcasts else key.weight_bytes


def _frozen(key: Key) -> tuple[Part, ...]:
    """The model's own tensors that are neither packed nor trained."""
    held = key.held
    if key.is_full:
        return ()
    plain = split(held.plain, key.sharding.tensor_parallel)
    if held.added or held.copies:
        return plain
    trained = {(part.path, part.shape): part.count for part in key.trained}
    left = (
        Part(part.path, part.shape, part.count - trained.get((part.path, part.shape), 0), part.where)
        for part in plain
    )
    return tuple(part for part in left if part.count > 0)


def _weights(key: Key, at: Place) -> tuple[Term, ...]:
    tensor_parallel = key.sharding.tensor_parallel
    frozen, size, shards = _frozen(key), _frozen_bytes(key), key.cuts.weights
    plain = term(
        "weights" if not key.held.packed else "weights that are not packed",
        "weights",
        [Product(elements(frozen), size, shards)],
        PHASES,
        source="peft 0.21.2, utils/other.py: float32 for all that is not packed"
        if key.upcasts
        else TRANSFORMERS,
        num_bytes=local_bytes(frozen, size, key.sharding, shards),
        place=at,
    )
    how = key.quantization
    if how is None or not key.held.packed:
        return plain
    packed = split(key.held.packed, tensor_parallel)
    weights, scales = packed_bytes(packed, how)
    product = weight_product(packed, how)
    shards = key.cuts.packed
    return (
        *plain,
        *term(
            "packed weights",
            "weights",
            [Product(product.number, product.size, shards)],
            PHASES,
            source=SOURCES[how.kind],
            num_bytes=-(-weights // shards),
            place=at if shards == key.cuts.weights else "device",
        ),
        *term(
            "scales of packed weights",
            "weights",
            scale_products(packed, how),
            PHASES,
            source=f"{SOURCES[how.kind]}; every rank has them all",
            num_bytes=scales,
        ),
    )


def _trained_weights(key: Key, at: Place) -> tuple[Term, ...]:
    if key.is_full:
        return _cut_line(key, "weights", key.trained, at=at)
    held = key.held
    if not held.added and not held.copies:
        return _cut_line(key, "trained weights", key.trained, at=at)
    tensor_parallel = key.sharding.tensor_parallel
    return (
        *_cut_line(key, "adapter weights", split(held.added, tensor_parallel), at=at),
        *_cut_line(
            key, "copies of saved modules", split(held.copies, tensor_parallel), key.copies_bytes, at=at
        ),
    )


def _cut_line(
    key: Key, name: str, parts: tuple[Part, ...], item_bytes: int | None = None, *, at: Place
) -> tuple[Term, ...]:
    size, shards = item_bytes or key.trained_bytes, key.cuts.weights
    return term(
        name,
        "weights",
        [Product(elements(parts), size, shards)],
        PHASES,
        source=TRANSFORMERS if key.is_full else PEFT,
        num_bytes=local_bytes(parts, size, key.sharding, shards),
        place=at,
    )


def _optimizer(key: Key, at: Place) -> tuple[Term, ...]:
    shards = key.cuts.optimizer
    stretches = optimizer_stretches(key.trained, key.sharding, shards)
    lines: tuple[Term, ...] = ()
    if key.sharding.master and key.sharding.backend == "zero":
        size = DTYPE_BYTES[key.sharding.master]
        lines = term(
            "second copy of trained weights",
            "optimizer",
            [Product(stretch.size * stretch.number, size) for stretch in stretches],
            HELD,
            source=ZERO3 if key.zero == 3 else ZERO12,  # noqa: PLR2004 - ZeRO-3
            num_bytes=sum(rounded(stretch.size * size) * stretch.number for stretch in stretches),
            place=at,
        )
    if key.optimizer == "badam":
        active = [Product(active_elements(key), 12)]
        return (*lines, *term("optimizer states", "optimizer", active, HELD, source=key.rule.source))
    kept = kept_states(key, key.sharding, shards)
    return (
        *lines,
        *term(
            "optimizer states",
            "optimizer",
            [product for states in kept for product in states.products],
            HELD,
            source=key.rule.source,
            num_bytes=sum(states.num_bytes for states in kept),
            place=at,
        ),
    )


def kept_states(key: Key, sharding: Sharding, shards: int) -> tuple[StateBytes, ...]:
    """Return what the optimizer keeps, for each format of what is trained."""
    return tuple(
        state_bytes(
            key.rule,
            optimizer_stretches(parts, sharding, shards),
            DTYPE_BYTES[key.sharding.master] if key.sharding.master else size,
        )
        for parts, size in key.groups
    )


def _at_the_step(key: Key, at: Place) -> tuple[Term, ...]:
    """What lives only while parameters are updated: DeepSpeed's float32 gradients, copies, norms."""
    if at != "device" or (key.drops_gradients and key.rule.step != "loop"):
        return ()
    stretches = optimizer_stretches(key.trained, key.sharding, key.cuts.optimizer)
    made = [
        product
        for parts, size in key.groups
        for product in step_products(
            key.rule,
            optimizer_stretches(parts, key.sharding, key.cuts.optimizer),
            DTYPE_BYTES[key.sharding.master] if key.sharding.master else size,
        )
    ]
    if key.zero and key.sharding.master:
        return _zero_step(key, sum(product.value for product in made))
    lines = term("optimizer temporaries", "optimizer", made, ("optimizer",), source=key.rule.source)
    if not key.clips or key.drops_gradients:
        return lines
    number = sum(stretch.number for stretch in stretches)
    source = "torch 2.13.0, nn/utils/clip_grad.py: one number per tensor"
    return (
        *lines,
        *term("gradient norms", "gradients", [Product(number, 512)], ("optimizer",), source=source),
    )


def _zero_step(key: Key, made: int) -> tuple[Term, ...]:
    """A sub group's gradients are joined, then turned to the format of the second copy, then used."""
    group = sub_group_elements(key.trained, key.sharding, key.cuts.optimizer)
    joined, turned = Product(group, key.trained_bytes), Product(group, key.optimized_bytes)
    size = key.trained_bytes
    lines = [joined, turned]
    if made > joined.value:
        lines = [turned, Product(made, 1)]
    shards = key.cuts.optimizer if key.zero == 3 else 1  # noqa: PLR2004 - ZeRO-3
    tensor = min(-(-largest(key.trained) // shards), group)
    norm = Product(tensor, DOUBLE_BYTES)
    if norm.value > sum(product.value for product in lines):
        lines = [norm]
    source = f"{ZERO3 if key.zero == 3 else ZERO12}, step; gradients of {size} B"  # noqa: PLR2004 - ZeRO-3
    return term("gradients of a sub group", "optimizer", lines, ("optimizer",), source=source)


def _reference(key: Key, at: Place) -> tuple[Term, ...]:
    """A second frozen copy, divided as the first is; DDP and ZeRO 1 and 2 keep it whole."""
    if not key.has_reference:
        return ()
    parts = split((*key.held.plain, *key.held.packed), key.sharding.tensor_parallel)
    return term(
        "reference model",
        "weights",
        [Product(elements(parts), key.weight_bytes, key.cuts.weights)],
        PHASES,
        source="trl 1.16.0, create_model_from_path: a second copy in the format of the first",
        num_bytes=local_bytes(parts, key.weight_bytes, key.sharding, key.cuts.weights),
        place=at,
    )


def _loading(key: Key, at: Place) -> tuple[Term, ...]:
    """What is on the device only while weights arrive.

    Packed weights that FSDP will cut are packed in host memory (engine/worker/loading.py).
    """
    is_fsdp = key.sharding.backend in FSDP and key.cuts.weights > 1
    lines: tuple[Term, ...] = ()
    if key.held.packed and not (is_fsdp and key.sharding.backend == "fsdp"):
        product = Product(largest(key.held.packed), key.weight_bytes)
        source = "transformers 5.23.0, core_model_loading.py: a weight arrives whole and is packed there"
        lines = term("weight being packed", "weights", [product], ("load",), source=source)
    if key.held.packed and key.zero == 3:  # noqa: PLR2004 - ZeRO-3
        lines = (*lines, *_before_it_is_split(key))
    if at == "device" and is_fsdp:
        product = Product(
            largest((*key.held.plain, *key.held.trained)), max(key.trained_bytes, key.weight_bytes)
        )
        source = "accelerate 1.15.0, utils/fsdp_utils.py, fsdp2_load_full_state_dict: tensor by tensor"
        lines = (*lines, *term("weight being spread", "weights", [product], ("load",), source=source))
    return lines


def _before_it_is_split(key: Key) -> tuple[Term, ...]:
    """The rest of a packed model: only what is not packed is split while it is read."""
    how = key.quantization
    assert how is not None
    ranks, shards = key.sharding.tensor_parallel, key.cuts.packed
    packed, plain = split(key.held.packed, ranks), _frozen(key)
    weights, _ = packed_bytes(packed, how)
    whole = weights + sum(part.count * rounded(part.size * key.weight_bytes) for part in plain)
    source = "transformers 5.23.0, modeling_utils.py, get_init_context: no zero.Init when quantized"
    left = Product(whole * (shards - 1), 1, shards)
    return term("packed model before it is split", "weights", [left], ("load",), source=source)
