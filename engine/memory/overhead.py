"""What a device holds beside tensors: the allocator's gaps, the driver's context, communication. Pure."""

from collections.abc import Iterable
from functools import lru_cache

from ..specs.estimate import PHASES, Group, PhaseName, Term
from ..specs.workload import DTYPE_BYTES, LossHead, Workload
from .activations import tokens_of
from .cuts import places
from .lines import HELD, Product, term
from .state_key import Key, key_of
from .states import kept_states
from .tensors import largest

MIB = 1 << 20
DYNAMIC: frozenset[Group] = frozenset({"activations", "logits", "buffers"})
"""Groups whose tensors come and go within a step."""
GAPS = {"full": 0.22, "every-2nd": 0.12, "selective-op": 0.12, "none": 0.06}
"""Share of what comes and goes that the allocator keeps in no tensor, by checkpointing. Temporaries of one
recomputed layer are many sizes over few bytes, kept activations are few sizes over many."""
GAPS_SOURCE = "traced steps replayed through a model of torch 2.13.0's CUDACachingAllocator"
FULL_LOGITS: frozenset[LossHead] = frozenset({"logits", "logits-fp32", "logits-shifted"})
"""Loss heads that hold the logits of all tokens."""
INT32_BYTES = 4
BLOCK_SOURCE = "logits: gradients and states stay in their freed blocks, so that one more is taken"
VARIED_SHARE = 0.20
"""More of it when every batch has another length: 15 to 25 % (modelscope/ms-swift's published runs)."""
EXPANDABLE_BYTES = 22 * MIB
"""One large and one small page that are not full: 20 and 2 MiB."""
CUBLAS_BYTES = 2 * 4096 * 1024 + 8 * 16 * 1024
CUBLAS_HOPPER_BYTES = 4096 * 8 * 1024
CUBLAS_SOURCE = (
    "torch 2.13.0, ATen/cuda/CublasHandlePool.cpp; one for the program's thread, one for autograd's"
)
BNB_PAGES = "bitsandbytes 0.50.2, optim/optimizer.py, get_state_buffer: managed memory from 100,000 elements"
THREADS = 2
HOPPER = ("H100", "H200", "H800", "H20", "GH200", "B100", "B200", "B300", "GB200", "GB300")
"""Compute capability 9.0 and newer, as cards are named."""

CONTEXTS: tuple[tuple[str, int, str], ...] = (
    ("T4", 141, "fitcheck-llm, data/measurements/final-t4-20260921.json"),
    ("RTX 6000 Ada", 426, "unslothai/unsloth-zoo#1053: torch 2.10+cu130"),
    ("3090", 484, "NVIDIA/nccl#2366: CUDA 13.0, after the first collective"),
)
"""Name of a card, MiB of the context of a process, who measured it."""
USUAL_CONTEXT = (616, "LMCache/LMCache#4019: the largest published for a current driver; not this card's own")
CHANNELS: tuple[tuple[str, int, str], ...] = (
    ("A100", 24, "NVIDIA/nccl-tests#100"),
    ("A800", 24, "as A100: NVIDIA/nccl-tests#100"),
    ("V100", 12, "NVIDIA/nccl#713: 6 found, doubled"),
    *((name, 16, "NVIDIA/nccl#892 (H800)") for name in HOPPER),
)
"""Name of a card, channels that NCCL logged on such a box, where."""
PCIE_CHANNELS = (2, "NVIDIA/nccl-tests#228: cards without NVLink")
UNKNOWN_CHANNELS = (24, "the most that is published, as the card is not known")
CHANNEL_BYTES = (1 << 22) + 120 * 640 * 8 * 8 + 8 * 512 * 8 * 16
"""Buffers of a connection for the protocols Simple, LL128 and LL (NCCL, src/init.cc)."""
CONNECTIONS = 3
"""Ring, tree upwards, tree downwards. 24 channels make 662 MiB; NVIDIA/nccl#964 measured 688 MiB on A100."""
NET_CHANNELS, NET_STEPS, NET_CHUNK_BYTES = 32, 16, 128 * 1024
NET_SOURCE = "NCCL 2.14.3 (torch 2.0), src/transport/net.cc, sharedBuffersInit: as much for one rank"
HCCL_BYTES = 2 * 200 * 1_000_000
"""Sending and receiving buffer of a communicator: HCCL_BUFFSIZE is 200 MB."""
HCCL_SOURCE = "Huawei CANN 8, environment variable HCCL_BUFFSIZE"


