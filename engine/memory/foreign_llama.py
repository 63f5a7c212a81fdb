"""Llama's layer as torchtitan and torchtune write it, eager and compiled, on a tape. Pure.

Sources: pytorch/torchtitan 9dec370 (2024-12-26), models/llama/model.py and parallelisms/parallelize_llama.py;
pytorch/torchtune 1814feb (2024-11-18), modules/{attention,feed_forward,rms_norm,position_embeddings}.py and
modules/peft/lora.py. What a compiled layer keeps follows from torch's partitioner (torch 2.13,
``_functorch/partitioners.py``, min_cut_rematerialization_partition): matrix products, attention and
reductions are not run twice, nor is what the backward pass would write to memory for a product or attention
(``ban_recompute_materialized_backward``); what is computed element by element in between is made again.
"""

from dataclasses import dataclass, field
from typing import Literal

from ..specs.workload import Checkpointing
from .blocks_torch import FP32, HALF
from .foreign_ops import Kind, Ops, Shape
from .tape import Tensor
from .tape_sizes import Part

FUSED_NORMS = "2025-07-01"
"""From about here on torch (2.9) has one kernel for RMSNorm: it keeps its input and a number per token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Llama:
    """Everything that decides what a layer holds."""

    shape: Shape
    date: str
    checkpointing: Checkpointing = "none"
    compiles: bool = False
    trained: bool = True
    rank: int = 0
    targets: frozenset[str] = frozenset()
    packed: bool = False
    ranks: int = 1
    """Of tensor parallelism."""
    rotates: Literal["complex", "pairs"] = "complex"

    def kind(self, name: str) -> Kind:
        """Return how the linear layer of a name is stored and trained."""
        return Kind(
            trained=self.trained,
            rank=self.rank if name in self.targets else 0,
            packing="ao" if self.packed else "none",
        )


@dataclass(slots=True)
class Layers:
    """Runs layers."""

    ops: Ops
    step: Llama
    products: dict[int, list[Tensor]] = field(default_factory=dict)
    """What selective checkpointing keeps of each layer."""

    def run(self, x: Tensor, index: int) -> Tensor:
        """Run a layer with its checkpointing."""
        mode, tape = self.step.checkpointing, self.ops.tape
        if mode == "full" or (mode == "every-2nd" and index % 2 == 1):
            return tape.checkpoint(self._layer, x)
        if mode != "selective-op":
            return self._layer(x)

        def again(given: Tensor) -> Tensor:
            self.products.pop(index, None)
            return self._layer(given)

        out = tape.checkpoint(again, x)
        self.products[index] = self._kept_products()
        return out

    def run_away(self, x: Tensor) -> Tensor:
        """Run a checkpointed layer whose input waits in the host's memory."""
        tape, width, item = self.ops.tape, x.width, x.item_bytes
        away = tape.op([x], "layer input in the host's memory", 0, item)
        return tape.checkpoint(lambda given: self._layer(tape.op([given], "layer input", width, item)), away)

    def _kept_products(self) -> list[Tensor]:
        """Every second product, from the first, and attention's output: of q, v, attention, w1 and w2.

        Source: torchtitan, ``_get_custom_policy``. A compiled graph drops w2's, which nothing reads.
        """
        shape, tape, ranks = self.step.shape, self.ops.tape, self.step.ranks
        widths = [shape.queries // ranks, shape.keys // ranks, shape.queries // ranks, shape.mlp // ranks]
        if not self.step.compiles:
            widths.append(shape.hidden)
        kept = [tape.tensor("kept product", width, HALF) for width in widths]
        return [*kept, tape.tensor("attention sums", shape.heads // ranks, FP32)]

    def _layer(self, x: Tensor) -> Tensor:
        return self._compiled(x) if self.step.compiles else self._eager(x)

    # eager

    def norm(self, x: Tensor) -> Tensor:
        """Normalise in float32, cast, multiply."""
        ops, trained = self.ops, self.step.trained
        if self.step.date >= FUSED_NORMS:
            return self.fused_norm(x)
        normed = ops.root_mean_square(ops.torch.to(x, FP32))
        return ops.times_weights(ops.torch.to(normed, x.item_bytes), trained=trained)

    def fused_norm(self, x: Tensor) -> Tensor:
        """Normalise in one kernel."""
        root = self.ops.tape.tensor("root", 1, FP32)
        trains = (
            [self.ops.fixed("norm weights", self.step.shape.hidden, self.ops.item)]
            if self.step.trained
            else []
        )
        return self.ops.tape.op([x], "normed", x.width, x.item_bytes, keeps=[x, root], trains=trains)

    def _eager(self, x: Tensor) -> Tensor:
        h = self.ops.torch.add(
            self._scattered(self._attention(self._gathered(self.norm(x)))), x, "attention residual"
        )
        return self.ops.torch.add(
            self._scattered(self._feed(self._gathered(self.norm(h)))), h, "layer output"
        )

    def _gathered(self, x: Tensor) -> Tensor:
        """With tensor parallelism, every rank has a part of the tokens here, and gathers them."""
        if self.step.ranks == 1:
            return x
        return self.ops.tape.op([x], "gathered input", x.width * self.step.ranks, x.item_bytes)

    def _scattered(self, x: Tensor) -> Tensor:
        if self.step.ranks == 1:
            return x
        return self.ops.tape.op([x], "scattered output", x.width // self.step.ranks, x.item_bytes)

    def _attention(self, x: Tensor) -> Tensor:
        ops, tape, shape, ranks = self.ops, self.ops.tape, self.step.shape, self.step.ranks
        queries, keys = shape.queries // ranks, shape.keys // ranks
        query = self._rotated(self._linear(x, "q_proj", (shape.hidden, queries)))
        key = self._rotated(self._linear(x, "k_proj", (shape.hidden, keys)))
        value = self._linear(x, "v_proj", (shape.hidden, keys))
        if shape.shares_keys:
            key = tape.op([key], "expanded keys", queries, key.item_bytes)
            value = tape.op([value], "expanded values", queries, value.item_bytes)
        out = ops.attention(query, key, value, shape.heads // ranks)
        return self._linear(out, "o_proj", (queries, shape.hidden))

    def _linear(self, x: Tensor, name: str, widths: tuple[int, int]) -> Tensor:
        return self.ops.linear(x, name, widths, self.step.kind(name))

    def _rotated(self, x: Tensor) -> Tensor:
        """Rotate pairs in float32, as complex numbers or one by one; the tables need no gradient."""
        torch = self.ops.torch
        wide = torch.to(x, FP32, "queries in float32")
        if self.step.rotates == "pairs":
            scratch = [Part("rotated half", "gradient", x.width // 2, FP32, "token")] * 2
            turned = self.ops.tape.op(
                [wide],
                "rotated in float32",
                x.width,
                FP32,
                forward_scratch=scratch * 2,
                backward_scratch=scratch,
            )
        else:
            turned = torch.times(wide, "rotated in float32")
        del wide
        return torch.to(turned, x.item_bytes, "rotated")

    def _feed(self, x: Tensor) -> Tensor:
        ops, shape = self.ops, self.step.shape
        width = shape.mlp // self.step.ranks
        gate = ops.torch.apply(self._linear(x, "gate_proj", (shape.hidden, width)), "activated gate")
        gated = ops.torch.mul(gate, self._linear(x, "up_proj", (shape.hidden, width)), "gated")
        del gate
        return self._linear(gated, "down_proj", (width, shape.hidden))

    # compiled

    def _compiled(self, x: Tensor) -> Tensor:
        torch = self.ops.torch
        h = torch.add(self._scattered(self._compiled_attention(x)), x, "attention residual")
        return torch.add(self._scattered(self._compiled_feed(h)), h, "layer output")

    def _compiled_attention(self, x: Tensor) -> Tensor:
        tape, shape, ranks = self.ops.tape, self.step.shape, self.step.ranks
        queries, keys = shape.queries // ranks, shape.keys // ranks
        normed = self._gathered(self.fused_norm(x))
        query = tape.op([self._linear(normed, "q_proj", (shape.hidden, queries))], "rotated", queries, HALF)
        key = self._linear(normed, "k_proj", (shape.hidden, keys))
        value = self._linear(normed, "v_proj", (shape.hidden, keys))
        del normed
        key, value = (tape.op([part], "expanded", queries, HALF) for part in (key, value))
        out = self.ops.attention(query, key, value, shape.heads // ranks)
        del query, key, value
        return self._linear(out, "o_proj", (queries, shape.hidden))

    def _compiled_feed(self, h: Tensor) -> Tensor:
        tape, shape = self.ops.tape, self.step.shape
        width = shape.mlp // self.step.ranks
        normed = self._gathered(self.fused_norm(h))
        gate = self._linear(normed, "gate_proj", (shape.hidden, width))
        up = self._linear(normed, "up_proj", (shape.hidden, width))
        del normed
        gated = tape.op([gate, up], "gated", width, HALF, keeps=[gate, up])
        del gate, up
        return self._linear(gated, "down_proj", (width, shape.hidden))
