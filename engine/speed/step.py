"""The time of an optimizer step: operations, memory traffic, communication, offload and the update.

Where a rate is not known it is assumed and said. Efficiencies are those that others measured, named beside
each; nothing is fitted to one source.
"""

import re
from dataclasses import dataclass, replace

from ..specs.machine import Device, Machine
from ..specs.model import ModelSpec
from ..specs.speed import Speed, TimePart
from ..specs.workload import DTYPE_BYTES, Workload
from . import flops
from .links import Links, links

MATMUL_SHARE = ((r"sm_80", 0.86), (r"sm_90", 0.80), (r"sm_10", 0.776), (r"gfx90a", 0.77), (r"gfx942", 0.60))
"""Best share of the peak that a matrix product reaches (stas00/ml-engineering, MAMF table)."""
OTHER_MATMUL_SHARE = 0.80
SHAPES_SHARE = 0.85
"""What a model's own shapes reach of the best shape (arXiv 2401.14489, figures 5 to 9)."""
MEMORY_SHARE = 0.7
"""Of the memory's rate that chains of small elementwise kernels reach; one large copy reaches 0.9."""
ISSUE_SECONDS = 9e-6
"""One operation of a transformers layer, issued from Python (measured on a 2-core host with tensors so small
that nothing else counts: 8.7 us forward, 7.0 backward, 10.8 forward with peft)."""
LAYER_OPERATIONS = (38, 67)
ADAPTER_OPERATIONS = (8.0, 8.4)
"""Forward and backward, of a Llama layer and of a LoRA layer under autocast (counted at the dispatcher with
transformers 5.23 and peft 0.21: 38 and 67, with seven adapters 94 and 126)."""
CPU_FLOPS = 20e9
"""Per core, float32, matrix products of torch on AVX2 (2 x 8 x about 2.5 GHz, half of it reached)."""
CPU_ADAM_SECONDS = 0.25e-9
"""Per parameter and node: DeepSpeed's CPU Adam takes 0.25 s for 1e9 (ZeRO-Offload, arXiv 2101.06840,
table 4)."""
NVME_BYTES = 3e9
"""Per second and node, reading and writing at once, one drive; unless it was measured."""
UNCERTAINTY = 1.6


@dataclass(frozen=True, slots=True)
class _Compute:
    seconds: float
    parts: tuple[TimePart, ...]


def predict(workload: Workload, machine: Machine) -> Speed | None:
    """Return how long a step of a workload takes on a machine; ``None`` when the model's shape is not known.

    Args:
        workload: What is trained and how; its sharding says over how many ranks.
        machine: Rates come from its devices and links; of several equal devices the first counts.
    """
    if not flops.num_multiplied(workload.model):
        return None
    rates = links(machine)
    compute = _compute(workload, machine)
    parts = list(compute.parts)
    parts += _communication(workload, machine, rates, compute.seconds)
    parts += _offload(workload, rates, compute.seconds)
    parts += _update(workload, machine)
    ranks = workload.sharding.num_ranks
    tokens = workload.sequence_tokens * workload.micro_batch_size * workload.gradient_accumulation_steps
    notes = list(rates.notes) if ranks > 1 or workload.sharding.offload_optimizer != "none" else []
    if machine.devices and machine.devices[0].dense_bf16_flops_per_second is None:
        notes.append(
            f"the speed of {machine.devices[0].name} is not in the catalogue: 100 TFLOP/s is assumed"
        )
    return Speed(
        parts=tuple(parts),
        tokens_per_step=tokens * ranks // workload.sharding.context_parallel,
        uncertainty=UNCERTAINTY,
        basis="published step times of Qwen, Answer.AI, torchtitan and the 70B FSDP recipe lie within it",
        notes=tuple(notes),
    )


