"""The time that bytes take between ranks and to the host, and how much of it computing hides. Pure.

Who hides what is read off the engines' code, not assumed:

- DDP and FSDP 2 talk on streams of their own while the devices compute. FSDP 2 copies offloaded weights there
  too (torch 2.13, _fsdp_param.py: ``non_blocking=True`` on the copy-in stream).
- ftwiz writes ``overlap_comm: false`` for DeepSpeed, so gradients are reduced on the stream that computes
  (0.19.8, stage3.py and stage_1_and_2.py: ``reduce_and_partition_stream``). Stage 3 gathers one bucket ahead
  of the layer that computes, and first copies offloaded weights without ``non_blocking`` on that same stream
  (partition_parameters.py, ``_all_gather_dtype``): those copies hide behind nothing.
"""

from dataclasses import dataclass

from ..specs.machine import Machine
from ..specs.speed import Hangs, TimePart
from ..specs.workload import DTYPE_BYTES, Sharding, Workload
from . import flops
from .links import BUS, Links

OVERLAP = 0.8
"""Of computing, what can hide traffic: the first gather and the last reduction wait. Assumed, +-0.1."""
BACKWARD_SHARE = 0.6
"""Of a micro batch's computing, what comes after the first gradient is there: 4 of 6 or 8 operations per
weight (Kaplan et al. 2020), 2 of 4 or 6 with adapters."""
GATHERS_IN_STAGE = 3
SCALES_SHARE = 1.03
"""Packed bytes with their scales: 0.127 bits per weight beside 4 (QLoRA, arXiv 2305.14314, section 3)."""
CPU_ADAM_SECONDS = 0.25e-9
"""Per parameter and node where the host's memory is the bound (ZeRO-Offload, arXiv 2101.06840, table 4: 48
cores)."""
CPU_ADAM_THREAD_SECONDS = 16e-9
"""Per parameter and thread below that. DeepSpeed issue 1635: 21.8 s for 1.35e9 with a launcher that gives one
thread; LLaMA-7B on 8 ranks, so 8 threads: 17 s more a step with offload (gist chenyaofo/d4cd6a20)."""
TORCH_ADAM_RATIO = 5.1
"""torch's Adam on the CPU against DeepSpeed's (arXiv 2101.06840, section 6.2: 5.1 to 6.5 times)."""
USUAL_THREADS = 16
"""Of a host whose CPUs are not known."""
NVME_BYTES = 3e9
"""Per second and node, one drive that reads and writes at once. Assumed, +-1.5e9: one PCIe 4 drive reads at
5 to 7e9 and writes at 3 to 6e9 in its data sheet."""
ADAM_BYTES = 24
"""Per parameter to and from a drive: float32 weight and two moments, read and written."""


@dataclass(slots=True)
class _Budget:
    """Computing time that no traffic has hidden behind yet; one for all: there is one computing stream."""

    seconds: float

    def hide(self, seconds: float, most: float = float("inf")) -> float:
        """Return how much of some traffic is hidden, and take it off."""
        hidden = max(0.0, min(seconds, self.seconds, most))
        self.seconds -= hidden
        return hidden


def moving_parts(
    workload: Workload, machine: Machine, rates: Links, compute_seconds: float
) -> list[TimePart]:
    """Return what communication and offloading cost beside so much computing of one optimizer step."""
    budget = _Budget(OVERLAP * compute_seconds)
    return [
        *_gathers(workload, rates, budget),
        *_reductions(workload, rates, budget, compute_seconds),
        *_weights_from_host(workload, rates, budget),
        *_host_update(workload, machine, rates),
    ]


def gathers_weights(sharding: Sharding) -> bool:
    """Whether layers are put together from the parts of all ranks before they compute."""
    is_fsdp = sharding.backend in {"fsdp", "fsdp1"}
    return (is_fsdp or sharding.zero_stage == GATHERS_IN_STAGE) and sharding.num_shards > 1


