"""The events that a run leaves behind, one JSON object a line. docs/events.md describes the file form.

``t`` is the Unix time in seconds at which the event was written. Unknown is ``None`` and is left out of
the line.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from .machine import DeviceReading, HostReading


@dataclass(frozen=True, kw_only=True, slots=True)
class StepEvent:
    """One logged optimizer step of rank 0."""

    kind: ClassVar[str] = "step"
    t: float
    step: int
    max_steps: int
    epoch: float | None = None
    loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    num_tokens: int | None = None
    """Non-padding tokens trained on since step 0, all ranks, also before a resume."""
    tokens_per_second: float | None = None
    """Non-padding tokens of all ranks since the previous logged step, per second."""
    step_seconds: float | None = None
    """Mean wall time of an optimizer step since the previous logged step."""
    device_peak_bytes: int | None = None
    """Most that torch's allocator ever held on rank 0's device; None on the CPU."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Everything else that the trainer logged, under the trainer's own names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalEvent:
    """One evaluation on held-out rows."""

    kind: ClassVar[str] = "eval"
    t: float
    step: int
    loss: float | None = None
    exact_match: float | None = None
    """Share of generated answers that equal the reference, 0 to 1."""
    num_rows: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleEvent:
    """One answer that the model generated (greedy) for a held-out prompt."""

    kind: ClassVar[str] = "sample"
    t: float
    step: int
    index: int
    """Row of the held-out prompts: the same index is the same prompt at another step."""
    prompt: str
    completion: str
    reference: str | None = None
    matches: bool | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointEvent:
    """A checkpoint that was written and whose manifest stands."""

    kind: ClassVar[str] = "checkpoint"
    t: float
    step: int
    path: str
    """Relative to the run folder."""
    size_bytes: int
    seconds: float
    """From the trainer's save to the manifest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RankEvent:
    """What one rank found itself to be after the trainer was built; rank 0 writes it for all."""

    kind: ClassVar[str] = "rank"
    t: float
    rank: int
    local_rank: int
    world_size: int
    host: str
    pid: int
    device: str
    """Torch's name of the device: ``cuda:0``, ``cpu``."""
    engine: str
    """Class that wraps the model: ``DistributedDataParallel``, or the model's own."""
    num_parameters: int
    num_trainable_parameters: int
    parameter_bytes: Mapping[str, int] = field(default_factory=dict)
    """Bytes held by this rank per dtype: ``{"bfloat16": 1234}``."""
    sharding: str | None = None
    """What splits the state of training: ``zero-2``, ``fsdp2``; absent when nothing does."""
    num_shards: int = 1
    """Parts that it is split into."""
    num_local_parameters: int | None = None
    """Weights that this rank holds between two steps."""
    num_optimizer_parameters: int | None = None
    """Trained weights whose optimizer states this rank holds."""
    packing: str | None = None
    """How frozen weights are packed: ``nf4``, ``int8``; absent when they are not. Counts of weights above are
    of stored elements, several of which a packed one may hold."""
    num_packed_parameters: int = 0
    """Weights of the whole model that are packed, as many as they are unpacked."""
    packed_bytes: int = 0
    """Of this rank's part of their bits, without scales."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PeakEvent:
    """The most memory that one rank held since its previous ``peak``; rank 0 writes it for all.

    Written again at a later moment of the same name only when it is higher there.
    """

    kind: ClassVar[str] = "peak"
    t: float
    rank: int
    moment: str
    """``start``: what is held before the model is loaded. ``load``: model and trainer are built. ``first
    steps``: two optimizer steps. ``training``: the steps since. ``evaluation``, ``save``. ``end``: the whole
    attempt."""
    step: int
    """Optimizer steps that were done by then."""
    allocated_bytes: int | None = None
    """Of tensors on the rank's device: torch's ``max_memory_allocated``; absent on the CPU."""
    reserved_bytes: int | None = None
    """Of torch's allocator on the device: ``max_memory_reserved``."""
    outside_bytes: int | None = None
    """In use on the device and in no segment of this rank's allocator when it was read: its context, its
    libraries, and other programs."""
    host_bytes: int | None = None
    """Resident memory of the rank's process, without processes that it started."""
    batch_tokens: int | None = None
    """Largest micro batch so far, padding included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AlertEvent:
    """Something a person should know; ``code`` is stable for machines (``nan_loss``, ``stall``, ...)."""

    kind: ClassVar[str] = "alert"
    t: float
    level: Literal["info", "warning", "error"]
    code: str
    message: str
    step: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LogEvent:
    """A line of narration: loading, tokenizing, saving."""

    kind: ClassVar[str] = "log"
    t: float
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StateEvent:
    """The supervisor moved the run to another state."""

    kind: ClassVar[str] = "state"
    t: float
    state: str
    attempt: int | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class EndEvent:
    """Rank 0's last word of an attempt. Without it the attempt did not succeed, whatever its exit code."""

    kind: ClassVar[str] = "end"
    t: float
    status: Literal["finished", "stopped", "failed"]
    step: int
    max_steps: int
    message: str | None = None
    device_peak_bytes: int | None = None
    """Most that tensors held on the device of any rank in this attempt; absent on the CPU."""
    reserved_peak_bytes: int | None = None
    """Most that torch's allocator held on the device of any rank."""
    host_peak_bytes: int | None = None
    """Most resident memory of any rank's process."""
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class DevicesEvent:
    """One sample of a node's devices and host; lives in ``devices-<node>.jsonl``."""

    kind: ClassVar[str] = "devices"
    t: float
    host: HostReading | None = None
    devices: tuple[DeviceReading, ...] = ()


Event = (
    StepEvent
    | EvalEvent
    | SampleEvent
    | CheckpointEvent
    | RankEvent
    | PeakEvent
    | AlertEvent
    | LogEvent
    | StateEvent
    | EndEvent
    | DevicesEvent
)

EVENT_TYPES: tuple[type[Event], ...] = (
    StepEvent,
    EvalEvent,
    SampleEvent,
    CheckpointEvent,
    RankEvent,
    PeakEvent,
    AlertEvent,
    LogEvent,
    StateEvent,
    EndEvent,
    DevicesEvent,
)
