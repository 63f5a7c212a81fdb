"""torch's operations on a tape: what each keeps for the backward pass, casts and holds while it runs.

The rules are torch's own (2.13, tools/autograd/derivatives.yaml): a product keeps the factor whose partner
needs a gradient, a linear layer keeps its input only when its weight is trained, and so on. Autocast casts
the inputs of matrix products; casts of trained float32 weights are kept until the forward pass ends, those of
frozen ones only as long as they are used (aten/src/ATen/autocast_mode.cpp, cached_cast).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from .tape import Tape, Tensor
from .tape_sizes import Part

FP32 = 4
HALF = 2


@dataclass(frozen=True, slots=True)
class Lora:
    """An adapter on a linear layer, as PEFT computes it."""

    rank: int
    item_bytes: int
    has_dropout: bool = False
    use_dora: bool = False


@dataclass(frozen=True, slots=True)
class Weight:
    """A linear layer's weight, or another parameter of ``num_in x num_out``."""

    name: str
    num_in: int
    num_out: int
    item_bytes: int
    """Of an element as it is computed with; of a packed weight, after it is unpacked."""
    is_trained: bool = False
    packing: str | None = None
    """``4bit``, ``8bit`` or another kind that is unpacked before use."""
    lora: Lora | None = None
    has_bias: bool = False

    @property
    def num_elements(self) -> int:
        """Elements without the bias."""
        return self.num_in * self.num_out

    def part(self, item_bytes: int | None = None, section: str = "") -> Part:
        """Return it as bytes."""
        return Part(self.name, section, self.num_elements, item_bytes or self.item_bytes, "fixed")