def num_trained(workload: Workload) -> float:
    """Return how many parameters have gradients."""
    total = workload.model.num_parameters or 0
    if workload.method == "full":
        return total
    if workload.method == "freeze" and workload.model.num_layers:
        return total * (workload.num_trainable_layers or 1) / workload.model.num_layers
    return flops.num_adapter(workload.model, workload.adapter)


def _weight_bytes(workload: Workload) -> float:
    """Bytes of all weights as they travel: packed ones packed, the rest in 16 bits."""
    total = workload.model.num_parameters or 0
    how = workload.quantization
    if how is None:
        return total * 2.0
    packed = flops.num_packed(workload.model)
    return packed * how.bits / 8 * SCALES_SHARE + (total - packed) * 2.0


def _ring(sharding: Sharding, rates: Links, num_ranks: int) -> tuple[float, str]:
    """Return the bytes per second that a ring of so many ranks passes on, and the words for its share.

    The slowest link decides: the network where the ring leaves a node.
    """
    share = f"{num_ranks - 1}/{num_ranks}"
    if num_ranks > sharding.ranks_per_node and rates.between_nodes < rates.between_devices:
        rate, name = rates.between_nodes, "between nodes"
    else:
        rate, name = rates.between_devices, rates.text
    return rate * num_ranks / (num_ranks - 1), f"{share} / ({rate / 1e9:.1f} GB/s, {name})"


def _way(sharding: Sharding, rates: Links, num_ranks: int) -> Hangs:
    return "bus" if rates.text == BUS and num_ranks <= sharding.ranks_per_node else "device"


GATHERING = "gathering weights"
RING = "ring collectives: every rank sends (N - 1)/N of the volume; arXiv 1910.02054, section 7"


def _gathers(workload: Workload, rates: Links, budget: _Budget) -> list[TimePart]:
    sharding = workload.sharding
    if not gathers_weights(sharding):
        return []
    times = workload.gradient_accumulation_steps * (2 if sharding.reshard_after_forward else 1)
    weights = _weight_bytes(workload)
    rate, words = _ring(sharding, rates, sharding.num_shards)
    seconds = weights * times / rate
    return [
        TimePart(
            name=GATHERING,
            seconds=seconds,
            hidden_seconds=budget.hide(seconds),
            hangs_on=_way(sharding, rates, sharding.num_shards),
            formula=f"{weights / 1e9:.1f} GB x {times} x {words}",
            source=RING,
        )
    ]


def _reductions(workload: Workload, rates: Links, budget: _Budget, compute_seconds: float) -> list[TimePart]:
    """Return the gradients' way to their owners, and of ZeRO 1 and 2 the weights' way back."""
    sharding = workload.sharding
    if sharding.num_ranks == 1:
        return []
    is_zero = sharding.backend == "zero"
    times = workload.gradient_accumulation_steps
    trained = num_trained(workload)
    wide = DTYPE_BYTES[sharding.reduce or ("bf16" if is_zero else "fp32")]
    often = times if sharding.zero_stage > 1 or sharding.syncs_every_batch else 1
    trips = often if gathers_weights(sharding) else often + 1  # an all-reduce also brings the sums back
    is_hybrid = 1 < sharding.num_shards < sharding.num_ranks
    rate, words = _ring(sharding, rates, sharding.num_shards if is_hybrid else sharding.num_ranks)
    seconds = trained * wide * trips / rate
    formula = f"{trained / 1e9:.3f} G x {wide} B x {trips} x {words}"
    if is_hybrid:  # the copies add up theirs: a node, or a group in it, sends all gradients and gets the sums
        rate, words = _ring(sharding, rates, sharding.num_ranks)
        seconds += trained * wide * 2 / rate
        formula += f", and x 2 x {words}"
    most = 0.0 if is_zero else OVERLAP * BACKWARD_SHARE * compute_seconds * often / times
    return [
        TimePart(
            name="reducing gradients",
            seconds=seconds,
            hidden_seconds=budget.hide(seconds, most),
            hangs_on=_way(sharding, rates, sharding.num_ranks),
            formula=formula,
            source=RING if not is_zero else f"{RING}; overlap_comm is false, so nothing hides it",
        )
    ]


