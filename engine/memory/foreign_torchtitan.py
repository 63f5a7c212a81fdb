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
from .lines import Product, term
from .tape import Tape, Tensor
from .tape_sizes import Walked

SOURCE = "pytorch/torchtitan, models/llama3 and train.py at the date of the measurement"
LATEST = "2025-08-14"
COMPILES_LOSS = "2025-04-02"
"""bbb1b61: before, "compiling loss function causes CUDA errors, turning off for now"."""
BEFORE_END: tuple[PhaseName, ...] = ("forward", "head", "backward start")


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
    return walk(Step(llama=llama, compiles_loss=w.compiles and date >= COMPILES_LOSS))


@lru_cache(maxsize=256)
def walk(step: Step) -> Walked:
    """Return what a step holds: phases ``forward``, ``head``, ``backward start`` and ``backward end``."""
    tape = Tape(lands_gradients=False)
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
        loss = _loss(ops, _logits(ops, normed, llama), compiles=step.compiles_loss)
        del normed
    tape.backward(loss, until=head_start)
    for index in reversed(range(llama.shape.layers)):
        tape.phase = {llama.shape.layers - 1: "backward start", 0: "backward end"}.get(
            index, "backward between"
        )
        tape.resume(until=starts[index])
    tape.resume()
    return tape.walked()


def _logits(ops: Ops, normed: Tensor, llama: Llama) -> Tensor:
    shape = llama.shape
    if llama.ranks > 1:
        normed = ops.tape.op([normed], "gathered input", shape.hidden, normed.item_bytes)
    weight = Weight("logits", shape.hidden, shape.vocab // llama.ranks, ops.item, is_trained=True)
    return ops.torch.matmul(normed, weight, "logits")


def _loss(ops: Ops, logits: Tensor, *, compiles: bool) -> Tensor:
    """Cross entropy in float32.

    Compiled, it reads the 16-bit logits and writes their gradient: no float32 tensor is as large. Otherwise
    the loss keeps log-softmax in float32, and its backward pass has two more such tensors.
    """
    tape = ops.tape
    if compiles:
        return tape.op([logits], "losses", 3, FP32, keeps=[logits])
    wide = ops.torch.to(logits, FP32, "logits in float32")
    scores = tape.op([wide], "log-softmax", wide.width, FP32, keeps_output=True)
    del wide
    return tape.op([scores], "losses", 1, FP32)


def extra_terms(w: Workload) -> tuple[Term, ...]:
    """Return the blocks of other streams that stand by while they hold nothing.

    Gradients are reduced on a stream of their own, whose shards are its allocator's blocks: dropped by
    ``zero_grad``, they are only reused by the next reduction (foreach_reduce).
    """
    count = w.model.num_parameters
    if w.sharding.backend != "fsdp" or w.sharding.num_shards < 2 or count is None:  # noqa: PLR2004 - sharded at all
        return ()
    size = DTYPE_BYTES[w.sharding.reduce or w.trainable]
    shards = w.sharding.num_shards * w.sharding.tensor_parallel
    return term(
        "blocks of the stream that reduces gradients",
        "overhead",
        [Product(count, size, shards)],
        BEFORE_END,
        source="torch 2.13, _fsdp_collectives.py, foreach_reduce; a stream has its own blocks",
        place="reserved",
    )
