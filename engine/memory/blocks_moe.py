"""Mixtures of experts of transformers on a tape: router, sorted tokens, grouped products.

Source: transformers 5.23, integrations/moe.py, grouped_mm_experts_forward, which is what a GPU runs. Autocast
does not touch grouped products: they are computed in the format of the experts' weights.
"""

from dataclasses import dataclass, replace

from .blocks import Mlp, fused_gate, mlp
from .blocks_torch import FP32, Torch, Weight
from .tape import Tensor
from .tape_sizes import Part

INDEX = 8
"""Bytes of a position."""


@dataclass(frozen=True, slots=True)
class Moe:
    """Experts in two fused tensors, a router, and what every token passes besides."""

    num_experts: int
    num_chosen: int
    router: Weight
    up: Weight
    """All experts' gate and up projections: ``num_in`` and ``num_out`` of one expert."""
    down: Weight
    computes_router_wide: bool = False
    """The router's product is float32."""
    keeps_chances_wide: bool = False
    """The chances of the chosen experts stay float32, and with them their weighted outputs."""
    clamps_gate: bool = False
    """GPT-OSS: gate and up are clamped, then ``(up + 1) * gate * sigmoid(gate)``."""
    shared: Mlp | None = None
    shared_gate: Weight | None = None


def moe(t: Torch, x: Tensor, spec: Moe) -> Tensor:
    """Run a layer's experts."""
    if spec.shared and spec.shared_gate:
        shared = mlp(t, x, spec.shared)
        out = _routed(t, x, spec)
        gate = t.linear(x, spec.shared_gate)
        gate = t.tape.op([gate], "shared gate", 1, gate.item_bytes, keeps_output=True)
        return t.add(out, t.mul(shared, gate, "gated shared experts"))
    out = _routed(t, x, spec)
    return t.add(out, mlp(t, x, spec.shared)) if spec.shared else out


def _routed(t: Torch, x: Tensor, spec: Moe) -> Tensor:
    return _experts(t, x, _route(t, x, spec), spec)


def _route(t: Torch, x: Tensor, spec: Moe) -> tuple[Tensor, Tensor]:
    logits = _router_logits(t, x, spec)
    chances = t.tape.op([logits], "router softmax", spec.num_experts, FP32, keeps_output=True)
    positions = t.tape.tensor("chosen experts", spec.num_chosen, INDEX)
    chosen = t.tape.op([chances], "chosen chances", spec.num_chosen, FP32, keeps=[positions])
    total = t.tape.op([chosen], "chances of the chosen", 1, FP32, keeps=[chosen])
    scaled = t.tape.op([chosen, total], "router weights", spec.num_chosen, FP32, keeps=[chosen, total])
    is_wide = spec.keeps_chances_wide and not (spec.computes_router_wide and t.autocast)
    wide = FP32 if is_wide else x.item_bytes
    return t.to(scaled, wide, "router weights cast"), positions


def _router_logits(t: Torch, x: Tensor, spec: Moe) -> Tensor:
    """Run the router; where it is float32, autocast (which would make it narrow again) is reckoned with."""
    if not spec.computes_router_wide or t.autocast:
        return t.linear(x, spec.router, "router logits")
    wide = t.to(x, FP32, "router input float32")
    weight = replace(spec.router, item_bytes=FP32)
    return t.matmul(wide, weight, "router logits")


def _experts(t: Torch, x: Tensor, routed: tuple[Tensor, Tensor], spec: Moe) -> Tensor:
    chances, _ = routed
    number, tape = spec.num_chosen, t.tape
    order = tape.tensor("sorted experts and order", 2 * number, INDEX)
    rows = tape.tensor("rows of the order", number, INDEX)
    spread = tape.op([x], "sorted hidden states", number * x.width, x.item_bytes, keeps=[rows])
    del rows
    weights = tape.op([chances], "sorted router weights", number, chances.item_bytes, keeps=[order])
    bias = _bias(t, spec.up, spec)
    out = _grouped(t, spread, spec.up, spec)
    out = _clamped_gate(t, out) if spec.clamps_gate else fused_gate(t, out)
    bias = _bias(t, spec.down, spec)
    out = _grouped(t, out, spec.down, spec)
    weighted = t.mul(out, weights, "weighted outputs")
    back = tape.tensor("inverse order", number, INDEX)
    weighted = tape.op([weighted], "outputs in order", weighted.width, weighted.item_bytes, keeps=[back])
    del back
    total = tape.op([weighted], "expert outputs", x.width, weighted.item_bytes)
    del order, bias
    return t.to(total, x.item_bytes, "expert outputs cast")


def _bias(t: Torch, weight: Weight, spec: Moe) -> Tensor | None:
    """Return the bias of each row's expert: its name lives until the next product."""
    if not weight.has_bias:
        return None
    return t.tape.tensor(f"{weight.name} bias", spec.num_chosen * weight.num_out, weight.item_bytes)


def _grouped(t: Torch, x: Tensor, weight: Weight, spec: Moe) -> Tensor:
    x = t.to(x, weight.item_bytes, f"{weight.name} input cast")
    elements = weight.num_elements * spec.num_experts
    if weight.lora:
        return _adapted(t, x, weight, spec)
    gradient = [Part(weight.name, "", elements, weight.item_bytes, "fixed")] if weight.is_trained else []
    return t.tape.op(
        [x], weight.name, spec.num_chosen * weight.num_out, weight.item_bytes,
        keeps=[x] if weight.is_trained else [], trains=t.landing(gradient),
    )  # fmt: skip


def _adapted(t: Torch, x: Tensor, weight: Weight, spec: Moe) -> Tensor:
    """Run peft 0.21.2, tuners/lora/layer.py ParamWrapper: all experts with their update, in full."""
    lora, number = weight.lora, spec.num_experts
    assert lora
    width = number * lora.rank * (weight.num_in + weight.num_out)
    made = [Part(f"{weight.name} factors", "", width, lora.item_bytes, "fixed")]
    with t.tape.within("adapter weights"):
        factors = t.tape.op(
            [], f"{weight.name} factors", width, weight.item_bytes, per="fixed", trains=t.landing(made)
        )
        whole = t.tape.op(
            [factors], f"{weight.name} adapted", weight.num_elements * number, weight.item_bytes,
            per="fixed", keeps=[factors],
        )  # fmt: skip
    del factors
    return t.tape.op(
        [x, whole], weight.name, spec.num_chosen * weight.num_out, weight.item_bytes, keeps=[x, whole]
    )


def _clamped_gate(t: Torch, both: Tensor) -> Tensor:
    """GptOssExperts._apply_gate: slices, clamps, a sigmoid of the scaled gate."""
    half = both.width // 2
    whole = [Part("gate and up gradient", "gradient", both.width, both.item_bytes, both.per)]

    def clamped(name: str) -> Tensor:
        return t.tape.op([both], name, half, both.item_bytes, keeps=[both], backward_scratch=whole)

    gate, up = clamped("clamped gate"), clamped("clamped up")
    bend = t.tape.op([t.times(gate)], "sigmoid of gate", half, gate.item_bytes, keeps_output=True)
    glu = t.mul(gate, bend, "gate x sigmoid")
    return t.mul(t.times(up, "up plus one"), glu, "gate x up")