def _weights_from_host(workload: Workload, rates: Links, budget: _Budget) -> list[TimePart]:
    sharding = workload.sharding
    if sharding.offload_parameters == "none":
        return []
    passes = 2 * workload.gradient_accumulation_steps
    moved = _weight_bytes(workload) / max(1, sharding.num_shards) * passes
    is_disk = sharding.offload_parameters == "nvme"
    rate = NVME_BYTES / sharding.ranks_per_node if is_disk else rates.to_host
    seconds = moved / rate
    hides = sharding.backend != "zero"
    source = (
        "torch 2.13, _fsdp_param.py: copied on a stream of its own"
        if hides
        else "DeepSpeed 0.19.8, partition_parameters.py: copied on the computing stream, so nothing hides it"
    )
    return [
        TimePart(
            name="weights from the disk" if is_disk else "weights from the host",
            seconds=seconds,
            hidden_seconds=budget.hide(seconds) if hides else 0.0,
            hangs_on="host",
            formula=f"{moved / 1e9:.1f} GB of this rank / {rate / 1e9:.1f} GB/s",
            source=source,
        )
    ]


def _host_update(workload: Workload, machine: Machine, rates: Links) -> list[TimePart]:
    """Return the optimizer's step on the host, with the way of gradients there and of weights back."""
    sharding = workload.sharding
    if sharding.offload_optimizer == "none":
        return []
    trained = num_trained(workload)
    per_node = trained * min(1.0, sharding.ranks_per_node / sharding.num_ranks)
    each = adam_seconds(machine.host.num_cpus, is_deepspeed=sharding.backend == "zero")
    trips = _trips(workload)
    moved = trained / max(1, sharding.num_shards) * 2 * trips
    seconds = per_node * each + moved / rates.to_host
    formula = (
        f"{per_node / 1e9:.3f} G parameters x {each * 1e9:.2f} s/G, "
        f"and {moved / 1e9:.2f} GB of this rank / {rates.to_host / 1e9:.1f} GB/s"
    )
    if sharding.offload_optimizer == "nvme":
        seconds += per_node * ADAM_BYTES / NVME_BYTES
        formula += (
            f", and {per_node * ADAM_BYTES / 1e9:.1f} GB to and from a drive at {NVME_BYTES / 1e9:.0f} GB/s"
        )
    source = (
        "arXiv 2101.06840, table 4; DeepSpeed issue 1635 (one thread); 0.19.8, stage3.py, partition_grads"
    )
    return [
        TimePart(name="update on the host", seconds=seconds, formula=formula, source=source, hangs_on="host")
    ]


def _trips(workload: Workload) -> int:
    """Return how often 16 bits of every trained parameter pass the bus in a step.

    DeepSpeed sums gradients on the device: those of earlier micro batches come back and go again. Weights
    that live on the device come back once.
    """
    sharding = workload.sharding
    again = 2 * (workload.gradient_accumulation_steps - 1) if sharding.backend == "zero" else 0
    comes_back = 1 if sharding.offload_parameters == "none" else 0
    return 1 + again + comes_back


def adam_seconds(num_cpus: int | None, *, is_deepspeed: bool) -> float:
    """Return how long the host takes to update one parameter.

    Args:
        num_cpus: Of the host, which ftwiz gives to the ranks in equal parts; ``None``: not known.
        is_deepspeed: DeepSpeed's Adam; torch's otherwise.
    """
    seconds = max(CPU_ADAM_SECONDS, CPU_ADAM_THREAD_SECONDS / (num_cpus or USUAL_THREADS))
    return seconds if is_deepspeed else seconds * TORCH_ADAM_RATIO