@dataclass(slots=True)
class Torch:
    """A tape with torch's operations."""

    tape: Tape
    autocast: int | None = None
    """Bytes of an element of the format that matrix products are computed in."""
    caches: bool = True
    """Casts of weights are cached. Not so where weights are gathered in the format that they are used in."""
    counts_weight_gradients: bool = True
    """The gradients of weights are counted here while they are made; otherwise by whoever shards them."""
    is_float16: bool = False
    """Matrix products are computed in float16, not bfloat16."""
    layer: str = ""
    """Tells the weights of one layer from those of another of the same name."""
    _cached: dict[tuple[str, str], Tensor] = field(default_factory=dict)

    def leave_autocast(self) -> None:
        """Drop cached casts: the end of the forward pass, or of one checkpoint's recomputation."""
        self._cached.clear()

    def landing(self, parts: Sequence[Part]) -> list[Part]:
        """Return gradients of weights as an operation's ``trains``."""
        return list(parts) if self.counts_weight_gradients else [part._replace(width=0) for part in parts]

    # elementwise

    def to(self, x: Tensor, item_bytes: int, name: str | None = None) -> Tensor:
        """Cast; the same tensor when nothing changes."""
        if x.item_bytes == item_bytes:
            return self.tape.same(x)
        return self.tape.op([x], name or "cast", x.width, item_bytes, per=x.per)

    def add(self, a: Tensor, b: Tensor, name: str = "sum") -> Tensor:
        """Add."""
        return self.tape.op([a, b], name, a.width, max(a.item_bytes, b.item_bytes), per=a.per, passes=True)

    def mul(self, a: Tensor, b: Tensor, name: str = "product") -> Tensor:
        """Multiply; ``b`` may be narrower and is then repeated."""
        keeps = [x for x, other in ((a, b), (b, a)) if other.needs_grad]
        item_bytes = max(a.item_bytes, b.item_bytes)
        whole = Part("product", "gradient", a.width, item_bytes, a.per)
        scratch = [whole] if b.needs_grad and b.width != a.width else []
        return self.tape.op(
            [a, b], name, a.width, item_bytes, per=a.per, keeps=keeps, backward_scratch=scratch
        )

    def times(self, x: Tensor, name: str = "scaled") -> Tensor:
        """Multiply by a number, or another function whose derivative needs no input."""
        return self.tape.op([x], name, x.width, x.item_bytes, per=x.per)

    def apply(self, x: Tensor, name: str) -> Tensor:
        """Apply a function that keeps its input: silu, gelu, ..."""
        return self.tape.op([x], name, x.width, x.item_bytes, per=x.per, keeps=[x])

    def copy(self, x: Tensor, name: str) -> Tensor:
        """Copy: clone, contiguous."""
        return self.tape.op([x], name, x.width, x.item_bytes, per=x.per, passes=True)

    def table(self, name: str, width: int, item_bytes: int) -> Tensor:
        """Return a tensor that is given from outside and needs no gradient."""
        return self.tape.tensor(name, width, item_bytes)

    # matrix products

    def linear(self, x: Tensor, weight: Weight, name: str | None = None) -> Tensor:
        """Run a linear layer with what PEFT and bitsandbytes put around it."""
        if weight.lora is None:
            return self._base(x, weight, name or weight.name)
        return self._adapted(x, weight, weight.lora, name or weight.name)

    def _base(self, x: Tensor, weight: Weight, name: str) -> Tensor:
        if weight.packing:
            return self._packed(x, weight, name)
        return self.matmul(x, weight, name)

    def matmul(self, x: Tensor, weight: Weight, name: str) -> Tensor:
        """Run ``F.linear``."""
        item_bytes = self.autocast or weight.item_bytes
        x = self.to(x, item_bytes, f"{name} input cast")
        cast = self._cast(weight, item_bytes)
        keeps = [x] if weight.is_trained else []
        if cast is None:
            trains = self.landing([weight.part()]) if weight.is_trained else []
            return self.tape.op([x], name, weight.num_out, item_bytes, per=x.per, keeps=keeps, trains=trains)
        keeps += [cast] if x.needs_grad else []
        return self.tape.op([x, cast], name, weight.num_out, item_bytes, per=x.per, keeps=keeps)

    def _cast(self, weight: Weight, item_bytes: int) -> Tensor | None:
        """Return autocast's copy of a weight, or ``None`` when it needs none."""
        if weight.item_bytes == item_bytes or not self.caches:
            return None
        found = self._cached.get((self.layer, weight.name))
        if found is not None:
            return found
        trains = self.landing([weight.part()]) if weight.is_trained else []
        name = f"{weight.name} copy"
        with self.tape.within("weight copies"):
            cast = self.tape.op([], name, weight.num_elements, item_bytes, per="fixed", trains=trains)
        if weight.is_trained:
            self._cached[self.layer, weight.name] = cast
        return cast

    def _packed(self, x: Tensor, weight: Weight, name: str) -> Tensor:
        """Run bitsandbytes 0.50: Linear4bit, MatMul4Bit (keeps no input), MatMul8bitLt."""
        if weight.packing == "gptq":
            return self._gptq(x, weight, name)
        if weight.packing == "8bit":
            return self._eight_bit(x, weight, name)
        inner = self.to(x, weight.item_bytes, f"{name} input cast")
        unpacked = [
            Part(f"{name} unpacked", "unpacked weights", weight.num_elements, weight.item_bytes, "fixed")
        ]
        out = self.tape.op(
            [inner],
            name,
            weight.num_out,
            weight.item_bytes,
            forward_scratch=unpacked,
            backward_scratch=unpacked,
        )
        del inner
        return self.to(out, x.item_bytes, f"{name} cast")

    def _eight_bit(self, x: Tensor, weight: Weight, name: str) -> Tensor:
        """Run MatMul8bitLt of bitsandbytes 0.50: casts its input, packs it, multiplies in int32.

        ``ctx.tensors`` holds the input itself, which checkpointing cannot drop.
        """
        sizes = ((weight.num_in, HALF + 1), (weight.num_out, FP32 + HALF))
        rows = [Part(f"{name} in 8 bit", "layer", width, size, x.per) for width, size in sizes]
        unpacked = Part(f"{name} unpacked", "unpacked weights", weight.num_elements, x.item_bytes, "fixed")
        return self.tape.op(
            [x], name, weight.num_out, x.item_bytes,
            holds=[x], forward_scratch=rows, backward_scratch=[unpacked],
        )  # fmt: skip

    def _gptq(self, x: Tensor, weight: Weight, name: str) -> Tensor:
        """Run auto-gptq 0.5, qlinear_cuda_old.py: an ordinary product, which keeps the unpacked weight.

        Integers are shifted out of 32 bits, then are bytes, then have their scales.
        """
        inner = self.to(x, weight.item_bytes, f"{name} input cast")
        sizes = (("shifted out", 4), ("in bytes", 1))
        scratch = [
            Part(f"{name} {what}", "unpacked weights", weight.num_elements, size, "fixed")
            for what, size in sizes
        ]
        self.tape.op([], f"{name} scales", 1, 1, per="fixed", forward_scratch=scratch)
        with self.tape.within("unpacked weights"):
            unpacked = self.tape.tensor(
                f"{name} unpacked", weight.num_elements, weight.item_bytes, per="fixed"
            )
        out = self.tape.op([inner], name, weight.num_out, weight.item_bytes, keeps=[unpacked])
        del inner, unpacked
        return self.to(out, x.item_bytes, f"{name} cast")

    # adapters

    def _adapted(self, x: Tensor, weight: Weight, lora: Lora, name: str) -> Tensor:
        """Run peft 0.21.2, tuners/lora/layer.py Linear.forward, tuners/lora/bnb.py Linear4bit.forward."""
        result = self._base(x, weight, name)
        is_packed = weight.packing in {"4bit", "8bit"}
        if weight.packing == "4bit":
            result = self.copy(result, f"{name} copy")
        expected = result.item_bytes
        if not (is_packed and self.autocast):
            x = self.to(x, lora.item_bytes, f"{name} adapter input")
        if lora.use_dora:
            result = self._dora(x, weight, result, name)
            return self.to(result, expected, name)
        update = self.times(self._low_rank(x, weight, lora, name), f"{name} update")
        if is_packed and not self.autocast:
            update = self.to(update, expected, f"{name} update cast")
            return self.add(result, update, f"{name} adapted")
        result = self.add(result, update, f"{name} adapted")
        return self.to(result, expected, f"{name} adapted") if not is_packed else result

    def _whole_product(self, x: Tensor, weight: Weight, whole: Tensor, name: str) -> Tensor:
        item_bytes = self.autocast or weight.item_bytes
        with self.tape.within("adapter weights"):
            whole = self.to(whole, item_bytes, f"{name} weight cast")
        x = self.to(x, item_bytes, f"{name} input cast")
        keeps = [whole] if x.needs_grad else []
        return self.tape.op([x], f"{name} again", weight.num_out, item_bytes, keeps=keeps)

    def _dropped(self, x: Tensor, lora: Lora, name: str) -> Tensor:
        if not lora.has_dropout:
            return x
        mask = self.tape.tensor(f"{name} dropout mask", x.width, 1)
        return self.tape.op([x], f"{name} dropped", x.width, x.item_bytes, keeps=[mask])

    def _low_rank(self, x: Tensor, weight: Weight, lora: Lora, name: str) -> Tensor:
        if not lora.use_dora:
            x = self._dropped(x, lora, name)
        down, up = self._factors(weight, lora)
        return self.matmul(self.matmul(x, down, down.name), up, up.name)

    def _factors(self, weight: Weight, lora: Lora) -> tuple[Weight, Weight]:
        return (
            Weight(f"{weight.name} lora_A", weight.num_in, lora.rank, lora.item_bytes, is_trained=True),
            Weight(f"{weight.name} lora_B", lora.rank, weight.num_out, lora.item_bytes, is_trained=True),
        )

    def _dora(self, x: Tensor, weight: Weight, result: Tensor, name: str) -> Tensor:
        """Run peft 0.21.2, tuners/lora/dora.py: norms of the whole weight, two scaled results.

        With dropout the base is computed again, from what is left of its input and the unpacked weight.
        """
        lora = weight.lora
        assert lora
        item_bytes = max(x.item_bytes, lora.item_bytes)
        x = self._dropped(x, lora, name)
        held = self._dora_weights(weight, lora, item_bytes, name)
        low = self._low_rank(x, weight, lora, name)
        if lora.has_dropout:
            again = replace(weight, item_bytes=item_bytes, packing=None, lora=None, is_trained=False)
            again_out = self._whole_product(x, again, held[1], name)
        else:
            again_out = self.tape.same(result)
        scale = self.tape.op(
            [], f"{name} magnitude", 1, item_bytes,
            per="fixed", trains=[Part(f"{name} magnitude", "", weight.num_out, item_bytes, "fixed")],
        )  # fmt: skip
        base = self._scaled(scale, again_out, f"{name} scaled base")
        del again_out
        update = self.times(self._scaled(scale, low, f"{name} scaled update"), f"{name} update")
        total = self.add(base, update, f"{name} dora")
        del held, base, update
        return self.add(result, total, f"{name} adapted")

    def _dora_weights(self, weight: Weight, lora: Lora, item_bytes: int, name: str) -> list[Tensor]:
        """B(A(identity)) keeps the identity as long as it is named; so are the base and the update."""
        square, whole, tape = weight.num_in**2, weight.num_elements, self.tape
        with tape.within("adapter weights"):
            eye = tape.tensor(f"{name} identity", square, lora.item_bytes, per="fixed")
            used = self.to(eye, self.autocast or lora.item_bytes, f"{name} identity cast")
            del eye
            held = [tape.tensor(f"{name} weight", whole, item_bytes, per="fixed") for _ in range(2)]
            more = [tape.tensor(f"{name} weight", whole, item_bytes, per="fixed") for _ in range(2)]
            del more
        return [used, *held]

    def _scaled(self, scale: Tensor, x: Tensor, name: str) -> Tensor:
        item_bytes = max(scale.item_bytes, x.item_bytes)
        scratch = [Part("product", "gradient", x.width, item_bytes, "token")]
        return self.tape.op([scale, x], name, x.width, item_bytes, keeps=[x], backward_scratch=scratch)


def total_bytes(parts: Sequence[Part]) -> int:
    """Return the fixed bytes of parts."""
    return sum(part.size.fixed for part in parts)
