"""What a run leaves or holds on a disk: the download, checkpoints, the final model, what is swapped. Pure."""

from functools import lru_cache
from itertools import chain

from ..specs.estimate import PhaseName, Term
from ..specs.workload import Sharding, Workload
from .cuts import FSDP
from .host import DataVolume
from .lines import Product, term
from .quantized import exact_bytes
from .state_key import Key, key_of, rank_count
from .states import kept_states, rank_states
from .tensors import elements, inventory

WHOLE: tuple[PhaseName, ...] = ("load", "forward", "save")
TRAINING: tuple[PhaseName, ...] = ("forward", "save")
KEPT = 2
"""``save_total_limit`` of a job."""
HUB_BYTES = 2
"""Weights are published in 16 bits."""
PREPACKED = frozenset({"gptq", "awq", "aqlm", "fp8", "mxfp4"})
"""Packings that are downloaded as such; the others are made while loading."""
RANK_BYTES = 16_384
"""Random states of a rank (measured: 14,645 B without CUDA's)."""
SMALL_FILES_BYTES = 20_000_000
"""Tokenizer, configuration, trainer's state: mostly the tokenizer, 17 MB for 128,256 words (Llama 3)."""
TOKEN_CACHE_BYTES = 4 + 1
"""input_ids in int32 and a mask of the loss in Arrow."""
SAFETENSORS = "safetensors: 8 B, a header and the tensors"
HF_TRAINER = "transformers 5.23.0, trainer.py, _save_optimizer_and_scheduler"
DEEPSPEED_SAVE = "deepspeed 0.19.8, runtime/engine.py, save_checkpoint; weights joined in 16 bits beside it"
FSDP_SAVE = "accelerate 1.15.0, utils/fsdp_utils.py: a tied output layer is written too"


def disk_terms(w: Workload, *, kept: int = KEPT, data: DataVolume | None = None) -> tuple[Term, ...]:
    """Return what the disk of one node holds.

    Args:
        w: The step.
        kept: Checkpoints that stay (``save_total_limit``); while one is saved there is one more.
        data: What is known of the data.

    Raises:
        Refused: The model's parameters are not known, or PEFT refuses the adapter.
    """
    key = key_of(w)
    return (*_files(key, max(1, kept)), *_swapped(key, rank_count(w.sharding)), *_cache(data))


def checkpoint_products(w: Workload) -> tuple[Product, ...]:
    """Return what one checkpoint is made of."""
    return _checkpoint(key_of(w))[0]


def checkpoint_bytes(w: Workload) -> int:
    """Return the bytes of one checkpoint, all ranks together, as their files hold them."""
    return sum(product.value for product in checkpoint_products(w))


def save_seconds(w: Workload, bytes_per_second: float) -> float:
    """Return how long a checkpoint takes to be written.

    Args:
        w: The step.
        bytes_per_second: What the disk writes; more than 0.
    """
    return checkpoint_bytes(w) / bytes_per_second


@lru_cache(maxsize=1024)
def _files(key: Key, kept: int) -> tuple[Term, ...]:
    products, source = _checkpoint(key)
    one = sum(product.value for product in products)
    first = [Product(product.number * kept, product.size) for product in products]
    again = [Product(product.number * (kept + 1), product.size) for product in products]
    download, where = _download(key)
    return (
        *term("download of the model", "weights", download, WHOLE, source=where, place="disk"),
        *term(
            f"{kept} checkpoints",
            "checkpoints",
            first,
            ("forward",),
            source=source,
            num_bytes=one * kept,
            place="disk",
        ),
        *term(
            f"{kept} checkpoints, and the one that is written",
            "checkpoints",
            again,
            ("save",),
            source=source,
            num_bytes=one * (kept + 1),
            place="disk",
        ),
        *term(
            "final model",
            "checkpoints",
            [*_saved(key), Product(1, SMALL_FILES_BYTES)],
            ("save",),
            source=SAFETENSORS,
            place="disk",
        ),
    )


def _download(key: Key) -> tuple[tuple[Product, ...], str]:
    how = key.quantization
    if how is not None and how.kind in PREPACKED:
        plain = Product(elements(key.held.plain), HUB_BYTES)
        return (plain, Product(exact_bytes(key.held.packed, how), 1)), f"huggingface_hub cache; {SAFETENSORS}"
    number = elements(inventory(key.held.model))
    return (Product(number, HUB_BYTES),), f"huggingface_hub cache, weights in 16 bits; {SAFETENSORS}"


def _saved(key: Key) -> tuple[Product, ...]:
    """What is written of a model: adapters and copies alone, or all of it."""
    if key.held.added or key.held.copies:
        return tuple(Product(elements(parts), size) for parts, size in key.groups)
    size = key.trained_bytes if key.is_full else max(key.weight_bytes, key.trained_bytes)
    return (Product(elements(key.held.plain) + _tied_elements(key), size),)


def _tied_elements(key: Key) -> int:
    """A tied output layer, which sharded checkpoints write a second time."""
    parts = inventory(key.held.model)
    if key.sharding.backend not in FSDP or key.held.added or any(part.where == "head" for part in parts):
        return 0
    return max((part.total for part in parts if part.where == "embedding"), default=0)


@lru_cache(maxsize=1024)
def _checkpoint(key: Key) -> tuple[tuple[Product, ...], str]:
    weights = _saved(key)
    ranks = max(1, key.sharding.num_ranks)
    small = (Product(ranks, RANK_BYTES), Product(1, SMALL_FILES_BYTES))
    kept = tuple(product for states in kept_states(key, Sharding(), 1) for product in states.products)
    if not key.zero:
        source = FSDP_SAVE if key.sharding.backend in FSDP else HF_TRAINER
        return (*weights, *kept, *small), source
    master = (Product(elements(key.held.trained), key.optimized_bytes),) if key.sharding.master else ()
    # ZeRO-3's own files hold no 16-bit weights: they are in the second copy (measured: 20 KB of 500).
    own = weights if key.zero < 3 else ()  # noqa: PLR2004 - ZeRO-3
    return (*weights, *own, *master, *kept, *small), DEEPSPEED_SAVE


def _swapped(key: Key, ranks: int) -> tuple[Term, ...]:
    """The states that DeepSpeed keeps on NVMe."""
    moved = (line for line in rank_states(key) if line.place == "disk")
    return tuple(
        chain.from_iterable(
            term(
                f"{line.name}, swapped",
                line.group,
                [Product(line.num_bytes, ranks)],
                TRAINING,
                source=f"{line.source}; each {line.formula}",
                place="disk",
            )
            for line in moved
        )
    )


def _cache(data: DataVolume | None) -> tuple[Term, ...]:
    if data is None or not data.num_tokens:
        return ()
    products = [Product(data.num_tokens, TOKEN_CACHE_BYTES)]
    source = "datasets, Arrow cache of the tokenised set"
    return term("tokenised data", "data", products, WHOLE, source=source, place="disk")
