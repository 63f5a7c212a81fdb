"""What every plan decides alike: devices, ranks, number format; and what pins cannot say."""

from ..backends import BACKENDS, ENGINE_PINS, backend, can_be_shown
from ..backends import Backend as Engine
from ..errors import BadInput, Refused
from ..specs.job import Job, PlanPins
from ..specs.machine import CPU, Device, Machine
from ..specs.model import ModelSpec
from ..specs.plan import Backend, Precision, Reason, Rule, Strategy

ZERO_SPLITS = (
    "nothing",
    "optimizer states",
    "optimizer states and gradients",
    "optimizer states, gradients and weights",
)
"""By stage. Source: Rajbhandari et al. 2020, arXiv 1910.02054."""


def usable_devices(pins: PlanPins, machine: Machine) -> tuple[Device, ...]:
    """Return the devices that a job may train on; none is the CPU.

    Raises:
        Refused: There are none of the pinned kind, or none that works.
    """
    kind = machine.device_kind if pins.device == "auto" else pins.device
    if kind == CPU:
        return ()
    there = of_kind(machine, kind)
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


def of_kind(machine: Machine, kind: str) -> tuple[Device, ...]:
    """Return the devices of one kind."""
    return tuple(device for device in machine.devices if device.kind == kind)


def _is_usable(device: Device) -> bool:
    """Whether training can run on it: not fallen off the bus, and not split into slices."""
    return not device.is_lost and not device.partitioned


def check_engine_pins(pins: PlanPins) -> None:
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


def broken_rule(engine: Engine, job: Job, devices: tuple[Device, ...]) -> Rule | None:
    """Return the first rule of an engine that a job breaks.

    Raises:
        BadInput: The engine is the pinned one.
    """
    rule = next((rule for rule in engine.RULES if rule.broken(job, devices)), None)
    if rule is not None and job.plan.backend == engine.NAME:
        hint = "change what does not fit, or set plan.backend to auto"
        raise BadInput(f"plan.backend is {engine.NAME}: {rule.text}", hint=hint)
    return rule


def check_split(job: Job, num_processes: int) -> None:
    """Refuse pinned sizes that do not come out even.

    Raises:
        BadInput: One does not divide a rank's share of the global batch, or the ranks.
    """
    per_rank = job.train.global_batch_size // num_processes
    micro_batch, shards = job.plan.micro_batch_size, job.plan.shard_size
    if micro_batch != "auto" and per_rank % micro_batch:
        raise BadInput(
            f"plan.micro_batch_size {micro_batch} does not divide the {per_rank} sequences of a rank "
            f"(train.global_batch_size {job.train.global_batch_size} over {num_processes})",
            hint=f"set it to one of {divisors(per_rank)}, or to auto",
        )
    if shards != "auto" and num_processes % shards:
        raise BadInput(
            f"plan.shard_size {shards} does not divide the {num_processes} ranks",
            hint=f"set it to one of {divisors(num_processes)[1:]}, or to auto",
        )


def sharding_text(strategy: Strategy) -> str:
    """Say what a sharding engine splits, and what it drops or moves."""
    if strategy.backend == "zero":
        text = f"ZeRO-{strategy.zero_stage} splits {ZERO_SPLITS[strategy.zero_stage]}"
    else:
        kept = "dropped after the forward pass" if strategy.reshard_after_forward else "kept for the backward"
        text = f"layers are split over {strategy.num_shards} ranks, {kept}"
    places = {strategy.offload_optimizer, strategy.offload_parameters} - {"none"}
    return text + (f", offloaded to {' and '.join(sorted(places))}" if places else "")


def choose_num_processes(job: Job, name: Backend, devices: tuple[Device, ...]) -> tuple[int, Reason]:
    """Return how many ranks train, and why.

    Raises:
        BadInput: The pinned number does not split the global batch.
        Refused: There are fewer devices.
    """
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


def choose_devices(
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


def divisors(number: int) -> list[int]:
    """Return what divides a number, in order."""
    small = [size for size in range(1, int(number**0.5) + 1) if number % size == 0]
    return sorted({*small, *(number // size for size in small)})


def choose_precision(pins: PlanPins, kind: str, devices: tuple[Device, ...]) -> tuple[Precision, Reason]:
    """Return the number format of the forward pass, and why.

    Raises:
        BadInput: The pinned one does not exist there.
    """
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


def length_reasons(job: Job, model: ModelSpec | None) -> list[Reason]:
    """Say it when the longest sequence is longer than what the model was made for."""
    longest = model.max_position_embeddings if model else None
    if longest is None or job.train.max_length <= longest:
        return []
    text = (
        f"train.max_length {job.train.max_length} is longer than the {longest} tokens the model was made for"
    )
    return [Reason(about="max_length", text=text, source="max_position_embeddings in config.json")]
