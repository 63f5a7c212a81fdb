"""What an optimizer keeps for every trained tensor, and what it makes for a moment at its step. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from ..errors import BadInput
from .lines import Product, rounded

MIN_8BIT = 4096
"""Smaller tensors keep float32 states (bitsandbytes 0.50.2, optim/optimizer.py, min_8bit_size)."""
BLOCK = 256
"""8-bit states that share a scale."""
PAGED_FROM = 100_000
"""Elements from which a paged optimizer uses pages (optim/optimizer.py, get_state_buffer)."""
QMAP_BYTES = 256 * 4
RANK = 128
"""GaLore's and APOLLO's when nothing else is given (transformers 5.23.0, trainer_optimizer.py)."""

Step = Literal["fused", "foreach", "loop"]
State = Literal[
    "own", "fp32", "8bit", "ao8", "ao4", "factored", "low-rank", "low-rank-8bit", "low-rank-factored"
]

TORCH = "torch 2.13.0, optim"
BNB = "bitsandbytes 0.50.2, optim/optimizer.py, init_state"
HF = "transformers 5.23.0, trainer_optimizer.py"


class Stretch(NamedTuple):
    """Equal tensors of an optimizer: what it sees of a parameter on one rank."""

    shape: tuple[int, ...]
    number: int
    is_matrix: bool = False
    """The weight of a linear layer: what GaLore, APOLLO and Muon treat on their own."""

    @property
    def size(self) -> int:
        """Elements of one."""
        size = 1
        for side in self.shape:
            size *= side
        return size


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How an optimizer spends memory."""

    state: State
    copies: int = 0
    """State tensors of the size of a parameter."""
    step: Step = "fused"
    foreach_copies: int = 0
    """Copies of all parameters that the ``foreach`` step makes at once."""
    loop_bytes: int = 0
    """Bytes per element of the largest tensor that a ``loop`` step makes at once; of a 4-byte parameter."""
    paged: bool = False
    """The states may leave the device when it is full."""
    has_step: bool = False
    """Counts its steps in a tensor on the device, one for every parameter."""
    drops_gradients: bool = False
    """Uses every gradient as soon as it is there."""
    matrices: State | None = None
    """How matrices of layers are kept, where they are treated on their own."""
    matrix_copies: int = 0
    source: str = TORCH


def _bnb(copies: int, *, bits: int, paged: bool = False) -> Rule:
    return Rule(state="8bit" if bits == 8 else "fp32", copies=copies, paged=paged, source=BNB)  # noqa: PLR2004 - bits


def _galore(state: State, *, inner: State, copies: int, layerwise: bool = False) -> Rule:
    return Rule(
        state=inner,
        copies=copies,
        matrices=state,
        matrix_copies=copies,
        step="loop",
        loop_bytes=12,
        drops_gradients=layerwise,
        source="GaLore, arXiv 2403.03507, table 1 (rank 128); galore-torch 1.0",
    )


_ADAM = Rule(state="own", copies=2, step="foreach", foreach_copies=1)
_FUSED = Rule(state="own", copies=2, has_step=True)
_APOLLO = Rule(
    state="own",
    copies=2,
    matrices="low-rank",
    matrix_copies=2,
    step="loop",
    loop_bytes=8,
    source="APOLLO, arXiv 2412.05270, table 1 (rank 128)",
)

