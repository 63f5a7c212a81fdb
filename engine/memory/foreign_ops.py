"""What the models of other trainers are made of, written on a tape with torch's operations. Pure.

Sources: torch 2.13, ``tools/autograd/derivatives.yaml`` (what an operation keeps for its backward pass);
``aten/src/ATen/native/transformers/cuda/attention_backward.cu`` (what the kernels of attention take).
"""

from dataclasses import dataclass, field
from typing import Literal

from ..specs.model import ModelSpec
from .blocks_torch import FP32, HALF, Torch, Weight
from .tape import Tape, Tensor
from .tape_sizes import Part

BLOCK = 64
"""4-bit weights that share a scale."""
Packing = Literal["none", "bnb-keeps-input", "bnb", "ao"]
"""How frozen weights are stored: as they are; bitsandbytes before 0.43.2, whose product holds its input on
the graph's node; bitsandbytes since; torchao's NF4Tensor."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """Widths of a decoder."""

    hidden: int
    queries: int
    """Width of all query heads together."""
    keys: int
    """Width of all key heads together; values are as wide."""
    mlp: int
    layers: int
    vocab: int
    heads: int
    is_tied: bool

    @property
    def shares_keys(self) -> bool:
        """Several query heads look at one key head."""
        return self.queries != self.keys


def shape_of(model: ModelSpec) -> Shape | None:
    """Return the widths of a model; ``None`` when one is not known."""
    hidden, mlp, layers = model.hidden_size, model.intermediate_size, model.num_layers
    vocab, heads = model.vocab_size, model.num_heads
    if hidden is None or mlp is None or layers is None or vocab is None or heads is None:
        return None
    size = model.head_dim or hidden // heads
    return Shape(
        hidden=hidden,
        queries=heads * size,
        keys=(model.num_kv_heads or heads) * size,
        mlp=mlp,
        layers=layers,
        vocab=vocab,
        heads=heads,
        is_tied=bool(model.tie_word_embeddings),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """How the weights of a linear layer are stored and what is trained of them."""

    trained: bool = False
    rank: int = 0
    """Of its adapter; 0: none."""
    dropout: bool = False
    packing: Packing = "none"
    packs_scales: bool = False
    scales_output: bool = False
    """LLaMA-Adapter v2: a trained bias and scale on every output."""


@dataclass(slots=True)
class Ops:
    """A tape, torch's operations on it, and what the graph holds beside what autograd manages."""

    tape: Tape
    torch: Torch
    item: int = HALF
    """Bytes of an element of stored weights."""
    held: list[Tensor] = field(default_factory=list)
    """Tensors that are attributes of a node of the graph: they live as long as the graph."""

    @property
    def product_item(self) -> int:
        """Bytes of an element of a matrix product's output."""
        return self.torch.autocast or self.item

    def fixed(self, name: str, width: int, item: int) -> Part:
        """Return a tensor whose size does not depend on the batch."""
        return Part(name, self.tape.section, width, item, "fixed")

    # linear layers

    def linear(self, x: Tensor, name: str, widths: tuple[int, int], kind: Kind) -> Tensor:
        """Run a linear layer from one width to another with what is trained beside it."""
        out = self.base(x, name, widths, kind)
        if kind.scales_output:
            return self._scaled(out, name)
        if kind.rank:
            return self.torch.add(out, self.update(x, name, widths, kind), name)
        return out

    def base(self, x: Tensor, name: str, widths: tuple[int, int], kind: Kind) -> Tensor:
        """Run a linear layer alone."""
        num_in, num_out = widths
        if kind.packing == "none":
            weight = Weight(name, num_in, num_out, self.item, is_trained=kind.trained)
            return self._product(x, weight, num_out * x.width // num_in)
        scratch = self.unpacked(num_in * num_out, kind)
        if kind.packing == "bnb-keeps-input" and x.needs_grad:
            self.held.append(self.tape.same(x))
        return self.tape.op(
            [x],
            name,
            num_out * x.width // num_in,
            self.item,
            per=x.per,
            forward_scratch=scratch,
            backward_scratch=scratch,
        )

    def _product(self, x: Tensor, weight: Weight, width: int) -> Tensor:
        """Run ``F.linear``; chunks of tokens are as wide as all their tokens together.

        Autocast casts frozen weights anew for every chunk, and each product keeps its copy.
        """
        if x.per == "token":
            return self.torch.matmul(x, weight, weight.name)
        x = self.torch.to(x, self.product_item)
        keeps = [x] if weight.is_trained else []
        if self.torch.autocast:
            with self.tape.within("weight copies"):
                keeps.append(self.tape.tensor(f"{weight.name} copy", weight.num_elements, HALF, per="fixed"))
        trains = [weight.part()] if weight.is_trained else []
        return self.tape.op([x], weight.name, width, self.product_item, per=x.per, keeps=keeps, trains=trains)

    def unpacked(self, num_weights: int, kind: Kind) -> list[Part]:
        """Return what unpacking 4-bit weights takes while a product runs.

        bitsandbytes 0.41 to 0.43 unpack into the format that the weights had when they were packed, which
        lightning's plugin makes float16 (fabric/plugins/precision/bitsandbytes.py, ``quantize``), and the
        product casts that to its input's format (autograd/_functions.py, ``MatMul4Bit``).
        """
        if kind.packing == "ao":
            return [self.fixed("unpacked weights", num_weights, HALF)]
        parts = [
            self.fixed("unpacked weights", num_weights, HALF),
            self.fixed("cast weights", num_weights, HALF),
        ]
        if kind.packs_scales:
            parts.append(self.fixed("unpacked scales", num_weights // BLOCK, FP32))
        return parts

    def update(self, x: Tensor, name: str, widths: tuple[int, int], kind: Kind) -> Tensor:
        """Return an adapter's output, scaled."""
        return self.torch.times(self.low_rank(x, name, widths, kind), f"{name} update")

    def low_rank(self, x: Tensor, name: str, widths: tuple[int, int], kind: Kind) -> Tensor:
        """Return an adapter's output."""
        num_in, num_out = widths
        source = self.dropped(x) if kind.dropout else x
        rows = x.width // num_in
        down = Weight(f"{name} lora_A", num_in, kind.rank, self.item, is_trained=True)
        low = self._product(source, down, kind.rank * rows)
        del source
        up = Weight(f"{name} lora_B", kind.rank, num_out, self.item, is_trained=True)
        return self._product(low, up, num_out * rows)

    def dropped(self, x: Tensor) -> Tensor:
        """Drop parts of a tensor; a byte per element says which."""
        mask = self.tape.tensor("dropout mask", x.width, 1, per=x.per)
        return self.tape.op([x], "dropped", x.width, x.item_bytes, per=x.per, keeps=[mask])

    def _scaled(self, out: Tensor, name: str) -> Tensor:
        op = self.tape.op
        bias = [self.fixed(f"{name} bias", out.width, self.item)]
        shifted = op([out], f"{name} with bias", out.width, out.item_bytes, per=out.per, trains=bias)
        del out
        scale = [self.fixed(f"{name} scale", shifted.width, self.item)]
        scratch = [Part("gradient x output", "gradient", shifted.width, shifted.item_bytes, shifted.per)]
        return op(
            [shifted], name, shifted.width, shifted.item_bytes,
            per=shifted.per, keeps=[shifted], trains=scale, backward_scratch=scratch,
        )  # fmt: skip

    # what is no product

    def layer_norm(self, x: Tensor, *, trained: bool) -> Tensor:
        """Run torch's LayerNorm: its input is kept, with mean and deviation of every token."""
        if self.torch.autocast:
            x = self.torch.to(x, FP32)
        statistics = self.tape.tensor("norm statistics", 2, FP32)
        trains = [self.fixed("norm weights", 2 * x.width, self.item)] if trained else []
        return self.tape.op([x], "normed", x.width, x.item_bytes, keeps=[x, statistics], trains=trains)

    def root_mean_square(self, x: Tensor) -> Tensor:
        """Return ``x * rsqrt(mean(x * x) + eps)`` in the format of ``x``."""
        squares = self.torch.apply(x, "squares")
        mean = self.tape.op([squares], "mean square", 1, x.item_bytes)
        del squares
        root = self.tape.op([mean], "root", 1, x.item_bytes, keeps_output=True)
        del mean
        return self.torch.mul(x, root, "x over root")

    def times_weights(self, x: Tensor, *, trained: bool) -> Tensor:
        """Multiply with a vector of weights."""
        trains = [self.fixed("norm weights", x.width, self.item)] if trained else []
        scratch = [Part("gradient x input", "gradient", x.width, x.item_bytes, x.per)] if trained else []
        keeps = [x] if trained else []
        return self.tape.op(
            [x], "normed", x.width, x.item_bytes, keeps=keeps, trains=trains, backward_scratch=scratch
        )

    def attention(self, queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
        """Run fused attention without a mask: it keeps its inputs, its output and a number per head.

        Its backward adds the queries' gradient up in float32 (flash and memory-efficient kernels).
        """
        width = queries.width
        sums = self.tape.tensor("attention sums", heads, FP32)
        scratch = [
            Part("queries' gradient sum", "gradient", width, FP32, "token"),
            Part("attention sums", "gradient", heads, FP32, "token"),
        ]
        return self.tape.op(
            [queries, keys, values], "attention output", width, self.product_item,
            keeps=[queries, keys, values, sums], keeps_output=True, backward_scratch=scratch,
        )  # fmt: skip
