"""The plan for a model whose shape is not known: no choice rests on bytes, and the plan says so."""

from ..backends import BACKENDS, backend, visible_environment
from ..specs.job import Job, PlanPins
from ..specs.machine import CPU, Device, Machine
from ..specs.model import ModelSpec
from ..specs.plan import Backend, Plan, Reason, Rejected, Strategy
from .choices import (
    broken_rule,
    check_engine_pins,
    check_split,
    choose_devices,
    choose_num_nodes,
    choose_num_processes,
    choose_precision,
    length_reasons,
    micro_batches,
    of_kind,
    sharding_text,
    usable_devices,
)
from .packing import choose_packings, pinned_reason

AUTOMATIC: frozenset[Backend] = frozenset({"single", "ddp"})
"""Engines that are chosen unasked. What the others save is memory, which is not known here."""
MICRO_BATCH_TOKENS = 8192
"""Most tokens (micro batch x longest sequence) that a rank takes at once while memory is not estimated."""


def careful_plan(job: Job, model: ModelSpec | None, machine: Machine) -> Plan:
    """Choose the strategy where memory cannot be estimated: wherever bytes would decide, the careful side.

    Args:
        job: What the user wants and pins.
        model: Shape of the model, or ``None`` when only the hub knows it.
        machine: What is in the box.

    Raises:
        BadInput: The pinned choices cannot be combined.
        Refused: The machine does not have what is pinned.
    """
    devices = usable_devices(job.plan, machine)
    kind = devices[0].kind if devices else CPU
    name, backend_reason, rejected = _choose_backend(job, devices, machine.num_nodes)
    num_processes, processes_reason = choose_num_processes(job, name, devices, machine.num_nodes)
    num_nodes = choose_num_nodes(num_processes, devices, machine.num_nodes)
    chosen, device_reasons = choose_devices(devices, num_processes // num_nodes, of_kind(machine, kind))
    packings, _ = choose_packings(job, devices)
    check_split(job, num_processes)
    micro_batch, micro_reason = _choose_micro_batch(job, num_processes)
    checkpointing, checkpointing_reason = _choose_checkpointing(job.plan, kind)
    precision, precision_reason = choose_precision(job.plan, kind, chosen)
    base = Strategy(
        backend=name,
        device_kind=kind,
        num_processes=num_processes,
        micro_batch_size=micro_batch,
        gradient_accumulation_steps=job.train.global_batch_size // num_processes // micro_batch,
        gradient_checkpointing=checkpointing,
        mixed_precision=precision,
        quantization=packings[0],
        num_nodes=num_nodes,
    )
    strategy, sharding_reasons = _choose_sharding(base, job.plan)
    reasons = [backend_reason, processes_reason, *sharding_reasons, *device_reasons, micro_reason]
    reasons += [checkpointing_reason, precision_reason, *pinned_reason(strategy), *length_reasons(job, model)]
    return Plan(
        strategy=strategy,
        device_indices=tuple(device.index for device in chosen),
        environment=visible_environment(chosen, of_kind(machine, kind)),
        reasons=tuple(reasons),
        rejected=rejected,
    )


def _choose_backend(
    job: Job, devices: tuple[Device, ...], num_nodes: int
) -> tuple[Backend, Reason, tuple[Rejected, ...]]:
    pins = job.plan
    check_engine_pins(pins)
    broken = {
        candidate.NAME: rule
        for candidate in BACKENDS
        if candidate.NAME in AUTOMATIC | {pins.backend}
        and (rule := broken_rule(candidate, job, devices * num_nodes))
    }
    if pins.backend != "auto":
        return pins.backend, Reason(about="backend", text="pinned in the job"), ()
    rejected = [Rejected(choice=name, text=rule.text, source=rule.source) for name, rule in broken.items()]
    wanted = (len(devices) or 1) * num_nodes if pins.num_processes == "auto" else pins.num_processes
    if wanted > 1 and "ddp" not in broken:
        if "single" not in broken:
            text = f"would use 1 of {wanted} devices"
            rejected.append(Rejected(choice="single", text=text))
        where = (
            "one on each device" if devices else "one on each node" if num_nodes > 1 else "sharing the CPUs"
        )
        text = f"ranks train side by side, {where}, and average their gradients"
        return "ddp", Reason(about="backend", text=text), tuple(rejected)
    if "ddp" not in broken:
        text = "one process uses all CPU cores already; ranks would only share them"
        rejected.append(Rejected(choice="ddp", text=text))
    text = (
        "one device, so nothing is to be shared"
        if devices
        else "no accelerator: one process on all CPU cores"
    )
    return "single", Reason(about="backend", text=text), tuple(rejected)


def _choose_sharding(base: Strategy, pins: PlanPins) -> tuple[Strategy, list[Reason]]:
    """Take the engine's most careful way that offloads nothing unasked: it splits and drops the most."""
    offered = backend(base.backend).strategies(base, pins)
    chosen = min(reversed(offered), key=lambda way: way.num_offloads)
    if base.backend not in {"zero", "fsdp"}:
        return chosen, []
    text = sharding_text(chosen)
    is_pinned = len(offered) == 1
    why = "pinned in the job" if is_pinned else "the careful side while memory is not estimated"
    return chosen, [Reason(about="sharding", text=f"{text}: {why}")]


def _choose_micro_batch(job: Job, num_processes: int) -> tuple[int, Reason]:
    per_rank = job.train.global_batch_size // num_processes
    pinned = job.plan.micro_batch_size
    if pinned != "auto":
        return pinned, Reason(about="micro_batch_size", text="pinned in the job")
    most = max(1, MICRO_BATCH_TOKENS // job.train.max_length)
    sizes = micro_batches(job, num_processes)
    micro_batch = max((size for size in sizes if size <= most), default=sizes[0])
    accumulation = per_rank // micro_batch
    often = f", {accumulation} times a step" if accumulation > 1 else ""
    whole = f"the global batch of {job.train.global_batch_size}"
    text = f"{micro_batch} x {job.train.max_length} tokens at once{often}: {whole}"
    source = f"at most {MICRO_BATCH_TOKENS} tokens at once while memory is not estimated"
    return micro_batch, Reason(about="micro_batch_size", text=text, source=source)


def _choose_checkpointing(pins: PlanPins, kind: str) -> tuple[bool, Reason]:
    if pins.gradient_checkpointing != "auto":
        return pins.gradient_checkpointing, Reason(about="gradient_checkpointing", text="pinned in the job")
    if kind == CPU:
        return False, Reason(
            about="gradient_checkpointing", text="host memory is large and recomputing is slow"
        )
    text = "the careful side while memory is not estimated: a third slower, far less memory"
    return True, Reason(
        about="gradient_checkpointing", text=text, source="Chen et al. 2016, arXiv 1604.06174"
    )