def overhead_terms(w: Workload, device_terms: Iterable[Term]) -> tuple[Term, ...]:
    """Return what the device of one rank holds beside the tensors of a step.

    Args:
        w: The step.
        device_terms: Its other terms, of which the gaps of the allocator are a share.
    """
    key = key_of(w)
    return (*fixed_overhead(w), *_lone_rank(w, key), *_paged(key), *_gaps(w, tuple(device_terms)))


def _lone_rank(w: Workload, key: Key) -> tuple[Term, ...]:
    """DeepSpeed makes a communicator for one rank too, and old NCCL gives it buffers for a network."""
    if w.device_kind != "cuda" or not key.zero or w.sharding.num_ranks > 1 or not key.has_old_torch:
        return ()
    products = [Product(NET_CHANNELS * NET_STEPS, NET_CHUNK_BYTES)]
    return term("communication buffers", "overhead", products, PHASES, source=NET_SOURCE, place="driver")


@lru_cache(maxsize=1024)
def _paged(key: Key) -> tuple[Term, ...]:
    """Optimizer states in managed memory: on the device while there is room, and not torch's."""
    if not key.rule.paged or places(key.sharding)[1] != "device":
        return ()
    kept = kept_states(key, key.sharding, key.cuts.optimizer)
    products = [Product(sum(states.paged_bytes for states in kept), 1)]
    return term("paged optimizer states", "optimizer", products, HELD, source=BNB_PAGES, place="driver")


def fixed_overhead(w: Workload) -> tuple[Term, ...]:
    """Return what does not depend on the step's tensors: matrix workspaces, context, communication."""
    shards = w.sharding
    groups = int(shards.num_ranks > 1)
    groups += int(1 < shards.num_shards < shards.num_ranks)
    groups += int(shards.tensor_parallel > 1) + int(shards.context_parallel > 1)
    return _fixed(w.device_kind, w.device_name, groups if shards.num_ranks > 1 else 0)


def overhead_notes(w: Workload) -> tuple[str, ...]:
    """Return what is not counted, a sentence each."""
    if w.device_kind in {"cuda", "cpu"}:
        return ()
    return (f"What the driver of {w.device_kind} devices takes for itself is not published and not counted.",)


@lru_cache(maxsize=256)
def _fixed(kind: str, name: str | None, groups: int) -> tuple[Term, ...]:
    if kind == "npu":
        products = [Product(HCCL_BYTES, groups)]
        return term("communication buffers", "overhead", products, PHASES, source=HCCL_SOURCE, place="driver")
    if kind != "cuda":
        return ()
    size = CUBLAS_HOPPER_BYTES if _is_hopper(name) else CUBLAS_BYTES
    context, source = _found(CONTEXTS, name) or USUAL_CONTEXT
    lines = (
        *term("matrix workspaces", "overhead", [Product(THREADS, size)], HELD, source=CUBLAS_SOURCE),
        *term("context", "overhead", [Product(context, MIB)], PHASES, source=source, place="driver"),
    )
    if not groups:
        return lines
    channels, where = (_found(CHANNELS, name) or PCIE_CHANNELS) if name else UNKNOWN_CHANNELS
    products = [Product(groups * channels * CONNECTIONS, CHANNEL_BYTES)]
    source = f"NCCL, src/init.cc: {channels} channels x {CONNECTIONS} connections; {where}"
    nccl = term("communication buffers", "overhead", products, PHASES, source=source, place="driver")
    return (*lines, *nccl)


