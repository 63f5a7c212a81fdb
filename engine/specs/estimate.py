"""Bytes that a run will take, line by line: on a device, on the host, on the disk."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Place = Literal["device", "reserved", "driver", "host", "disk"]
"""Where bytes are. ``device``: in tensors. ``reserved``: kept by torch's allocator and in no tensor.
``driver``: on the device, outside the allocator (context, communication). ``host``, ``disk``: of a node."""

PhaseName = Literal[
    "load", "generate", "reference", "forward", "head", "backward start", "backward end", "optimizer", "save"
]
"""Moments of a run at which memory peaks.

``load``: weights are read, quantized and spread. ``generate``: answers are sampled (grpo, rloo).
``reference``: the reference model's pass. ``forward``: the last layer's forward pass. ``head``: the loss and
its gradient. ``backward start``: the backward pass of the last layer, when every kept activation is still
there and hardly any gradient. ``backward end``: that of the first layer, when every gradient is there and
hardly any activation. ``optimizer``: the update. ``save``: a checkpoint is gathered and written."""
PHASES: tuple[PhaseName, ...] = (
    "load", "generate", "reference", "forward", "head", "backward start", "backward end", "optimizer", "save",
)  # fmt: skip

Group = Literal[
    "weights", "gradients", "optimizer", "activations", "logits", "buffers", "overhead", "data", "checkpoints"
]
"""What a term is for, as the screen colours it."""
Tier = Literal["fast", "exact", "probe"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Term:
    """One named line of an estimate."""

    name: str
    """``weights``, ``adapter gradients``, ``checkpointed layer inputs``: few plain words."""
    group: Group
    num_bytes: int
    phases: tuple[PhaseName, ...]
    """When these bytes are held. On host and disk only ``load``, ``forward`` (the whole training) and
    ``save`` are told apart; what is reserved or the driver's is named in every phase."""
    formula: str
    """With numbers, so that a calculator gives ``num_bytes``: ``8,030,261,248 x 2 B``."""
    source: str
    """Where the formula comes from: a library's file and version, or a paper."""
    place: Place = "device"


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What a workload takes on one device, on one host and on the disk.

    ``terms`` of one phase add up to that phase; the largest phase is the peak.
    """

    tier: Tier
    terms: tuple[Term, ...]
    uncertainty: float
    """Share of the estimate that nine of ten measurements stay within, for such a workload and tier."""
    basis: str
    """What the uncertainty rests on."""
    notes: tuple[str, ...] = ()
    """Assumptions and what is not modelled, a sentence each."""

    _totals: Mapping[tuple[PhaseName, Place], int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Add up every phase once: a planner asks for them a thousand times."""
        totals: dict[tuple[PhaseName, Place], int] = {}
        for term in self.terms:
            for phase in term.phases:
                key = (phase, term.place)
                totals[key] = totals.get(key, 0) + term.num_bytes
        object.__setattr__(self, "_totals", totals)

    def phase_bytes(self, phase: PhaseName, place: Place = "device") -> int:
        """Bytes held in a phase."""
        return self._totals.get((phase, place), 0)

    def phase_terms(self, phase: PhaseName, place: Place = "device") -> tuple[Term, ...]:
        """Return what is held in a phase."""
        return tuple(term for term in self.terms if term.place == place and phase in term.phases)

    @property
    def peak_phase(self) -> PhaseName:
        """The phase in which the device holds most."""
        return max(PHASES, key=self.phase_bytes)

    @property
    def allocated_bytes(self) -> int:
        """Peak of what tensors hold on the device: ``torch.cuda.max_memory_allocated``."""
        return self.phase_bytes(self.peak_phase)

    @property
    def reserved_bytes(self) -> int:
        """Peak of the allocator's segments: ``torch.cuda.max_memory_reserved``."""
        return self.allocated_bytes + self.phase_bytes(self.peak_phase, "reserved")

    @property
    def process_bytes(self) -> int:
        """Peak of the process as the device's driver shows it."""
        return self.reserved_bytes + self.phase_bytes(self.peak_phase, "driver")

    @property
    def host_bytes(self) -> int:
        """Peak of the host's memory, of all ranks of a node together."""
        return max(self.phase_bytes(phase, "host") for phase in PHASES)

    @property
    def disk_bytes(self) -> int:
        """Bytes that the run leaves or holds on the disk at its peak."""
        return max(self.phase_bytes(phase, "disk") for phase in PHASES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Whether an estimate fits into what is free."""

    word: Literal["fits", "tight", "no", "unknown"]
    needed_bytes: int
    """Process bytes with the margin for what the estimate may be wrong by."""
    free_bytes: int | None
    text: str
    """One sentence with the numbers."""
