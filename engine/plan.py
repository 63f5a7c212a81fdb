"""Decides how a machine does a job and says why: facts go in, a plan comes out.

Memory is not estimated here yet, so no choice rests on bytes: where bytes would decide, the plan takes the
careful side and says so.
"""

from .backends import BACKENDS, ENGINE_PINS, backend, can_be_shown, visible_environment
from .errors import BadInput, Refused
from .specs.job import Job, PlanPins
from .specs.machine import CPU, Device, Machine
from .specs.model import ModelSpec
from .specs.plan import Backend, Plan, Precision, Reason, Rejected, Strategy

AUTOMATIC: frozenset[Backend] = frozenset({"single", "ddp"})
"""Engines that are chosen unasked. What the others save is memory, which is not estimated yet."""
MICRO_BATCH_TOKENS = 8192
"""Most tokens (micro batch x longest sequence) that a rank takes at once while memory is not estimated."""

ZERO_SPLITS = (
    "nothing",
    "optimizer states",
    "optimizer states and gradients",
    "optimizer states, gradients and weights",
)
"""By stage. Source: Rajbhandari et al. 2020, arXiv 1910.02054."""


def recommend(job: Job, model: ModelSpec | None, machine: Machine) -> Plan:
    """Choose the strategy for a job on a machine.

    Args:
        job: What the user wants and pins.
        model: Shape of the model, or ``None`` when only the hub knows it.
        machine: What is in the box.

    Raises:
        BadInput: The pinned choices cannot be combined.
        Refused: The machine does not have what is pinned.
    """
    devices = _devices(job.plan, machine)
    kind = devices[0].kind if devices else CPU
    name, backend_reason, rejected = _choose_backend(job, devices)
    num_processes, processes_reason = _choose_num_processes(job, name, devices)
    chosen, device_reasons = _choose_devices(devices, num_processes, _of_kind(machine, kind))
    micro_batch, micro_reason = _choose_micro_batch(job, num_processes)
    checkpointing, checkpointing_reason = _choose_checkpointing(job.plan, kind)
    precision, precision_reason = _choose_precision(job.plan, kind, chosen)
    base = Strategy(
        backend=name,
        device_kind=kind,
        num_processes=num_processes,
        micro_batch_size=micro_batch,
        gradient_accumulation_steps=job.train.global_batch_size // num_processes // micro_batch,
        gradient_checkpointing=checkpointing,
        mixed_precision=precision,
    )
    strategy, sharding_reasons = _choose_sharding(base, job.plan)
    reasons = [backend_reason, processes_reason, *sharding_reasons, *device_reasons, micro_reason]
    reasons += [checkpointing_reason, precision_reason, *_length_reasons(job, model)]
    return Plan(
        strategy=strategy,
        device_indices=tuple(device.index for device in chosen),
        environment=visible_environment(chosen, _of_kind(machine, kind)),
        reasons=tuple(reasons),
        rejected=rejected,
    )


def _devices(pins: PlanPins, machine: Machine) -> tuple[Device, ...]:
    kind = machine.device_kind if pins.device == "auto" else pins.device
    if kind == CPU:
        return ()
    there = _of_kind(machine, kind)
    usable = tuple(device for device in there if _is_usable(device))
    if not there:
        raise Refused(
            f"plan.device is {pins.device}, and this machine has no such device",
            hint="set plan.device to auto, or see what is there with: ftwiz devices",
        )
    if not usable:
        raise Refused(
            f"none of the {kind} devices of this machine can be trained on",
            hint="see why with: ftwiz devices; or train on the CPU: --set plan.device=cpu",
        )
    return usable


def _of_kind(machine: Machine, kind: str) -> tuple[Device, ...]:
    return tuple(device for device in machine.devices if device.kind == kind)


def _is_usable(device: Device) -> bool:
    """Whether training can run on it: not fallen off the bus, and not split into slices."""
    return not device.is_lost and not device.partitioned


