"""Incompatibilities that several engines share."""

from ..specs.job import Job, PlanPins
from ..specs.machine import Device
from ..specs.plan import Rule, WayRule


def offloads_to(pins: PlanPins, *places: str) -> bool:
    """Whether something is pinned to live in one of these places."""
    return pins.offload_optimizer in places or pins.offload_parameters in places


def _whole_devices(job: Job, devices: tuple[Device, ...]) -> bool:
    return job.plan.num_processes != 1 and any(device.partition is not None for device in devices)


WHOLE_DEVICES = Rule(
    broken=_whole_devices,
    text="ranks need whole devices: a process sees one slice of a partitioned card",
    source="NVIDIA Multi-Instance GPU user guide, on CUDA device enumeration",
)
OWN_MEMORY = Rule(
    broken=lambda job, devices: (
        offloads_to(job.plan, "cpu") and any(device.unified_memory for device in devices)
    ),
    text="device and host share one memory here, so offloading to the host saves nothing",
    source="definition of unified memory",
)
NOT_APPLE = Rule(
    broken=lambda _job, devices: any(device.kind == "mps" for device in devices),
    text="it does not train on Apple's GPU",
    source="accelerate 1.15, state.py: no distributed type for mps",
)


def _packs(job: Job) -> bool:
    return job.plan.quantization in {"nf4", "int8"}


PACKED_KINDS = frozenset({"cuda", "xpu", "hpu", "cpu"})
"""Devices for which bitsandbytes 0.50.2 has kernels, and transformers 5.23 puts packed weights on them."""
PACKING_RULES = (
    Rule(
        broken=lambda job, _devices: _packs(job) and not job.method.adds_weights,
        text="packed weights cannot be trained; method.kind lora trains matrices beside them",
        source="bitsandbytes 0.50.2, nn/modules.py: 4-bit weights have no gradient",
    ),
    Rule(
        broken=lambda job, devices: _packs(job) and any(device.kind == "npu" for device in devices),
        text="bitsandbytes has no kernels for Ascend; plan.quantization none trains there",
        source="bitsandbytes 0.50.2, backends/: cpu, cuda, hpu, mps, xpu",
    ),
    Rule(
        broken=lambda job, devices: _packs(job) and any(device.kind == "mps" for device in devices),
        text="packed weights would stay on the CPU there; plan.quantization none trains on Apple's GPU",
        source="transformers 5.23, quantizer_bnb_4bit.py, update_device_map: no mps",
    ),
    Rule(
        broken=lambda job, devices: (
            _packs(job) and any(device.kind not in PACKED_KINDS for device in devices)
        ),
        text="bitsandbytes has no kernels for these devices; plan.quantization none trains there",
        source="bitsandbytes 0.50.2, backends/: cpu, cuda, hpu, mps, xpu",
    ),
)
"""When ``plan.quantization`` cannot be what it asks for, whatever the engine."""
WHOLE_8_BIT = Rule(
    broken=lambda job, _devices: job.plan.quantization == "int8",
    text="8-bit weights cannot be split over ranks; plan.quantization nf4 can",
    source="peft 0.21, docs: fsdp.md and deepspeed.md; int8 is no float type that FSDP can cut",
)
WHOLE = frozenset({
    "gptq", "awq", "aqlm", "hqq", "eetq", "quanto", "vptq", "spqr", "auto-round", "higgs", "bitnet",
    "bitsandbytes-8bit", "bitsandbytes-4bit",
})  # fmt: skip
"""Ways of packing whose weights nobody can cut; of bitsandbytes those that are not kept in a float type."""
WHOLE_AS_PUBLISHED = WayRule(
    broken=lambda way, model: way.splits_weights and model.published_packing in WHOLE,
    text="the model was published packed, and such weights cannot be split over ranks",
    hint="take the unpacked model with plan.quantization nf4, or plan.backend ddp",
    source="peft 0.21, docs: fsdp.md and deepspeed.md; accelerate 1.15, fsdp2_prepare_model",
)


def _asks_reentrant(job: Job) -> bool:
    names = ("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs")
    asked = [job.train.extra.get(name) for name in names]
    return any(isinstance(options, dict) and options.get("use_reentrant") is True for options in asked)


NOT_REENTRANT = Rule(
    broken=lambda job, _devices: _asks_reentrant(job),
    text="reentrant checkpointing hides backward passes from it; take use_reentrant out",
    source="torch 2.13, utils/checkpoint.py, and its notes on DistributedDataParallel",
)
