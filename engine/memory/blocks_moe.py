"""Mixtures of experts of transformers on a tape: router, sorted tokens, grouped products.

Source: transformers 5.23, integrations/moe.py, grouped_mm_experts_forward, which is what a GPU runs. Autocast
does not touch grouped products: they are computed in the format of the experts' weights.
"""

from dataclasses import dataclass

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
    shared: Mlp | None = None
    shared_gate: Weight | None = None


def moe(t: Torch, x: Tensor, spec: Moe) -> Tensor:
    """Run a layer's experts."""
    shared = mlp(t, x, spec.shared) if spec.shared else None
    routed = _route(t, x, spec)
    out = _experts(t, x, routed, spec)
    del routed
    if shared is None:
        return out
    if spec.shared_gate:
        gate = t.linear(x, spec.shared_gate)
        gate = t.tape.op([gate], "shared gate", 1, gate.item_bytes, keeps_output=True)
        shared = t.mul(shared, gate, "gated shared experts")
    return t.add(out, shared)


def _route(t: Torch, x: Tensor, spec: Moe) -> tuple[Tensor, Tensor]:
    logits = t.linear(x, spec.router, "router logits")
    chances = t.tape.op([logits], "router softmax", spec.num_experts, FP32, keeps_output=True)
    positions = t.tape.tensor("chosen experts", spec.num_chosen, INDEX)
    chosen = t.tape.op([chances], "chosen chances", spec.num_chosen, FP32, keeps=[positions])
    total = t.tape.op([chosen], "chances of the chosen", 1, FP32, keeps=[chosen])
    scaled = t.tape.op([chosen, total], "router weights", spec.num_chosen, FP32, keeps=[chosen, total])
    return t.to(scaled, x.item_bytes, "router weights cast"), positions


def _experts(t: Torch, x: Tensor, routed: tuple[Tensor, Tensor], spec: Moe) -> Tensor:
    chances, _ = routed
    number, tape = spec.num_chosen, t.tape
    order = tape.tensor("sorted experts and order", 2 * number, INDEX)
    rows = tape.tensor("rows of the order", number, INDEX)
    spread = tape.op([x], "sorted hidden states", number * x.width, x.item_bytes, keeps=[rows])
    del rows
    weights = tape.op([chances], "sorted router weights", number, chances.item_bytes, keeps=[order])
    out = _grouped(t, spread, spec.up, spec)
    out = fused_gate(t, out)
    out = _grouped(t, out, spec.down, spec)
    weighted = t.mul(out, weights, "weighted outputs")
    back = tape.tensor("inverse order", number, INDEX)
    weighted = tape.op([weighted], "outputs in order", weighted.width, weighted.item_bytes, keeps=[back])
    del back
    total = tape.op([weighted], "expert outputs", x.width, weighted.item_bytes)
    del order
    return t.to(total, x.item_bytes, "expert outputs cast")


def _grouped(t: Torch, x: Tensor, weight: Weight, spec: Moe) -> Tensor:
    x = t.to(x, weight.item_bytes, f"{weight.name} input cast")
    elements = weight.num_elements * spec.num_experts
    gradient = [Part(weight.name, "", elements, weight.item_bytes, "fixed")] if weight.is_trained else []
    return t.tape.op(
        [x], weight.name, spec.num_chosen * weight.num_out, weight.item_bytes,
        keeps=[x] if weight.is_trained else [], trains=t.landing(gradient),
    )  # fmt: skip
