"""What a node's own memory holds: processes, weights while they are read, what left the devices. Pure."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

from ..specs.estimate import Group, PhaseName, Term
from ..specs.workload import Workload
from .cuts import FSDP, flat_elements, places
from .lines import Product, term
from .quantized import exact_bytes
from .state_key import ZERO3, ZERO12, Key, key_of, rank_count
from .states import rank_states
from .tensors import elements, inventory, largest

WHOLE: tuple[PhaseName, ...] = ("load", "forward", "save")
"""Phases that are told apart on a host; ``forward`` is the whole training."""
TRAINING: tuple[PhaseName, ...] = ("forward", "save")
PROCESS_BYTES = 933 << 20
"""Python, torch, its libraries and a CUDA context: 926 and 933 MiB (Hugging Face, "Fine-tuning Llama 2 70B
using PyTorch FSDP", log of 7B on two devices, before loading)."""
CPU_PROCESS_BYTES = 503_070_720
"""The same without CUDA: torch, transformers, trl, peft, accelerate and datasets, measured on Linux with the
versions of ``Stack``."""
WORKER_BYTES = 231_813_120
"""A data loader's worker that has imported torch; measured as above."""
FILE_BYTES = 5_000_000_000
"""A file of weights as most of the hub has them; the one that is read stays mapped meanwhile."""
TOKEN_BYTES = 3 * 8
"""input_ids, attention_mask and labels of one token, int64."""
SWAP_BUFFERS, SWAP_ELEMENTS = 5, 100_000_000
"""DeepSpeed's pinned buffers for parameters on NVMe: ``buffer_count`` and ``buffer_size``."""
OPTIMIZER_SWAP_BUFFERS = 4
PINNED = "torch 2.13.0, ATen/core/CachingHostAllocator.h: pinned memory comes in powers of two"
LOADING = "transformers 5.23.0, core_model_loading.py"


@dataclass(frozen=True, kw_only=True, slots=True)
class DataVolume:
    """What is known of the data; nothing of it is needed."""

    num_tokens: int | None = None
    """Of the whole set, after tokenisation."""
    raw_bytes: int | None = None
    num_workers: int = 0
    """Data loader's processes of one rank."""


def host_terms(w: Workload, *, data: DataVolume | None = None) -> tuple[Term, ...]:
    """Return what the memory of one node holds, of all its ranks together.

    Raises:
        Refused: The model's parameters are not known, or PEFT refuses the adapter.
    """
    key = key_of(w)
    ranks = rank_count(w.sharding)
    rows = w.sequence_tokens * w.micro_batch_size
    workers = data.num_workers if data else 0
    return (
        *_host_states(key, ranks, w.device_kind == "cpu", w.device_kind),
        *_batches(rows, ranks, workers),
        *_dataset(data),
    )


@lru_cache(maxsize=1024)
def _host_states(key: Key, ranks: int, on_cpu: bool, kind: str) -> tuple[Term, ...]:  # noqa: FBT001 - a cache's key
    base = PROCESS_BYTES if kind == "cuda" else CPU_PROCESS_BYTES
    source = (
        "Hugging Face, Llama 2 70B with FSDP: log before loading"
        if kind == "cuda"
        else "measured, versions of Stack"
    )
    return (
        *term(
            "Python and its libraries", "overhead", [Product(ranks, base)], WHOLE, source=source, place="host"
        ),
        *_reading(key, ranks, stays=on_cpu),
        *_moved(key, ranks),
        *_pinned(key, ranks),
        *_deepspeed_copies(key, ranks),
        *_gathered_to_save(key),
    )


def _reading(key: Key, ranks: int, *, stays: bool) -> tuple[Term, ...]:
    """Weights pass through host memory: whole on the reading ranks, one tensor at a time on the others.

    A model that is packed on arrival goes to the device tensor by tensor; every rank of FSDP packs all of it
    here, so that no device has to hold the whole (engine/worker/loading.py).
    """
    parts = inventory(key.held.model)
    one = largest(parts) * key.weight_bytes
    if key.held.packed:
        product = [Product(ranks, one)]
        if key.sharding.backend == "fsdp" and key.quantization is not None:
            whole = exact_bytes(key.held.packed, key.quantization)
            product += [Product(ranks, whole), Product(ranks * elements(key.held.plain), key.weight_bytes)]
        return term("weights on their way", "weights", product, ("load",), source=LOADING, place="host")
    number = elements(parts)
    file = min(FILE_BYTES, number * key.weight_bytes)
    readers = 1 if _one_reads(key) else ranks
    copies = readers * (2 if key.has_reference else 1)
    phases: tuple[PhaseName, ...] = WHOLE if stays else ("load",)
    return (
        *term(
            "weights while they are read",
            "weights",
            [Product(number * copies, key.weight_bytes)],
            phases,
            source=f"{LOADING}; read by {readers} of {ranks} ranks",
            place="host",
        ),
        *term(
            "file that is read, largest tensor of every rank",
            "weights",
            [Product(1, file), Product(ranks, one)],
            ("load",),
            source=f"{LOADING}: files are mapped, and shared by the ranks",
            place="host",
        ),
    )


def _one_reads(key: Key) -> bool:
    is_cut = key.cuts.weights > 1 and (key.sharding.backend in FSDP or key.zero == 3)  # noqa: PLR2004 - ZeRO-3
    return is_cut and key.sharding.loads_on_rank_0


def _moved(key: Key, ranks: int) -> tuple[Term, ...]:
    """The states that an engine keeps in host memory, of all ranks."""
    return tuple(
        chain.from_iterable(
            _of_all(line, ranks, TRAINING) for line in rank_states(key) if line.place == "host"
        )
    )


def _of_all(line: Term, ranks: int, phases: tuple[PhaseName, ...]) -> tuple[Term, ...]:
    products = [Product(line.num_bytes, ranks)]
    name = f"{line.name} of {ranks} ranks" if ranks > 1 else line.name
    return term(
        name, line.group, products, phases, source=f"{line.source}; each {line.formula}", place=line.place
    )


def _pinned(key: Key, ranks: int) -> tuple[Term, ...]:
    """What pinning adds to the bytes of the state itself."""
    sizes = pinned_bytes(key)
    lost = sum(number * (power_of_two(size) - size) for size, number in sizes)
    copies = [Product(ranks * lost, 1)]
    return term("rounding of pinned memory", "buffers", copies, TRAINING, source=PINNED, place="host")


def _deepspeed_copies(key: Key, ranks: int) -> tuple[Term, ...]:
    """Second copies that DeepSpeed keeps for the way between host and device or disk."""
    if not key.zero:
        return ()
    at, optimizer_at = places(key.sharding)
    group: Group = "buffers"
    lines: tuple[Term, ...] = ()
    if key.zero < 3 and optimizer_at != "device":  # noqa: PLR2004 - ZeRO-3
        share = flat_elements(key.trained, key.sharding, key.cuts.optimizer)
        products = [
            Product(ranks * share, key.trained_bytes),
            Product(ranks * largest(key.trained), key.trained_bytes),
        ]
        name = "16-bit weights and gradients on their way"
        lines = term(name, group, products, TRAINING, source=ZERO12, place="host")
    if at == "disk":
        products = [Product(ranks * SWAP_BUFFERS * SWAP_ELEMENTS, key.weight_bytes)]
        source = f"{ZERO3}; offload_config.py: buffer_count, buffer_size"
        lines = (
            *lines,
            *term("buffers of swapped weights", group, products, TRAINING, source=source, place="host"),
        )
    if optimizer_at == "disk":
        share = flat_elements(key.trained, key.sharding, key.cuts.optimizer)
        tensor = min(share, key.sharding.sub_group_elements or 1_000_000_000)
        products = [Product(ranks * OPTIMIZER_SWAP_BUFFERS * tensor, 4)]
        source = "deepspeed 0.19.8, runtime/swap_tensor; offload_config.py: buffer_count"
        lines = (
            *lines,
            *term("buffers of swapped states", group, products, TRAINING, source=source, place="host"),
        )
    return lines


def power_of_two(num_bytes: int) -> int:
    """Return the pinned memory that torch takes for a tensor."""
    return 1 << max(0, num_bytes - 1).bit_length()


def pinned_bytes(key: Key) -> tuple[tuple[int, int], ...]:
    """Return the sizes of one rank's pinned tensors, and how many there are of each."""
    at, optimizer_at = places(key.sharding)
    if key.sharding.backend == "fsdp" and at == "host":
        parts = (*key.held.plain, *key.held.added)
        item = key.trained_bytes if key.is_full else key.weight_bytes
        return tuple((part.local(key.cuts.weights) * item, part.count) for part in parts)
    if not key.zero or "host" not in {at, optimizer_at}:
        return ()
    share = flat_elements(key.trained, key.sharding, key.cuts.optimizer)
    sizes: list[tuple[int, int]] = []
    if optimizer_at == "host":
        step = key.sharding.sub_group_elements or 1_000_000_000
        whole = min(step, share) if key.zero == 3 else share  # noqa: PLR2004 - ZeRO-3
        masters = 1 if key.zero == 3 else 2  # noqa: PLR2004 - its second copy is not pinned
        sizes += [(whole * key.optimized_bytes, masters * max(1, share // max(1, whole)))]
        sizes += [(share * key.trained_bytes, 1)]
    if at == "host":
        sizes += [(share * key.weight_bytes, 1)]
    return tuple((size, number) for size, number in sizes if size)


def _gathered_to_save(key: Key) -> tuple[Term, ...]:
    """The first rank joins what is cut, to write one model."""
    if key.cuts.weights == 1:
        return ()
    own = key.held.trained
    products = [Product(elements(own), key.trained_bytes if key.is_full else key.optimized_bytes)]
    source = "accelerate 1.15.0, accelerator.py, get_state_dict: on the host of the first rank"
    return term("model joined to be saved", "checkpoints", products, ("save",), source=source, place="host")


def _batches(rows: int, ranks: int, workers: int) -> tuple[Term, ...]:
    """Two pinned batches a rank, and two more of each worker, which prefetches."""
    number = ranks * rows * (2 + 2 * workers)
    source = "torch 2.13.0, utils/data/dataloader.py: prefetch_factor 2, pin_memory"
    lines = term("batches", "data", [Product(number, TOKEN_BYTES)], TRAINING, source=source, place="host")
    if not workers:
        return lines
    products = [Product(ranks * workers, WORKER_BYTES)]
    source = "measured: a process that imports torch, versions of Stack"
    return (*lines, *term("data loader's processes", "data", products, TRAINING, source=source, place="host"))


def _dataset(data: DataVolume | None) -> tuple[Term, ...]:
    """Data sets are mapped files, whose pages the system takes back. Raw text is read once."""
    if data is None or not data.raw_bytes:
        return ()
    products = [Product(data.raw_bytes, 1)]
    source = "datasets, json reader: text is parsed on its way to a mapped Arrow file"
    return term("text while it is prepared", "data", products, ("load",), source=source, place="host")
