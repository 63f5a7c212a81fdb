"""What the states of training depend on, small enough to be a key. Pure."""

from dataclasses import dataclass

from ..specs.workload import DTYPE_BYTES, Quantization, Sharding, Workload
from .cuts import Cuts, cuts, holdings_of, split
from .optimizers import Rule, before_torch_2_1, rule_of
from .tensors import Holdings, Part

UPCASTS = frozenset({"nf4", "fp4", "int8", "fp8", "mxfp4"})
"""Packings after which peft 0.21.2 turns every other 16-bit parameter to float32 (utils/other.py)."""
OLD_TORCH = ("1.", "2.0")
LATE_BUCKETS_SINCE = (0, 18, 3)
MOST_DIGITS = 6
"""Of a version's number; what is longer is none."""
ZERO12 = "deepspeed 0.19.8, runtime/zero/stage_1_and_2.py"
ZERO3 = "deepspeed 0.19.8, runtime/zero/stage3.py"


@dataclass(frozen=True, slots=True)
class Key:
    """What the states depend on: small, so that the planner's thousand questions are answered from memory."""

    held: Holdings
    quantization: Quantization | None
    weight_bytes: int
    trained_bytes: int
    copies_bytes: int
    """Of an element of a saved module's copy."""
    gather_bytes: int
    upcasts: bool
    optimizer: str
    is_full: bool
    drops_gradients: bool
    clips: bool
    accumulates: bool
    has_reference: bool
    sharding: Sharding
    has_old_torch: bool = False
    """Before 2.1."""
    makes_buckets_late: bool = True
    """DeepSpeed: with the first gradient, not before the loss's (0.18.3: setup_buckets)."""

    @property
    def cuts(self) -> Cuts:
        """How many ranks share each kind of state."""
        return cuts(self.sharding, self.quantization)

    @property
    def rule(self) -> Rule:
        """The optimizer's."""
        rule = rule_of(self.optimizer)
        return before_torch_2_1(rule) if self.has_old_torch else rule

    @property
    def zero(self) -> int:
        """ZeRO stage; 0 where DeepSpeed is not used."""
        return self.sharding.zero_stage if self.sharding.backend == "zero" else 0

    @property
    def trained(self) -> tuple[Part, ...]:
        """What has gradients, of one rank of tensor parallelism."""
        return split(self.held.trained, self.sharding.tensor_parallel)

    @property
    def groups(self) -> tuple[tuple[tuple[Part, ...], int], ...]:
        """What has gradients, by the bytes of an element."""
        if not self.held.copies or self.copies_bytes == self.trained_bytes:
            return ((self.trained, self.trained_bytes),)
        ranks = self.sharding.tensor_parallel
        added, copies = split(self.held.added, ranks), split(self.held.copies, ranks)
        return ((added, self.trained_bytes), (copies, self.copies_bytes))

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
        copies_bytes=_copies_bytes(w),
        gather_bytes=DTYPE_BYTES[w.autocast or w.weights],
        upcasts=w.upcast_frozen and (w.quantization is None or w.quantization.kind in UPCASTS),
        optimizer=w.optimizer,
        is_full=w.method == "full",
        drops_gradients=w.optimizer_in_backward or rule_of(w.optimizer).drops_gradients,
        clips=w.clips_gradients,
        accumulates=w.gradient_accumulation_steps > 1,
        has_reference=w.reference_model,
        sharding=w.sharding,
        has_old_torch=(w.stack.torch or "2.1").startswith(OLD_TORCH),
        makes_buckets_late=_numbers(w.stack.deepspeed) >= LATE_BUCKETS_SINCE,
    )


def _numbers(version: str | None) -> tuple[int, ...]:
    """Return the numbers of a version; of one that is not known, the newest."""
    parts = (version or "").split(".")[:3]
    known = len(parts) > 1 and all(part.isdecimal() and len(part) < MOST_DIGITS for part in parts)
    return tuple(map(int, parts)) if known else LATE_BUCKETS_SINCE


def _copies_bytes(w: Workload) -> int:
    """A copy has the format of its module: peft 0.21.2 turns only its own layers' weights to float32.

    DeepSpeed has one format for all, and accelerate's FSDP 2 turns what is trained to float32 unless weights
    are packed (accelerate 1.15.0, utils/fsdp_utils.py, fsdp2_prepare_model).
    """
    is_cast = w.sharding.backend == "zero" or (w.sharding.backend == "fsdp" and w.quantization is None)
    if w.method != "full" and is_cast:
        return DTYPE_BYTES[w.trainable]
    return 4 if w.upcast_frozen else DTYPE_BYTES[w.weights]


def rank_count(sharding: Sharding) -> int:
    """Return the ranks of one node."""
    return max(1, min(sharding.ranks_per_node, sharding.num_ranks))
