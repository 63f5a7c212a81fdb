"""What every plan decides alike: devices, ranks, number format; and what pins cannot say."""

from ..backends import BACKENDS, ENGINE_PINS, backend, can_be_shown
from ..backends import Backend as Engine
from ..errors import BadInput, Refused
from ..specs.job import Job, PlanPins
from ..specs.machine import CPU, Device, Machine
from ..specs.model import ModelSpec
from ..specs.plan import Backend, Precision, Reason, Rule, Strategy
from ..stages import smallest_micro_batch

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
    smallest = smallest_micro_batch(job)
    if per_rank < smallest or (micro_batch != "auto" and micro_batch < smallest):
        raise BadInput(
            f"stage {job.stage} compares the sequences that a rank takes at once: at least {smallest}",
            hint="raise train.global_batch_size or plan.micro_batch_size, or set fewer plan.num_processes",
        )
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
        if strategy.shard_size is not None:
            where = "nodes" if strategy.shard_size == strategy.ranks_per_node else "groups"
            text += f"; {strategy.num_processes // strategy.shard_size} {where} hold a copy each"
    places = {strategy.offload_optimizer, strategy.offload_parameters} - {"none"}
    return text + (f", offloaded to {' and '.join(sorted(places))}" if places else "")


def choose_num_nodes(num_ranks: int, devices: tuple[Device, ...], num_nodes: int) -> int:
    """Return over how many of equal nodes ranks are spread, the same number on each.

    The fewest that hold them; on nodes without accelerators as many as there are: each brings its own CPUs.

    Args:
        num_ranks: Ranks of the whole run.
        devices: The accelerators of one node; none: the CPU.
        num_nodes: Nodes that there are.

    Returns:
        0 when they cannot be spread evenly.
    """
    if num_nodes == 1 or num_ranks == 1:
        return int(not devices or num_ranks <= len(devices))
    even = [count for count in range(1, num_nodes + 1) if num_ranks % count == 0]
    if not devices:
        return max(even)
    return min((count for count in even if num_ranks // count <= len(devices)), default=0)


def choose_num_processes(
    job: Job, name: Backend, devices: tuple[Device, ...], num_nodes: int = 1
) -> tuple[int, Reason]:
    """Return how many ranks train, and why.

    Args:
        job: What the user wants and pins.
        name: The engine.
        devices: The accelerators of one node; none: the CPU.
        num_nodes: Equal nodes that there are.

    Raises:
        BadInput: The pinned number does not split the global batch.
        Refused: There are fewer devices.
    """
    pinned, batch = job.plan.num_processes, job.train.global_batch_size
    if name == "single":
        return 1, Reason(about="num_processes", text="single is one process")
    if pinned != "auto":
        if not choose_num_nodes(pinned, devices, num_nodes):
            raise _too_many(pinned, len(devices), num_nodes)
        if batch % pinned:
            lower, upper = batch - batch % pinned, batch - batch % pinned + pinned
            nearest = f"{lower} or {upper}" if lower else f"{upper}"
            raise BadInput(
                f"train.global_batch_size {batch} cannot be split over {pinned} ranks",
                hint=f"set train.global_batch_size to {nearest}, or plan.num_processes to auto",
            )
        return pinned, Reason(about="num_processes", text="pinned in the job")
    available = len(devices) * num_nodes or max(2, num_nodes)
    ranks = max(
        count
        for count in range(1, available + 1)
        if batch % count == 0 and choose_num_nodes(count, devices, num_nodes)
    )
    if ranks == available:
        return ranks, Reason(about="num_processes", text=_one_on_each(devices, ranks, num_nodes))
    what = "devices" if devices else "ranks"
    text = f"{ranks} of {available} {what}: the global batch of {batch} splits evenly over no more"
    return ranks, Reason(about="num_processes", text=text)


def _too_many(pinned: int, per_node: int, num_nodes: int) -> Refused:
    if num_nodes == 1:
        return Refused(
            f"plan.num_processes is {pinned}, and there are {per_node} devices",
            hint=f"set plan.num_processes to {per_node} or fewer, or to auto",
        )
    return Refused(
        f"plan.num_processes is {pinned}, which {num_nodes} nodes of {per_node} devices cannot share",
        hint=f"set plan.num_processes to {per_node * num_nodes}, to a number that divides evenly, or to auto",
    )


def _one_on_each(devices: tuple[Device, ...], ranks: int, num_nodes: int) -> str:
    if num_nodes == 1:
        return f"one rank on each of {len(devices) or ranks} devices"
    if not devices:
        return f"one rank on each of {num_nodes} nodes"
    return f"one rank on each of {len(devices)} devices of each of {num_nodes} nodes"


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


def micro_batches(job: Job, num_processes: int) -> list[int]:
    """Return what splits a rank's share of the global batch evenly and suits the stage, smallest first."""
    smallest = smallest_micro_batch(job)
    return [size for size in divisors(job.train.global_batch_size // num_processes) if size >= smallest]


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
