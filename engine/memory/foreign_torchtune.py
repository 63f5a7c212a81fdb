"""The training step of pytorch/torchtune's Llama models on a tape, as of November 2024. Pure.

Sources: pytorch/torchtune 1814feb (2024-11-18): modules/transformer.py, modules/loss (the chunked loss),
training/{_compile,_activation_offloading}.py, ``_loss_step`` of recipes/*_finetune_single_device.py.
"""

from dataclasses import dataclass
from functools import lru_cache

from ..errors import Refused
from ..specs.estimate import Term
from ..specs.workload import Workload
from .blocks_torch import FP32, Torch, Weight
from .foreign_llama import Layers, Llama
from .foreign_ops import Ops, shape_of
from .tape import Tape, Tensor
from .tape_sizes import Walked

SOURCE = "pytorch/torchtune 1814feb (2024-11-18), modules and recipes"
NUM_CHUNKS = 8
NUM_STASHED = 5
"""Activations on their way to the host that are still on the device (``max_fwd_stash_size``)."""
DATE = "2024-11-18"


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A layer's facts and those of the loss."""

    llama: Llama
    is_chunked: bool
    offloads: bool
    lands: bool


def walk_of(w: Workload) -> Walked:
    """Return what a step of a workload holds.

    Raises:
        Refused: torchtune's operations for the model are not written down.
    """
    shape = shape_of(w.model)
    if shape is None or w.model.model_type not in ("llama", "mistral", "qwen2"):
        raise Refused(f"torchtune's operations for {w.model.model_type} are not written down")
    adapter = w.adapter if w.method == "lora" else None
    llama = Llama(
        shape=shape,
        date=DATE,
        checkpointing=w.checkpointing,
        compiles=w.compiles,
        trained=w.method == "full",
        rank=adapter.rank if adapter else 0,
        targets=frozenset(adapter.targets) if adapter else frozenset(),
        packed=w.quantization is not None,
        rotates="pairs",
    )
    lands = w.method == "full" and w.sharding.num_shards == 1 and not w.optimizer_in_backward
    return walk(
        Step(
            llama=llama,
            is_chunked=w.loss == "chunked",
            offloads=w.offloads_activations,
            lands=lands and w.gradient_accumulation_steps == 1,
        )
    )


@lru_cache(maxsize=256)
def walk(step: Step) -> Walked:
    """Return what a step holds: phases ``forward``, ``head``, ``backward start`` and ``backward end``."""
    return _Run(step).walked()


class _Run:
    def __init__(self, step: Step) -> None:
        self.step, self.llama = step, step.llama
        self.tape = Tape(lands_gradients=step.lands)
        self.ops = Ops(self.tape, Torch(self.tape))
        self.layers = Layers(self.ops, step.llama)
        self.starts: list[int] = []
        self.sent: list[Tensor] = []

    def walked(self) -> Walked:
        tape, shape = self.tape, self.llama.shape
        tape.phase = "forward"
        x = self._embedded()
        with tape.within("layer"):
            for _ in range(shape.layers):
                self.starts.append(tape.num_operations)
                x = self._layer(x, len(self.starts) - 1)
        head_start = tape.num_operations
        tape.phase = "head"
        with tape.within("head"):
            normed = self.layers.norm(x)
            del x
            self.sent.clear()
            loss = self._chunked_loss(normed) if self.step.is_chunked else self._loss(normed)
            del normed
        gathered = self._gathered_gradient()
        tape.backward(loss, until=head_start)
        del gathered
        with tape.within("recomputed layer"):
            for index in reversed(range(shape.layers)):
                names = {shape.layers - 1: "backward start", 0: "backward end"}
                tape.phase = names.get(index, "backward between")
                tape.resume(until=self.starts[index])
        tape.resume()
        return tape.walked()

    def _gathered_gradient(self) -> Tensor | None:
        """Autograd adds a weight's gradients of all its uses up before it is updated in the backward pass.

        With chunks, or as the embedding too, the output layer has several. Later the states count it.
        """
        shape, step = self.llama.shape, self.step
        if step.lands or not self.llama.trained or not (step.is_chunked or shape.is_tied):
            return None
        with self.tape.within("head"):
            return self.tape.tensor(
                "output layer's gradient", shape.hidden * shape.vocab, self.ops.item, per="fixed"
            )

    def _embedded(self) -> Tensor:
        shape, item = self.llama.shape, self.ops.item
        if not self.llama.trained:
            return self.tape.tensor("embedded", shape.hidden, item)
        trains = [self.ops.fixed("embedding weights", shape.hidden * shape.vocab, item)]
        return self.tape.op([], "embedded", shape.hidden, item, trains=trains)

    def _layer(self, x: Tensor, index: int) -> Tensor:
        if not self.step.offloads:
            return self.layers.run(x, index)
        self.sent = [*self.sent, self.tape.same(x)][-NUM_STASHED:]
        return self.layers.run_away(x)

    def _weight(self) -> Weight:
        shape = self.llama.shape
        return Weight("logits", shape.hidden, shape.vocab, self.ops.item, is_trained=self.llama.trained)

    def _loss(self, normed: Tensor) -> Tensor:
        """The model returns float32 logits; a compiled loss keeps them, another one log-softmax."""
        torch, tape = self.ops.torch, self.tape
        logits = torch.to(torch.matmul(normed, self._weight(), "logits"), FP32, "logits in float32")
        if self.llama.compiles:
            return tape.op([logits], "loss", 1, FP32, keeps=[logits])
        scores = tape.op([logits], "log-softmax", logits.width, FP32, keeps_output=True)
        return tape.op([scores], "loss", 1, FP32)

    def _chunked_loss(self, normed: Tensor) -> Tensor:
        """Eight chunks of tokens: first all logits, then one loss after the other.

        Compiled, a chunk's loss keeps its 16-bit logits and writes their gradient; otherwise it keeps
        log-softmax in float32.
        """
        torch, tape, shape = self.ops.torch, self.tape, self.llama.shape
        width = shape.vocab // NUM_CHUNKS
        losses = []
        keeps = [normed] if self.llama.trained else []
        weight = [self._weight().part()] if self.llama.trained else []
        chunks = [
            tape.op(
                [normed], "logits", width, self.ops.item, keeps=keeps,
                trains=weight if number == NUM_CHUNKS - 1 else (),
                backward_scratch=() if number == NUM_CHUNKS - 1 else weight,
            )
            for number in range(NUM_CHUNKS)
        ]  # fmt: skip
        for chunk in chunks:
            if self.llama.compiles:
                losses.append(tape.op([chunk], "losses", 1, FP32, keeps=[chunk]))
                continue
            wide = torch.to(chunk, FP32, "logits in float32")
            scores = tape.op([wide], "log-softmax", width, FP32, keeps_output=True)
            losses.append(tape.op([scores], "losses", 1, FP32))
            del wide, scores
        return tape.op(losses, "loss", 1, FP32)


def extra_terms(w: Workload) -> tuple[Term, ...]:
    """Return nothing: what a step holds is on the tape."""
    del w
    return ()
