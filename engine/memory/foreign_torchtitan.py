"""The training step of pytorch/torchtitan's Llama 3 on a tape, from December 2024 on. Pure.

Sources: pytorch/torchtitan 9dec370 (2024-12-26) and 6fc499f (2025-08-14): train.py, components/loss.py,
run_train.sh; parallelize_llama.py (what FSDP wraps, what is compiled); torch 2.13,
distributed/fsdp/_fully_shard/_fsdp_collectives.py (which stream a buffer belongs to).
"""

from dataclasses import dataclass
from functools import lru_cache

from ..errors import Refused
from ..specs.estimate import PhaseName, Term
from ..specs.workload import DTYPE_BYTES, Workload
from .blocks_torch import FP32, Torch, Weight
from .foreign_llama import Layers, Llama
from .foreign_ops import Ops, shape_of
from .foreign_pool import mapped_bytes
from .lines import Product, term
from .sharding import buffer_terms
from .tape import Tape, Tensor
from .tape_sizes import Part, Walked

SOURCE = "pytorch/torchtitan, models/llama3 and train.py at the date of the measurement"
POOL = "torch 2.13, CUDACachingAllocator.cpp: expandable segments, best fit"
LATEST = "2025-08-14"
COMPILES_LOSS = "2025-04-02"
"""bbb1b61: before, "compiling loss function causes CUDA errors, turning off for now"."""
SPLITS_ROOT = "2025-07-28"
"""83e6941: embedding and output layer are units of their own."""
BEFORE_END: tuple[PhaseName, ...] = ("forward", "head", "backward start")
END: PhaseName = "backward end"
MAPPED: tuple[PhaseName, ...] = (*BEFORE_END, END, "optimizer")
STREAMS = "torch 2.13, _fsdp_collectives.py; CUDACachingAllocator.cpp: a stream's blocks are its own"


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A layer's facts and those of the loss."""

    llama: Llama
    compiles_loss: bool


def walk_of(w: Workload) -> Walked:
    """Return what a step of a workload holds.

    Raises:
        Refused: It is no full training of a Llama.
    """
    return walk(_step(w))


def _step(w: Workload) -> Step:
    shape = shape_of(w.model)
    if shape is None or w.method != "full" or w.model.model_type not in ("llama", "llama4_text"):
        raise Refused(f"torchtitan's operations for {w.method} of {w.model.model_type} are not written down")
    date = w.stack.trainer or LATEST
    llama = Llama(
        shape=shape,
        date=date,
        checkpointing=w.checkpointing,
        compiles=w.compiles,
        ranks=w.sharding.tensor_parallel,
    )
    return Step(llama=llama, compiles_loss=w.compiles and date >= COMPILES_LOSS)


@lru_cache(maxsize=256)
def walk(step: Step) -> Walked:
    """Return what a step holds: phases ``forward``, ``head``, ``backward start`` and ``backward end``."""
    tape = Tape(lands_gradients=False)
    _run(tape, step)
    return tape.walked()


@lru_cache(maxsize=256)
def _trail(step: Step) -> tuple[tuple[int, Part], ...]:
    tape = Tape(lands_gradients=False)
    tape.trail = []
    _run(tape, step)
    return tuple(tape.trail)


