"""What the states of training depend on, small enough to be a key. Pure."""

from dataclasses import dataclass

from ..specs.workload import DTYPE_BYTES, Quantization, Sharding, Workload
from .cuts import Cuts, cuts, holdings_of, split
from .optimizers import Rule, rule_of
from .tensors import Holdings, Part

UPCASTS = frozenset({"nf4", "fp4", "int8", "fp8", "mxfp4"})
"""Packings after which peft 0.21.2 turns every other 16-bit parameter to float32 (utils/other.py)."""
ZERO12 = "deepspeed 0.19.8, runtime/zero/stage_1_and_2.py"
ZERO3 = "deepspeed 0.19.8, runtime/zero/stage3.py"


@dataclass(frozen=True, slots=True)
class Key:
    """What the states depend on: small, so that the planner's thousand questions are answered from memory."""

    held: Holdings
    quantization: Quantization | None
    weight_bytes: int
    trained_bytes: int
    gather_bytes: int
    upcasts: bool
    optimizer: str
    is_full: bool
    drops_gradients: bool
    clips: bool
    accumulates: bool
    has_reference: bool
    sharding: Sharding

    @property
    def cuts(self) -> Cuts:
        """How many ranks share each kind of state."""
        return cuts(self.sharding, self.quantization)

    @property
    def rule(self) -> Rule:
        """The optimizer's."""
        return rule_of(self.optimizer)

    @property
    def zero(self) -> int:
        """ZeRO stage; 0 where DeepSpeed is not used."""
        return self.sharding.zero_stage if self.sharding.backend == "zero" else 0

    @property
    def trained(self) -> tuple[Part, ...]:
        """What has gradients, of one rank of tensor parallelism."""
        return split(self.held.trained, self.sharding.tensor_parallel)

    @property
    def optimized_bytes(self) -> int:
        """Bytes of an element of what the optimizer works on."""
        return DTYPE_BYTES[self.sharding.master] if self.sharding.master else self.trained_bytes


def key_of(w: Workload) -> Key:
    """Return what the states of a workload depend on."""
    return Key(
        held=holdings_of(w),
        quantization=w.quantization,
        weight_bytes=DTYPE_BYTES[w.weights],
        trained_bytes=DTYPE_BYTES[w.weights if w.method == "full" else w.trainable],
        gather_bytes=DTYPE_BYTES[w.autocast or w.weights],
        upcasts=w.upcast_frozen and (w.quantization is None or w.quantization.kind in UPCASTS),
        optimizer=w.optimizer,
        is_full=w.method == "full",
        drops_gradients=w.optimizer_in_backward or rule_of(w.optimizer).drops_gradients,
        clips=w.clips_gradients,
        accumulates=w.gradient_accumulation_steps > 1,
        has_reference=w.reference_model,
        sharding=w.sharding,
    )


def rank_count(sharding: Sharding) -> int:
    """Return the ranks of one node."""
    return max(1, min(sharding.ranks_per_node, sharding.num_ranks))