def _is_hopper(name: str | None) -> bool:
    return name is not None and any(word in name for word in HOPPER)


def _found(table: tuple[tuple[str, int, str], ...], name: str | None) -> tuple[int, str] | None:
    """The longest name that is part of the card's, at a word's start: ``T4`` is no ``T400``."""
    words = f" {name or ''} ".replace("-", " ")
    hits = [(key, value, source) for key, value, source in table if f" {key} " in words]
    if not hits:
        return None
    _, value, source = max(hits, key=lambda hit: len(hit[0]))
    return value, source


def _gaps(w: Workload, terms: tuple[Term, ...]) -> tuple[Term, ...]:
    if w.device_kind == "cpu":
        return ()
    group: Group = "overhead"
    if w.expandable_segments:
        source = "torch 2.13.0, c10/cuda/CUDACachingAllocator.cpp: pages of 20 and 2 MiB"
        product = [Product(1, EXPANDABLE_BYTES)]
        return term("gaps of the allocator", group, product, PHASES, source=source, place="reserved")
    dynamic, logits = dynamic_bytes(terms, counts_gradients=w.method != "lora")
    block = logits_block(w)
    # Without its own rule a head's tensors are like any others.
    shared, again = (dynamic, 0) if not 0 < block <= logits else (dynamic - logits, block)
    lines = term(
        "gaps of the allocator",
        group,
        [Product(shared, GAPS[w.checkpointing]), Product(again, 1), Product(_unpacked(w), INT32_BYTES)],
        PHASES,
        source=f"{GAPS_SOURCE}; {BLOCK_SOURCE}" if again else GAPS_SOURCE,
        place="reserved",
    )
    if not w.varied_lengths:
        return lines
    more = term(
        "gaps from lengths that vary",
        group,
        [Product(dynamic, VARIED_SHARE)],
        PHASES,
        source="modelscope/ms-swift, Benchmark.md: padded batches of many lengths",
        place="reserved",
    )
    return (*lines, *more)


def logits_block(w: Workload) -> int:
    """Return the bytes of the largest tensor of a head that holds all logits, of a checkpointed model.

    Gradients and optimizer states that are born in its freed blocks stay there, so that the next pass finds
    no block that is large enough and takes one more. Where nothing is computed again, larger tensors than
    these come and go all along.
    """
    if w.loss not in FULL_LOGITS or w.checkpointing == "none" or w.stage == "rm":
        return 0
    is_narrow = w.loss == "logits-shifted" and w.autocast is None
    size = DTYPE_BYTES[w.weights] if is_narrow else DTYPE_BYTES["fp32"]
    return tokens_of(w) * (w.model.vocab_size or 0) * size


def _unpacked(w: Workload) -> int:
    """Elements of the largest weight that is unpacked from 32-bit integers, of a checkpointed model.

    The 16-bit weights that a recomputed layer keeps are born in the block of integers that the one before
    has left, so that the next finds none.
    """
    is_unpacked = w.quantization is not None and w.quantization.kind == "gptq"
    return largest(key_of(w).held.packed) if is_unpacked and w.checkpointing == "full" else 0


def dynamic_bytes(terms: Iterable[Term], *, counts_gradients: bool) -> tuple[int, int]:
    """Return what comes and goes, of the phase that holds most, and how much of it is the head's."""
    totals: dict[PhaseName, int] = dict.fromkeys(PHASES, 0)
    dynamic: dict[PhaseName, int] = dict.fromkeys(PHASES, 0)
    logits: dict[PhaseName, int] = dict.fromkeys(PHASES, 0)
    for line in terms:
        if line.place != "device":
            continue
        moves = line.group in DYNAMIC or (counts_gradients and line.group == "gradients")
        for phase in line.phases:
            totals[phase] += line.num_bytes
            dynamic[phase] += line.num_bytes if moves else 0
            logits[phase] += line.num_bytes if line.group == "logits" else 0
    peak = max(PHASES, key=totals.__getitem__)
    return dynamic[peak], logits[peak]