def _choose_backend(job: Job, devices: tuple[Device, ...]) -> tuple[Backend, Reason, tuple[Rejected, ...]]:
    pins = job.plan
    _check_engine_pins(pins)
    broken = {
        candidate.NAME: rule
        for candidate in BACKENDS
        if candidate.NAME in AUTOMATIC | {pins.backend}
        for rule in reversed(candidate.RULES)  # the first broken rule speaks
        if rule.broken(pins, devices)
    }
    if pins.backend != "auto":
        if rule := broken.get(pins.backend):
            hint = "change what does not fit, or set plan.backend to auto"
            raise BadInput(f"plan.backend is {pins.backend}: {rule.text}", hint=hint)
        return pins.backend, Reason(about="backend", text="pinned in the job"), ()
    rejected = [Rejected(choice=name, text=rule.text, source=rule.source) for name, rule in broken.items()]
    wanted = len(devices) or 1 if pins.num_processes == "auto" else pins.num_processes
    if wanted > 1 and "ddp" not in broken:
        if "single" not in broken:
            text = f"would use 1 of {wanted} devices"
            rejected.append(Rejected(choice="single", text=text))
        where = "one on each device" if devices else "sharing the CPUs"
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


def _check_engine_pins(pins: PlanPins) -> None:
    """Refuse a pin that the pinned engine does not know, or that no engine is pinned for.

    Raises:
        BadInput: There is one.
    """
    unpinned = PlanPins()
    pinned = [name for name in sorted(ENGINE_PINS) if getattr(pins, name) != getattr(unpinned, name)]
    known = frozenset[str]() if pins.backend == "auto" else backend(pins.backend).PINS
    for name in pinned:
        if name not in known:
            takers = " or ".join(engine.NAME for engine in BACKENDS if name in engine.PINS)
            raise BadInput(
                f"plan.{name} is for plan.backend {takers}, and plan.backend is {pins.backend}",
                hint=f"set plan.backend to {takers}, or take plan.{name} out",
            )


def _choose_sharding(base: Strategy, pins: PlanPins) -> tuple[Strategy, list[Reason]]:
    """Take the engine's most careful way that offloads nothing unasked: it splits and drops the most."""
    size = pins.shard_size
    if size != "auto" and base.num_processes % size:
        raise BadInput(
            f"plan.shard_size {size} does not divide the {base.num_processes} ranks",
            hint=f"set it to one of {_divisors(base.num_processes)[1:]}, or to auto",
        )
    offered = backend(base.backend).strategies(base, pins)
    chosen = min(reversed(offered), key=_num_offloads)
    if base.backend not in {"zero", "fsdp"}:
        return chosen, []
    text = _sharding_text(chosen)
    is_pinned = len(offered) == 1
    why = "pinned in the job" if is_pinned else "the careful side while memory is not estimated"
    return chosen, [Reason(about="sharding", text=f"{text}: {why}")]


def _num_offloads(strategy: Strategy) -> int:
    return (strategy.offload_optimizer != "none") + (strategy.offload_parameters != "none")


def _sharding_text(strategy: Strategy) -> str:
    if strategy.backend == "zero":
        text = f"ZeRO-{strategy.zero_stage} splits {ZERO_SPLITS[strategy.zero_stage]}"
    else:
        kept = "dropped after the forward pass" if strategy.reshard_after_forward else "kept for the backward"
        text = f"layers are split over {strategy.num_shards} ranks, {kept}"
    places = {strategy.offload_optimizer, strategy.offload_parameters} - {"none"}
    return text + (f", offloaded to {' and '.join(sorted(places))}" if places else "")


def _choose_num_processes(job: Job, name: Backend, devices: tuple[Device, ...]) -> tuple[int, Reason]:
    pinned, batch = job.plan.num_processes, job.train.global_batch_size
    if name == "single":
        return 1, Reason(about="num_processes", text="single is one process")
    if pinned != "auto":
        if devices and pinned > len(devices):
            raise Refused(
                f"plan.num_processes is {pinned}, and there are {len(devices)} devices",
                hint=f"set plan.num_processes to {len(devices)} or fewer, or to auto",
            )
        if batch % pinned:
            lower, upper = batch - batch % pinned, batch - batch % pinned + pinned
            nearest = f"{lower} or {upper}" if lower else f"{upper}"
            raise BadInput(
                f"train.global_batch_size {batch} cannot be split over {pinned} ranks",
                hint=f"set train.global_batch_size to {nearest}, or plan.num_processes to auto",
            )
        return pinned, Reason(about="num_processes", text="pinned in the job")
    available = len(devices) or 2
    ranks = max(count for count in range(1, available + 1) if batch % count == 0)
    if ranks == available:
        return ranks, Reason(about="num_processes", text=f"one rank on each of {available} devices")
    text = f"{ranks} of {available} devices: the global batch of {batch} splits evenly over no more"
    return ranks, Reason(about="num_processes", text=text)


