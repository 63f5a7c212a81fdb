"""The time of an optimizer step: operations, memory traffic, communication, offload and the update.

Efficiencies are those that others measured, with the source beside each, or they are assumed and say so, with
how far they may be off. None is fitted to the step times that the whole is held against (tests/speed).
"""

import re
from collections.abc import Iterable, Iterator

from ..specs.machine import CPU, Device, Machine
from ..specs.model import ModelSpec
from ..specs.speed import Speed, TimePart
from ..specs.workload import Workload
from . import flops
from .links import links
from .moving import USUAL_THREADS, moving_parts, num_trained

MATMUL_SHARE = ((r"sm_80", 0.869), (r"sm_90", 0.803), (r"sm_10", 0.776), (r"gfx942", 0.514))
"""Best share of the peak that a matrix product reaches: A100 271.2 of 312, H100 794.5 of 989, B200 1745 of
2250, MI300X 668.4 of 1300 TFLOP/s (stas00/ml-engineering 744d01e, compute/accelerator, MAMF table)."""
OTHER_MATMUL_SHARE = 0.80
"""Of what is not in that table. Assumed, +-0.1: all of NVIDIA's in it reach 0.73 to 0.87."""
SHAPES_SHARE = 0.85
"""What a model's own shapes reach of the best shape. Assumed, +-0.1, from arXiv 2401.14489, which shows how
far shapes lie apart and gives no one number."""
MEMORY_SHARE = 0.7
"""Of the memory's rate that chains of small elementwise kernels reach. Assumed, +-0.15; one large copy
reaches 0.9."""
ISSUE_SECONDS = 9e-6
"""One operation of a transformers layer, issued from Python (measured on a 2-core host with tensors so small
that nothing else counts: 8.7 us forward, 7.0 backward, 10.8 forward with peft)."""
LAYER_OPERATIONS = (38, 67)
ADAPTER_OPERATIONS = (8.0, 8.4)
"""Forward and backward, of a Llama layer and of a LoRA layer under autocast (counted at the dispatcher with
transformers 5.23 and peft 0.21: 38 and 67, with seven adapters 94 and 126)."""
CPU_FLOPS = 20e9
"""Per core, float32, matrix products of torch. Assumed, within a factor of 3: AVX2 does 2 x 2 x 8 operations
at about 2.5 GHz, a quarter of it reached. The first run here corrects it."""
CPU_UPDATE_BYTES = 10e9
"""Per second, one process that updates on the CPU. Assumed, within a factor of 3."""
UNKNOWN_FLOPS = 100e12
UNKNOWN_BYTES = 500e9
"""Of a card that is not in the catalogue, which the notes then say."""
ADAM_TRAFFIC_BYTES = 28
FLOAT32_SLOWER = 8
"""Times slower than bfloat16: TF32 would be 2, and it is off by default (torch 2.13, ``allow_tf32``). A100:
19.5 against 312 TFLOP/s is 16, H100: 67 against 989 is 15, RTX 4090: 82.6 against 165 is 2; between them."""
UNCERTAINTY = 1.6


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
    parts = [
        *compute,
        *moving_parts(workload, machine, rates, sum(part.seconds for part in compute)),
        *_update(workload, machine),
    ]
    tokens = workload.sequence_tokens * workload.micro_batch_size * workload.gradient_accumulation_steps
    return Speed(
        parts=tuple(parts),
        tokens_per_step=tokens * workload.sharding.num_ranks // workload.sharding.context_parallel,
        uncertainty=UNCERTAINTY,
        basis="published step times of Qwen, Answer.AI, torchtitan, ZeRO with offload, the 70B FSDP recipe",
        notes=tuple(_notes(workload, machine, rates.notes)),
    )


def _notes(workload: Workload, machine: Machine, of_links: Iterable[str]) -> Iterator[str]:
    sharding = workload.sharding
    if (
        sharding.num_ranks > 1
        or sharding.offload_optimizer != "none"
        or sharding.offload_parameters != "none"
    ):
        yield from of_links
    if machine.devices and machine.devices[0].dense_bf16_flops_per_second is None:
        name = machine.devices[0].name
        yield f"the speed of {name} is not in the catalogue: {UNKNOWN_FLOPS / 1e12:.0f} TFLOP/s is assumed"
    if machine.host.num_cpus is None and (not machine.devices or sharding.offload_optimizer != "none"):
        yield f"{USUAL_THREADS} CPU cores are assumed"


def _compute(workload: Workload, machine: Machine) -> tuple[TimePart, ...]:
    """Return the computing of all micro batches of one rank."""
    times = workload.gradient_accumulation_steps
    tokens = workload.tokens
    if workload.device_kind == CPU or not machine.devices:
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
    return tuple(parts)


def _on_cpu(workload: Workload, machine: Machine, tokens: int) -> tuple[TimePart, ...]:
    """Return the computing on a rank's cores; while Python issues operations none of them computes."""
    cores = max(1, (machine.host.num_cpus or USUAL_THREADS) // workload.sharding.ranks_per_node)
    total = flops.per_token(workload).total
    formula = f"{total / 1e9:.2f} GFLOP x {tokens} tokens / ({cores} cores x {CPU_FLOPS / 1e9:.0f} GFLOP/s)"
    times, issued = workload.gradient_accumulation_steps, _issue_seconds(workload)
    return (
        TimePart(
            name="matrix products",
            seconds=total * tokens / (cores * CPU_FLOPS),
            formula=formula,
            source="AVX2, a quarter of the peak",
        ),
        TimePart(
            name="waiting for Python",
            seconds=issued * times,
            formula=f"{issued:.4f} s to issue the operations of a micro batch x {times}",
            source="9 us per operation",
        ),
    )


def _matmul_rate(device: Device, workload: Workload) -> float:
    peak = device.dense_bf16_flops_per_second or UNKNOWN_FLOPS
    if workload.autocast is None and workload.weights == "fp32" and workload.quantization is None:
        peak /= FLOAT32_SLOWER
    shares = (share for pattern, share in MATMUL_SHARE if re.match(pattern, device.architecture or ""))
    return peak * next(shares, OTHER_MATMUL_SHARE) * SHAPES_SHARE


def _memory_rate(device: Device) -> float:
    return (device.bandwidth_bytes_per_second or UNKNOWN_BYTES) * MEMORY_SHARE


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
    if workload.quantization is None:
        return 0.0
    passes = 2 + flops.CHECKPOINTED[workload.checkpointing]
    return flops.num_packed(workload.model) * passes * (workload.quantization.bits / 8 + 2 + 2)


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


def _update(workload: Workload, machine: Machine) -> list[TimePart]:
    if workload.sharding.offload_optimizer != "none":
        return []
    shards = (
        workload.sharding.num_shards
        if workload.sharding.zero_stage or "fsdp" in workload.sharding.backend
        else 1
    )
    trained = num_trained(workload) / max(1, shards)
    is_on_cpu = workload.device_kind == CPU or not machine.devices
    rate = CPU_UPDATE_BYTES if is_on_cpu else _memory_rate(machine.devices[0])
    seconds = trained * ADAM_TRAFFIC_BYTES / rate
    formula = f"{trained / 1e9:.3f} G parameters x {ADAM_TRAFFIC_BYTES} B / {rate / 1e9:.0f} GB/s"
    source = "AdamW reads weight, gradient and two moments and writes three of them, float32"
    return [TimePart(name="update", seconds=seconds, formula=formula, source=source)]