def _compute(workload: Workload, machine: Machine) -> _Compute:
    """Return the computing of all micro batches of one rank."""
    times = workload.gradient_accumulation_steps
    tokens = workload.tokens
    if not machine.devices:
        return _on_cpu(workload, machine, tokens * times)
    device = machine.devices[0]
    count = flops.per_token(workload)
    rate = _matmul_rate(device, workload)
    products = count.total * tokens / rate / max(1, workload.sharding.tensor_parallel)
    traffic = _traffic_bytes(workload) * tokens / _memory_rate(device)
    unpacked = _unpacking_bytes(workload) / _memory_rate(device)
    issued = _issue_seconds(workload)
    waiting = max(0.0, issued - products - traffic - unpacked)
    source = "Kaplan et al. 2020; stas00/ml-engineering (MAMF)"
    parts = [
        TimePart(
            name="matrix products",
            seconds=products * times,
            formula=f"{count.total / 1e9:.1f} GFLOP x {tokens * times} tokens / {rate / 1e12:.0f} TFLOP/s",
            source=source,
        ),
        TimePart(
            name="elementwise operations",
            seconds=traffic * times,
            formula=f"{_traffic_bytes(workload) / 1e6:.1f} MB x {tokens * times} tokens"
            f" / {_memory_rate(device) / 1e9:.0f} GB/s",
            source="reads and writes of transformers' layers, one by one",
        ),
    ]
    if unpacked:
        parts.append(
            TimePart(
                name="unpacking quantized weights",
                seconds=unpacked * times,
                formula=f"{_unpacking_bytes(workload) / 1e9:.1f} GB x {times}"
                f" / {_memory_rate(device) / 1e9:.0f} GB/s",
                source="bitsandbytes 0.50 MatMul4Bit: read, write and read again in every pass",
            )
        )
    if waiting:
        parts.append(
            TimePart(
                name="waiting for Python",
                seconds=waiting * times,
                formula=f"{issued:.3f} s to issue the operations of a micro batch x {times}, less the above",
                source="9 us per operation; few tokens leave a fast device idle",
            )
        )
    return _Compute((products + traffic + unpacked + waiting) * times, tuple(parts))


def _on_cpu(workload: Workload, machine: Machine, tokens: int) -> _Compute:
    cores = machine.host.num_cpus or 1
    total = flops.per_token(workload).total
    seconds = total * tokens / (cores * CPU_FLOPS)
    formula = f"{total / 1e9:.2f} GFLOP x {tokens} tokens / ({cores} cores x {CPU_FLOPS / 1e9:.0f} GFLOP/s)"
    part = TimePart(name="matrix products", seconds=seconds, formula=formula, source="AVX2, half of the peak")
    return _Compute(seconds, (part,))


def _matmul_rate(device: Device, workload: Workload) -> float:
    peak = device.dense_bf16_flops_per_second or 100e12
    if workload.autocast is None and workload.weights == "fp32" and workload.quantization is None:
        peak /= 8  # float32 on tensor cores is TF32 at best: half of bf16, and off by default
    shares = (share for pattern, share in MATMUL_SHARE if re.match(pattern, device.architecture or ""))
    return peak * next(shares, OTHER_MATMUL_SHARE) * SHAPES_SHARE


def _memory_rate(device: Device) -> float:
    return (device.bandwidth_bytes_per_second or 500e9) * MEMORY_SHARE