def _choose_devices(
    devices: tuple[Device, ...], count: int, among: tuple[Device, ...]
) -> tuple[tuple[Device, ...], list[Reason]]:
    """Take the devices with the most free memory, in the order of the machine.

    Where no variable can show the ranks just those, the first ones: that is what the ranks will take.
    """
    if count >= len(devices):
        return devices, []
    by_room = sorted(devices, key=lambda device: (-(device.free_bytes or 0), device.index))
    chosen = tuple(sorted(by_room[:count], key=lambda device: device.index))
    names = " ".join(str(device.index) for device in chosen)
    if all(device.free_bytes is None for device in devices) or not can_be_shown(chosen, among):
        return devices[:count], [Reason(about="devices", text=f"the first {count} of {len(devices)}")]
    return chosen, [Reason(about="devices", text=f"{names}: the most free memory now")]


def _choose_micro_batch(job: Job, num_processes: int) -> tuple[int, Reason]:
    per_rank = job.train.global_batch_size // num_processes
    pinned = job.plan.micro_batch_size
    if pinned != "auto":
        if per_rank % pinned:
            raise BadInput(
                f"plan.micro_batch_size {pinned} does not divide the {per_rank} sequences of a rank "
                f"(train.global_batch_size {job.train.global_batch_size} over {num_processes})",
                hint=f"set it to one of {_divisors(per_rank)}, or to auto",
            )
        return pinned, Reason(about="micro_batch_size", text="pinned in the job")
    most = max(1, MICRO_BATCH_TOKENS // job.train.max_length)
    micro_batch = max(size for size in _divisors(per_rank) if size <= most)
    accumulation = per_rank // micro_batch
    often = f", {accumulation} times a step" if accumulation > 1 else ""
    whole = f"the global batch of {job.train.global_batch_size}"
    text = f"{micro_batch} x {job.train.max_length} tokens at once{often}: {whole}"
    source = f"at most {MICRO_BATCH_TOKENS} tokens at once while memory is not estimated"
    return micro_batch, Reason(about="micro_batch_size", text=text, source=source)


def _divisors(number: int) -> list[int]:
    small = [size for size in range(1, int(number**0.5) + 1) if number % size == 0]
    return sorted({*small, *(number // size for size in small)})


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


def _choose_precision(pins: PlanPins, kind: str, devices: tuple[Device, ...]) -> tuple[Precision, Reason]:
    if pins.mixed_precision != "auto":
        if pins.mixed_precision == "fp16" and kind == CPU:
            raise BadInput(
                "plan.mixed_precision is fp16, which transformers refuses on the CPU",
                hint="set plan.mixed_precision to auto, no or bf16",
            )
        return pins.mixed_precision, Reason(about="mixed_precision", text="pinned in the job")
    if kind == CPU:
        return "no", Reason(about="mixed_precision", text="float32 is the CPU's fast and exact format")
    supported = {device.supports_bf16 for device in devices}
    if supported == {True}:
        return "bf16", Reason(about="mixed_precision", text="every device computes in bfloat16")
    if False in supported:
        return "fp16", Reason(about="mixed_precision", text="a device cannot compute in bfloat16")
    return "no", Reason(about="mixed_precision", text="the driver does not say what the device computes in")


def _length_reasons(job: Job, model: ModelSpec | None) -> list[Reason]:
    longest = model.max_position_embeddings if model else None
    if longest is None or job.train.max_length <= longest:
        return []
    text = (
        f"train.max_length {job.train.max_length} is longer than the {longest} tokens the model was made for"
    )
    return [Reason(about="max_length", text=text, source="max_position_embeddings in config.json")]
