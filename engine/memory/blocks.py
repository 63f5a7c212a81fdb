"""Pieces of transformers' decoders on a tape: normalisations, positions, attention, MLPs.

Each function runs the operations of the module that it names, in their order, with Python's own scopes, so
that a tensor dies here where it dies there. Source, if not said otherwise: transformers 5.23.
"""

from dataclasses import dataclass

from .blocks_torch import FP32, Torch, Weight
from .tape import Tensor
from .tape_sizes import Part


@dataclass(frozen=True, slots=True)
class Norm:
    """A normalisation over ``width`` elements, ``count`` times per token (heads)."""

    name: str
    width: int
    kind: str = "rms"
    """``rms`` (Llama), ``rms-plus-one`` (Gemma), ``rms-wide`` (Olmo 2), ``layer`` (torch's LayerNorm),
    ``layer-plain`` (Cohere)."""
    item_bytes: int = 2
    is_trained: bool = False
    count: int = 1


def norm(t: Torch, x: Tensor, spec: Norm) -> Tensor:
    """Normalise."""
    if spec.kind == "layer":
        return _layer_norm(t, x, spec)
    if spec.kind == "layer-plain":
        return t.to(_weighted(t, _centred(t, x, spec), spec, FP32), x.item_bytes, spec.name)
    rms = _normalised(t, x, spec)
    if spec.kind in ("rms-plus-one", "rms-wide"):
        return t.to(_weighted(t, rms, spec, FP32), x.item_bytes, spec.name)
    rms = t.to(rms, x.item_bytes, f"{spec.name} cast")
    return _weighted(t, rms, spec, spec.item_bytes)


def _normalised(t: Torch, x: Tensor, spec: Norm) -> Tensor:
    """LlamaRMSNorm: ``x.to(float32) * rsqrt(mean(x ** 2))``."""
    x = t.to(x, FP32, f"{spec.name} float32")
    square = [Part(f"{spec.name} square", "layer", x.width, FP32, "token")]
    mean = [Part(f"{spec.name} mean", "gradient", x.width, FP32, "token")]
    # mean's gradient is spread to the full width; pow's makes x ** 1 and 2 x before the product
    scale = t.tape.op(
        [x], f"{spec.name} scale", spec.count, FP32,
        keeps=[x], keeps_output=True, forward_scratch=square, backward_scratch=mean * 3,
    )  # fmt: skip
    return t.mul(x, scale, f"{spec.name} normalised")


def _centred(t: Torch, x: Tensor, spec: Norm) -> Tensor:
    """CohereLayerNorm: takes the mean off twice, once for the variance."""
    x = t.to(x, FP32, f"{spec.name} float32")
    centred = t.tape.op([x], f"{spec.name} centred", x.width, FP32)
    square = [Part(f"{spec.name} square", "layer", x.width, FP32, "token")]
    scale = t.tape.op(
        [centred], f"{spec.name} scale", spec.count, FP32,
        keeps=[centred], keeps_output=True, forward_scratch=square, backward_scratch=square * 3,
    )  # fmt: skip
    del centred
    return t.mul(
        t.tape.op([x], f"{spec.name} centred again", x.width, FP32), scale, f"{spec.name} normalised"
    )


def _weighted(t: Torch, x: Tensor, spec: Norm, item_bytes: int) -> Tensor:
    out = max(item_bytes, x.item_bytes)
    whole = [Part("product", "gradient", x.width, out, "token")]
    needs_scratch = spec.is_trained or out != x.item_bytes
    gradient = [Part(spec.name, "", spec.width, spec.item_bytes, "fixed")] if spec.is_trained else []
    return t.tape.op(
        [x], spec.name, x.width, out,
        keeps=[x] if spec.is_trained else [],
        trains=t.landing(gradient),
        backward_scratch=whole if needs_scratch else [],
    )  # fmt: skip


def _layer_norm(t: Torch, x: Tensor, spec: Norm) -> Tensor:
    """Run layer_norm: it keeps its input, mean and scale; under autocast it is float32."""
    x = t.to(x, FP32 if t.autocast else x.item_bytes, f"{spec.name} float32")
    scale = t.tape.tensor(f"{spec.name} scale", 2 * spec.count, FP32)
    parts = [Part(spec.name, "", 2 * spec.width, spec.item_bytes, "fixed")] if spec.is_trained else []
    trains = t.landing(parts)
    return t.tape.op([x], spec.name, x.width, x.item_bytes, keeps=[x, scale], trains=trains)


def rotate(t: Torch, x: Tensor, name: str) -> Tensor:
    """apply_rotary_pos_emb: ``x * cos + rotate_half(x) * sin``; the tables are kept by their owner."""
    half = [Part(f"{name} half", "layer", x.width // 2, x.item_bytes, "token")]
    backward = [
        Part(f"{name} half", "gradient", x.width // 2, x.item_bytes, "token"),
        Part(f"{name} halves", "gradient", x.width, x.item_bytes, "token"),
    ]
    straight = t.times(x, f"{name} x cos")
    turned = t.tape.op(
        [x], f"{name} turned", x.width, x.item_bytes, forward_scratch=half, backward_scratch=backward
    )
    return t.add(straight, t.times(turned, f"{name} x sin"), f"{name} rotated")


@dataclass(frozen=True, slots=True)
class Mlp:
    """``down(act(gate(x)) * up(x))``, or ``down(act(up(x)))``."""

    up: Weight
    down: Weight
    gate: Weight | None = None
    is_fused: bool = False
    """Gate and up are one linear layer."""
    activation: str = "silu"


def mlp(t: Torch, x: Tensor, spec: Mlp) -> Tensor:
    """Run an MLP."""
    if spec.is_fused:
        return t.linear(fused_gate(t, t.linear(x, spec.up), spec.activation), spec.down)
    if spec.gate is None:
        return t.linear(activate(t, t.linear(x, spec.up), spec.activation), spec.down)
    product = t.mul(activate(t, t.linear(x, spec.gate), spec.activation), t.linear(x, spec.up), "gate x up")
    return t.linear(product, spec.down)


def activate(t: Torch, x: Tensor, kind: str) -> Tensor:
    """Apply an activation function that keeps its input."""
    if kind == "relu2":
        return t.apply(t.apply(x, "relu"), "relu squared")
    if kind == "gelu-python":
        return t.mul(t.times(x, "half x"), t.times(_tanh(t, _inner(t, x)), "one plus tanh"), "gelu")
    return t.apply(x, kind)


def _inner(t: Torch, x: Tensor) -> Tensor:
    """Return ``c (x + 0.044715 x ** 3)`` of NewGELUActivation; its names end where Python ends them."""
    wide = t.to(x, FP32 if t.autocast else x.item_bytes, "x float32")  # autocast: pow is float32
    powers = [Part("powers of x", "gradient", x.width, wide.item_bytes, "token")] * 2

    def cube() -> Tensor:
        return t.tape.op([wide], "x cubed", x.width, wide.item_bytes, keeps=[wide], backward_scratch=powers)

    return t.times(t.add(x, t.times(cube(), "scaled cube"), "inner"), "scaled inner")


def _tanh(t: Torch, x: Tensor) -> Tensor:
    return t.tape.op([x], "tanh", x.width, x.item_bytes, per=x.per, keeps_output=True)


def fused_gate(t: Torch, both: Tensor, name: str = "activation") -> Tensor:
    """Split gate and up (views of one tensor), activate and multiply."""
    gate, up = t.tape.split(both, ("gate", both.width // 2), ("up", both.width // 2))
    del both
    return t.mul(activate(t, gate, name), up, "gate x up")