def _traffic_bytes(workload: Workload) -> float:
    """Bytes that a token's elementwise operations read and write in all passes.

    Per layer, forward, bf16: two RMSNorms of six kernels with float32 inside 2 x 32 h, two residual additions
    12 h, rotary embedding 14 (A + K), gate 10 f (transformers 5.23, modeling_llama.py, kernel by kernel);
    backward twice that; adapters in float32 cast their input and add their output, 20 h and 6 f.
    """
    spec = workload.model
    h, layers = spec.hidden_size or 0, spec.num_layers or 0
    head = spec.head_dim or (h // spec.num_heads if spec.num_heads else 0)
    heads = (spec.num_heads or 0) + (spec.num_kv_heads or spec.num_heads or 0)
    width = _mlp_width(spec)
    layer = 76 * h + 14 * heads * head + 10 * width
    if workload.method == "lora":
        layer += 20 * h + 6 * width
    if workload.compiles:
        layer *= 0.4  # fused: every chain reads and writes once (torchtitan, 5762 against 6667 tokens/s)
    passes = 3.0 + flops.CHECKPOINTED[workload.checkpointing]
    logits = {"fused-tiles": 0.0, "liger": 8.0, "cce": 0.0}.get(workload.loss, 30.0)
    return layer * layers * passes + logits * (spec.vocab_size or 0)


def _mlp_width(spec: ModelSpec) -> float:
    if spec.experts:
        active = spec.experts.intermediate_size * spec.experts.num_experts_per_token
        return active + spec.experts.shared_intermediate_size
    return spec.intermediate_size or 4 * (spec.hidden_size or 0)


def _unpacking_bytes(workload: Workload) -> float:
    """Bytes of a micro batch for making 16-bit weights of packed ones: in each pass read, write, read."""
    if workload.quantization is None or workload.model.parameters is None:
        return 0.0
    packed = sum(
        linear.num_weights for linear in workload.model.parameters.linears if linear.path != "lm_head"
    )
    passes = 2 + flops.CHECKPOINTED[workload.checkpointing]
    return packed * passes * (workload.quantization.bits / 8 + 2 + 2)


def _issue_seconds(workload: Workload) -> float:
    """Return how long Python takes to issue the operations of a micro batch."""
    layers = workload.model.num_layers or 0
    adapters = 7 if workload.method == "lora" else 0
    forward, backward = (
        of_layer + adapters * of_adapter
        for of_layer, of_adapter in zip(LAYER_OPERATIONS, ADAPTER_OPERATIONS, strict=True)
    )
    again = 1 + flops.CHECKPOINTED[workload.checkpointing]
    return layers * (forward * again + backward) * ISSUE_SECONDS


def _communication(
    workload: Workload, machine: Machine, rates: Links, compute_seconds: float
) -> list[TimePart]:
    sharding = workload.sharding
    if sharding.num_ranks == 1 or workload.model.num_parameters is None:
        return []
    trained = _trained(workload)
    wide = DTYPE_BYTES[sharding.reduce or ("bf16" if sharding.backend == "zero" else "fp32")]
    gathers = sharding.backend in {"fsdp", "fsdp1"} or sharding.zero_stage == 3  # noqa: PLR2004 - the stage
    times = workload.gradient_accumulation_steps
    volume = trained * wide * (times if gathers or sharding.zero_stage == 2 else 1)  # noqa: PLR2004 - the stage
    words = f"gradients of {trained / 1e9:.2f} G parameters x {wide} B"
    if gathers and sharding.num_shards > 1:
        passes = 2 if sharding.reshard_after_forward else 1
        weights = _gathered_bytes(workload)
        volume += weights * passes * times
        words = f"{weights / 1e9:.1f} GB of weights x {passes * times} and {words}"
    else:
        volume *= 2  # an all-reduce is a reduce-scatter and an all-gather
        words = f"2 x {words}"
    seconds, rate_words = _sending(workload, machine, rates, volume=volume, gradients=trained * wide)
    return [
        TimePart(
            name="communication",
            seconds=seconds,
            hidden_seconds=min(seconds, 0.8 * compute_seconds),  # the first and last layer wait
            formula=f"({words}) / {rate_words}",
            source="ring collectives: every rank sends (N - 1)/N of the volume; arXiv 1910.02054, section 7",
        )
    ]


def _sending(
    workload: Workload, machine: Machine, rates: Links, *, volume: float, gradients: float
) -> tuple[float, str]:
    """Return the time of a step's traffic, by the links that it passes, and what they give.

    Args:
        workload: Its sharding says what of it leaves a node.
        machine: One node, or several.
        rates: Of the links.
        volume: Bytes that the ranks which hold one copy together exchange.
        gradients: Bytes of all gradients in the format that they are reduced in.
    """
    sharding = workload.sharding
    nodes = max(1, sharding.num_ranks // sharding.ranks_per_node) if machine.num_nodes > 1 else 1
    is_hybrid = 1 < sharding.num_shards <= sharding.ranks_per_node and nodes > 1
    ranks = sharding.num_shards if is_hybrid else sharding.num_ranks
    inside = volume * (ranks - 1) / ranks / rates.between_devices
    words = f"{rates.between_devices / 1e9:.0f} GB/s ({rates.text})"
    if nodes == 1:
        return inside, words
    if is_hybrid:
        # Only gradients are shared by the copies: reduced and sent back over the network of each node.
        across = 2 * gradients * (nodes - 1) / nodes / rates.between_nodes
        return inside + across, f"{words}, and the gradients of {nodes} copies between nodes"
    across = volume / rates.between_nodes
    return (
        (across, f"{rates.between_nodes / 1e9:.1f} GB/s between nodes")
        if across > inside
        else (inside, words)
    )


def _trained(workload: Workload) -> float:
    total = workload.model.num_parameters or 0
    if workload.method == "full":
        return total
    if workload.method == "freeze" and workload.model.num_layers:
        return total * (workload.num_trainable_layers or 1) / workload.model.num_layers
    return flops.num_adapter(workload.model, workload.adapter)


def _gathered_bytes(workload: Workload) -> float:
    total = workload.model.num_parameters or 0
    if workload.quantization is None:
        return total * 2.0
    packed = _unpacking_bytes(replace(workload, checkpointing="none")) / (
        2 * (workload.quantization.bits / 8 + 4)
    )
    return packed * workload.quantization.bits / 8 * 1.03 + (total - packed) * 2.0


def _offload(workload: Workload, rates: Links, compute_seconds: float) -> list[TimePart]:
    sharding = workload.sharding
    parts = []
    times, shards = workload.gradient_accumulation_steps, max(1, sharding.num_shards)
    if sharding.offload_parameters != "none":
        passes = 2 * times
        moved = _gathered_bytes(workload) / shards * passes
        rate = rates.to_host if sharding.offload_parameters == "cpu" else NVME_BYTES / sharding.ranks_per_node
        seconds = moved / rate
        parts.append(
            TimePart(
                name="weights from the host",
                seconds=seconds,
                hidden_seconds=min(seconds, 0.8 * compute_seconds),
                formula=f"{moved / 1e9:.1f} GB of this rank / {rate / 1e9:.1f} GB/s",
                source="each pass copies the rank's shard (DeepSpeed ZeRO-Infinity, arXiv 2104.07857)",
            )
        )
    if sharding.offload_optimizer != "none":
        trained = _trained(workload)
        per_node = trained * min(1.0, sharding.ranks_per_node / sharding.num_ranks)
        seconds = per_node * CPU_ADAM_SECONDS + trained / shards * 4 / rates.to_host
        formula = (
            f"{per_node / 1e9:.2f} G parameters x 0.25 s/G, and {trained / shards * 4 / 1e9:.2f} GB over PCIe"
        )
        if sharding.offload_optimizer == "nvme":
            seconds += per_node * 24 / NVME_BYTES
            formula += (
                f", and {per_node * 24 / 1e9:.1f} GB to and from a drive at {NVME_BYTES / 1e9:.0f} GB/s"
            )
        source = "DeepSpeed CPU Adam, arXiv 2101.06840, table 4"
        parts.append(TimePart(name="update on the host", seconds=seconds, formula=formula, source=source))
    return parts


def _update(workload: Workload, machine: Machine) -> list[TimePart]:
    if workload.sharding.offload_optimizer != "none":
        return []
    shards = (
        workload.sharding.num_shards
        if workload.sharding.zero_stage or "fsdp" in workload.sharding.backend
        else 1
    )
    trained = _trained(workload) / max(1, shards)
    rate = _memory_rate(machine.devices[0]) if machine.devices else 10e9
    seconds = trained * 28 / rate
    formula = f"{trained / 1e9:.3f} G parameters x 28 B / {rate / 1e9:.0f} GB/s"
    source = "AdamW reads weight, gradient and two moments and writes three of them, float32"
    return [TimePart(name="update", seconds=seconds, formula=formula, source=source)]