def _run(tape: Tape, step: Step) -> None:
    ops = Ops(tape, Torch(tape))
    layers, llama = Layers(ops, step.llama), step.llama
    tape.phase = "forward"
    trains = [ops.fixed("embedding weights", llama.shape.hidden * llama.shape.vocab // llama.ranks, ops.item)]
    x = tape.op([], "embedded", llama.shape.hidden // llama.ranks, ops.item, trains=trains)
    starts = []
    with tape.within("layer"):
        for index in range(llama.shape.layers):
            starts.append(tape.num_operations)
            x = layers.run(x, index)
    head_start = tape.num_operations
    tape.phase = "head"
    with tape.within("head"):
        normed = layers.norm(x)
        del x
        loss = _loss(ops, _logits(ops, normed, llama), compiles=step.compiles_loss, ranks=llama.ranks)
        del normed
    tape.backward(loss, until=head_start)
    with tape.within("recomputed layer"):
        for index in reversed(range(llama.shape.layers)):
            tape.phase = {llama.shape.layers - 1: "backward start", 0: "backward end"}.get(
                index, "backward between"
            )
            tape.resume(until=starts[index])
    tape.resume()


def _logits(ops: Ops, normed: Tensor, llama: Llama) -> Tensor:
    shape = llama.shape
    if llama.ranks > 1:
        normed = ops.tape.op([normed], "gathered input", shape.hidden, normed.item_bytes)
    weight = Weight("logits", shape.hidden, shape.vocab // llama.ranks, ops.item, is_trained=True)
    return ops.torch.matmul(normed, weight, "logits")


def _loss(ops: Ops, logits: Tensor, *, compiles: bool, ranks: int) -> Tensor:
    """Cross entropy in float32.

    Compiled, it reads the 16-bit logits and writes their gradient: no float32 tensor is as large. Otherwise
    the loss keeps log-softmax in float32, and its backward pass has two more such tensors; three where every
    rank has a part of the words (torch 2.13, distributed/tensor/parallel/loss.py).
    """
    tape = ops.tape
    if compiles:
        return tape.op([logits], "losses", 3, FP32, keeps=[logits])
    wide = ops.torch.to(logits, FP32, "logits in float32")
    whole = [Part("logits in float32", "gradient", wide.width, FP32, "token")] if ranks > 1 else []
    scores = tape.op(
        [wide], "log-softmax", wide.width, FP32, keeps_output=True, passes=ranks > 1, forward_scratch=whole
    )
    del wide
    return tape.op([scores], "losses", 1, FP32, backward_scratch=whole * 2)


def extra_terms(w: Workload) -> tuple[Term, ...]:
    """Return what the allocator has mapped and no tensor holds.

    Layers are gathered on one stream and gradients reduced on another, and a stream's blocks are its own:
    what arrives, and the shards that ``zero_grad`` drops, leave blocks that only the same stream uses again
    (foreach_all_gather, foreach_reduce). What the main stream has mapped at its highest moment, with the gaps
    between activations, stays mapped.
    """
    count = w.model.num_parameters
    if w.sharding.backend != "fsdp" or w.sharding.num_shards < 2 or count is None:  # noqa: PLR2004 - sharded at all
        return ()
    size = DTYPE_BYTES[w.sharding.reduce or w.trainable]
    shards = w.sharding.num_shards * w.sharding.tensor_parallel
    return (
        *_line("blocks of the stream that reduces", [Product(count, size, shards)], BEFORE_END, STREAMS),
        *_line("blocks of the stream that gathers", [_arriving(w)], MAPPED, STREAMS),
        *(
            line
            for phase, idle in _idle(w).items()
            for line in _line("mapped and idle", [idle], (phase,), POOL)
        ),
    )


def _arriving(w: Workload) -> Product:
    """The first unit and the block behind it arrive together: the embedding, or all that no block holds."""
    parameters, model = w.model.parameters, w.model
    assert parameters is not None
    block = max((unit.num_parameters for unit in parameters.units), default=0)
    first = parameters.num_outside_units
    if (w.stack.trainer or LATEST) >= SPLITS_ROOT:
        first = (model.vocab_size or 0) * (model.hidden_size or 0)
    return Product((block + first) // w.sharding.tensor_parallel, DTYPE_BYTES[w.autocast or w.weights])


def _idle(w: Workload) -> dict[PhaseName, Product]:
    """Return what the main stream has mapped and does not use, phase by phase."""
    step = _step(w)
    walked = walk(step)
    tape = {phase: walked.peak(w.tokens, w.sequence_tokens, phase).num_bytes for phase in walked.phases}
    gaps = max(0, mapped_bytes(_trail(step), w.tokens, w.sequence_tokens) - max(tape.values()))
    buffers = buffer_terms(w)
    used = {
        phase: tape[phase] + sum(line.num_bytes for line in buffers if phase in line.phases)
        for phase in (*BEFORE_END, END)
    }
    most = max(used.values()) + gaps
    return {phase: Product(most - used[phase], 1) for phase in used}


def _line(name: str, products: list[Product], phases: tuple[PhaseName, ...], source: str) -> tuple[Term, ...]:
    return term(name, "overhead", products, phases, source=source, place="reserved")