RULES: dict[str, Rule] = {
    "adamw_torch": _ADAM,
    "adamw_torch_fused": _FUSED,
    "adamw_torch_xla": Rule(state="own", copies=2, source=HF),
    "adamw_torch_npu_fused": Rule(state="own", copies=2, foreach_copies=1, step="foreach", source=HF),
    "adafactor": Rule(
        state="factored",
        step="loop",
        loop_bytes=8,
        source="transformers 5.23.0, optimization.py, Adafactor.step",
    ),
    "adamw_anyprecision": Rule(state="fp32", copies=2, step="loop", loop_bytes=8, source=HF),
    "adamw_torch_4bit": Rule(
        state="ao4", copies=2, source="torchao 0.18, optim/adam.py (block 256 by transformers)"
    ),
    "adamw_torch_8bit": Rule(state="ao8", copies=2, source="torchao 0.18, optim/adam.py (block 256)"),
    "ademamix": _bnb(3, bits=32),
    "sgd": Rule(state="own", copies=0),
    "adagrad": Rule(state="own", copies=1, step="foreach", foreach_copies=2),
    "adamw_bnb_8bit": _bnb(2, bits=8),
    "adamw_8bit": _bnb(2, bits=8),
    "ademamix_8bit": _bnb(3, bits=8),
    "lion_8bit": _bnb(1, bits=8),
    "lion_32bit": _bnb(1, bits=32),
    "paged_adamw_32bit": _bnb(2, bits=32, paged=True),
    "paged_adamw_8bit": _bnb(2, bits=8, paged=True),
    "paged_ademamix_32bit": _bnb(3, bits=32, paged=True),
    "paged_ademamix_8bit": _bnb(3, bits=8, paged=True),
    "paged_lion_32bit": _bnb(1, bits=32, paged=True),
    "paged_lion_8bit": _bnb(1, bits=8, paged=True),
    "rmsprop": Rule(state="own", copies=1, step="foreach", foreach_copies=1),
    "rmsprop_bnb": _bnb(1, bits=32),
    "rmsprop_bnb_8bit": _bnb(1, bits=8),
    "rmsprop_bnb_32bit": _bnb(1, bits=32),
    "galore_adamw": _galore("low-rank", inner="own", copies=2),
    "galore_adamw_8bit": _galore("low-rank-8bit", inner="8bit", copies=2),
    "galore_adafactor": _galore("low-rank-factored", inner="factored", copies=0),
    "galore_adamw_layerwise": _galore("low-rank", inner="own", copies=2, layerwise=True),
    "galore_adamw_8bit_layerwise": _galore("low-rank-8bit", inner="8bit", copies=2, layerwise=True),
    "galore_adafactor_layerwise": _galore("low-rank-factored", inner="factored", copies=0, layerwise=True),
    "lomo": Rule(state="own", copies=0, drops_gradients=True, source="LOMO, arXiv 2306.09782"),
    "adalomo": Rule(
        state="factored", step="loop", loop_bytes=8, drops_gradients=True, source="AdaLomo, arXiv 2310.10195"
    ),
    "grokadamw": Rule(state="own", copies=3, step="loop", loop_bytes=8, source="grokadamw 0.1, step"),
    "schedule_free_radam": Rule(
        state="own",
        copies=2,
        step="foreach",
        foreach_copies=1,
        source="schedulefree 1.4, radam_schedulefree.py",
    ),
    "schedule_free_adamw": Rule(
        state="own",
        copies=2,
        step="foreach",
        foreach_copies=1,
        source="schedulefree 1.4, adamw_schedulefree.py",
    ),
    "schedule_free_sgd": Rule(
        state="own",
        copies=1,
        step="foreach",
        foreach_copies=0,
        source="schedulefree 1.4, sgd_schedulefree.py",
    ),
    "apollo_adamw": _APOLLO,
    "apollo_adamw_layerwise": Rule(
        state="own",
        copies=2,
        matrices="low-rank",
        matrix_copies=2,
        step="loop",
        loop_bytes=8,
        drops_gradients=True,
        source=_APOLLO.source,
    ),
    "stable_adamw": Rule(state="own", copies=2, step="foreach", foreach_copies=1, source="torch-optimi 0.3"),
    "muon": Rule(
        state="own",
        copies=2,
        matrices="own",
        matrix_copies=1,
        step="loop",
        loop_bytes=12,
        source="torch 2.13.0, optim/_muon.py; AdamW for what is no hidden matrix",
    ),
    "adam_mini": Rule(state="own", copies=1, step="loop", loop_bytes=8, source="Adam-mini, arXiv 2406.16793"),
    "badam": Rule(
        state="fp32", copies=3, step="loop", loop_bytes=8, source="BAdam, arXiv 2404.02827, table 1"
    ),
}
"""By the name of ``optim``; Muon, Adam-mini and BAdam are no names of transformers 5.23."""


def rule_of(name: str) -> Rule:
    """Return the rule of an optimizer.

    Raises:
        BadInput: Nobody knows the name.
    """
    rule = RULES.get(name)
    if rule is None:
        raise BadInput(f"optimizer {name[:60]!r} is not known", hint=f"one of {', '.join(sorted(RULES))}")
    return rule


def before_torch_2_1(rule: Rule) -> Rule:
    """Return the rule as it was: Adam's ``foreach`` step made a second copy (pytorch/pytorch#104898)."""
    if rule.step != "foreach" or rule.source != TORCH or rule.copies != 2:  # noqa: PLR2004 - Adam's
        return rule
    return replace(rule, foreach_copies=rule.foreach_copies + 1)


