"""How a machine will do a job, and why it was decided so."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from .estimate import Estimate, Verdict
from .job import Job
from .machine import Device
from .model import ModelSpec
from .speed import Speed

Backend = Literal["single", "ddp", "zero", "fsdp"]
Precision = Literal["no", "fp16", "bf16"]
ZeroStage = Literal[0, 1, 2, 3]
Offload = Literal["none", "cpu", "nvme"]
StateDict = Literal["sharded", "full"]
Packing = Literal["none", "nf4", "int8"]
Rendezvous = Literal["static", "c10d"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Strategy:
    """One way to run a job on a machine."""

    backend: Backend
    device_kind: str
    """Torch's device type: ``cuda``, ``npu``, ``xpu``, ``mps``, ``hpu`` or ``cpu``."""
    num_processes: int
    """Ranks of the whole run, all nodes together."""
    micro_batch_size: int
    """Sequences per rank and forward pass."""
    gradient_accumulation_steps: int
    gradient_checkpointing: bool
    mixed_precision: Precision
    shard_size: int | None = None
    """Ranks that hold one copy of what is sharded together; ``None``: nothing is sharded, or all ranks."""
    zero_stage: ZeroStage = 0
    """zero: what is split over the ranks. 1: optimizer states, 2: and gradients, 3: and weights."""
    offload_optimizer: Offload = "none"
    """Where optimizer states live instead of on the device."""
    offload_parameters: Offload = "none"
    """Where weights live while no layer needs them."""
    nvme_path: str | None = None
    """Folder on the disk that ``nvme`` means."""
    reshard_after_forward: bool = True
    """fsdp: gathered layers are dropped after the forward pass, and gathered again for the backward pass."""
    state_dict: StateDict = "sharded"
    """fsdp: whether a checkpoint holds a file per rank or one that rank 0 writes."""
    quantization: Packing = "none"
    """How bitsandbytes packs the frozen weights of linear layers: 4 bits (QLoRA), 8 bits, not at all."""
    num_nodes: int = 1
    """Computers that the ranks are spread over, the same number on each."""
    timeout_seconds: int = 1800
    """Longest that a rank waits for the others in one exchange (``ddp_timeout``)."""

    @property
    def ranks_per_node(self) -> int:
        """Ranks of one computer."""
        return self.num_processes // self.num_nodes

    @property
    def num_offloads(self) -> int:
        """How much of the state lives elsewhere than on the device: optimizer states, weights, both."""
        return (self.offload_optimizer != "none") + (self.offload_parameters != "none")

    @property
    def num_shards(self) -> int:
        """Parts that one copy of what is sharded is split into; 1 when nothing is."""
        if self.backend == "fsdp" or (self.backend == "zero" and self.zero_stage > 0):
            return self.shard_size or self.num_processes
        return 1

    @property
    def splits_weights(self) -> bool:
        """Whether each rank holds a part of the weights only, so that a forward pass needs all ranks."""
        return self.backend == "fsdp" or (self.backend == "zero" and self.zero_stage == 3)  # noqa: PLR2004 - a stage

    @property
    def global_batch_size(self) -> int:
        """Sequences per optimizer step over all ranks."""
        return self.num_processes * self.micro_batch_size * self.gradient_accumulation_steps


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """Where the nodes of a run are and how they meet. Nothing of it matters to one node."""

    hosts: tuple[str, ...] = ()
    """Names or addresses of the nodes, in order of their rank; empty: not known when it is planned."""
    port: int = 29500
    """Of node 0, where all ranks meet."""
    rendezvous: Rendezvous = "static"
    """``static``: each node is told its rank. ``c10d``: nodes are numbered as they come."""
    sbatch: tuple[str, ...] | None = None
    """Options of SLURM's sbatch, ``partition=gpu``; ``None``: no batch script is written."""

    def names(self, num_nodes: int) -> tuple[str, ...]:
        """Return a name for every node: its host's, or ``node-0`` to be replaced."""
        return self.hosts[:num_nodes] or tuple(f"node-{rank}" for rank in range(num_nodes))


@dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """Why one thing was decided, in a sentence; ``source`` says where the rule comes from."""

    about: str
    """The field of ``Strategy`` (or of the job) that the reason explains."""
    text: str
    source: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    """A choice that was considered and not taken, with the reason."""

    choice: str
    text: str
    source: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """An incompatibility as data: the planner rejects by it, the wizard greys out, the docs list it."""

    broken: Callable[[Job, tuple[Device, ...]], bool]
    """Of what the user wants and pins, and the accelerators that would be used (none: the CPU)."""
    text: str
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class WayRule:
    """An incompatibility of a strategy with a model, as data."""

    broken: Callable[[Strategy, ModelSpec], bool]
    text: str
    hint: str
    """What to do instead."""
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A decided strategy with its reasons. The job stands beside it in the run folder."""

    strategy: Strategy
    device_indices: tuple[int, ...] = ()
    """``Device.index`` of the devices that are trained on; none on the CPU."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that make the ranks see just these devices."""
    reasons: tuple[Reason, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    estimate: Estimate | None = None
    """``None``: the model's shape is not known."""
    verdict: Verdict | None = None
    speed: Speed | None = None