class StateBytes(NamedTuple):
    """Bytes that an optimizer keeps."""

    products: tuple[Product, ...]
    num_bytes: int
    paged_bytes: int
    """Beside them, in pages that may leave the device and that torch's allocator does not see."""


def state_bytes(rule: Rule, stretches: Sequence[Stretch], own_bytes: int) -> StateBytes:
    """Return what an optimizer keeps for tensors.

    Args:
        rule: The optimizer.
        stretches: The tensors that it is given.
        own_bytes: Bytes of one of their elements.
    """
    totals: dict[float, int] = {}
    num_bytes = paged = 0
    for stretch in stretches:
        is_special = rule.matrices is not None and stretch.is_matrix
        state = rule.matrices if is_special and rule.matrices else rule.state
        copies = rule.matrix_copies if is_special else rule.copies
        for number, size in _kept(state, copies, stretch, own_bytes):
            taken = rounded(int(number * size)) * stretch.number
            if rule.paged and stretch.size >= PAGED_FROM:
                paged += taken
                continue
            totals[size] = totals.get(size, 0) + number * stretch.number
            num_bytes += taken
        num_bytes += rounded(4) * stretch.number if rule.has_step else 0
    if "8bit" in rule.state and (num_bytes or paged):
        num_bytes += 2 * QMAP_BYTES
    return StateBytes(
        tuple(Product(n, size) for size, n in sorted(totals.items(), reverse=True)), num_bytes, paged
    )


def _kept(state: State, copies: int, stretch: Stretch, own: int) -> list[tuple[int, float]]:
    """Elements and bytes of an element of what is kept for one tensor."""
    size = stretch.size
    if state in {"own", "fp32"}:
        return [(size * copies, own if state == "own" else 4)] if copies else []
    if state == "8bit":
        return _eight_bit(size, copies)
    if state in {"ao8", "ao4"}:
        return _torchao(size, copies, own, 1 if state == "ao8" else 0.5)
    if state == "factored":
        return _factored(stretch.shape)
    return _low_rank(state, copies, stretch.shape, own)


def _eight_bit(size: int, copies: int) -> list[tuple[int, float]]:
    if size < MIN_8BIT:
        return [(size * copies, 4)]
    return [(size * copies, 1), (-(-size // BLOCK) * copies, 4)]


def _torchao(size: int, copies: int, own: int, code: float) -> list[tuple[int, float]]:
    if size < MIN_8BIT or size % BLOCK:
        return [(size * copies, own)]
    return [(size * copies, code), ((size // BLOCK + int(256 * code**4)) * copies, 4)]


def _factored(shape: tuple[int, ...]) -> list[tuple[int, float]]:
    """Sums over rows and columns in float32; a vector has all its squares."""
    size = 1
    for side in shape:
        size *= side
    if len(shape) < 2:  # noqa: PLR2004 - a matrix
        return [(size, 4)]
    return [(size // shape[-1], 4), (size // shape[-2], 4)]


def _low_rank(state: State, copies: int, shape: tuple[int, ...], own: int) -> list[tuple[int, float]]:
    """The projection keeps the larger side; its matrix turns the smaller one."""
    large, small = max(shape[-2:]), min(shape[-2:])
    rank = min(RANK, small)
    projector = [(small * rank, float(own))]
    if state == "low-rank":
        return [*projector, (large * rank * copies, own)]
    if state == "low-rank-8bit":
        return [*projector, *_eight_bit(large * rank, copies)]
    return [*projector, *_factored((large, rank))]


def step_products(rule: Rule, stretches: Sequence[Stretch], own_bytes: int) -> tuple[Product, ...]:
    """Return what the step makes for a moment: copies of all for ``foreach``, of the largest for ``loop``."""
    if rule.step == "foreach":
        number = sum(stretch.size * stretch.number for stretch in stretches)
        return (Product(number * rule.foreach_copies, own_bytes),)
    if rule.step == "loop":
        largest = max((stretch.size for stretch in stretches), default=0)
        # In 16 bits the gradient and the parameter are turned to float32 beside it.
        return (Product(largest, rule.loop_bytes + (8 if own_bytes < 4 else 0)),)  # noqa: PLR2004 - float32
    return ()
