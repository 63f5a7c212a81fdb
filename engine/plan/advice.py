"""What would make a job fit, when nothing does: found by trying, the cheapest changes first."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from ..memory.verdict import GIB
from ..specs.job import Job
from ..specs.machine import CPU, Machine

LEAST_TOKENS = 128
CARDS_GIB = (24, 32, 40, 48, 80, 96, 141, 192, 288)
"""Sizes that accelerators are sold in."""
HOSTS_GIB = (64, 128, 256, 512, 1024, 2048, 4096)
MOST_DEVICES = 64
Fits = Callable[[Job, Machine], bool]


def what_would_fit(job: Job, machine: Machine, fits: Fits) -> str:
    """Return one line with the changes that would each make it fit.

    Args:
        job: What does not fit.
        machine: Where it does not.
        fits: Says it of another job on another machine.
    """
    found = [words for words in _found(job, machine, fits) if words]
    fitting = f"it would fit with {', or '.join(found)}"
    words = fitting if found else "no single change that was tried makes it fit"
    return f"{words}; plan.ignore_estimate true tries it all the same"


def _found(job: Job, machine: Machine, fits: Fits) -> Iterator[str | None]:
    yield _unpinned(job, machine, fits)
    if not job.method.adds_weights:
        lora = job.model_copy(update={"method": job.method.model_copy(update={"kind": "lora"})})
        yield "method.kind lora" if fits(lora, machine) else None
    yield _shorter(job, machine, fits)
    if machine.device_kind != CPU:
        yield _more_host_memory(job, machine, fits)
        yield _more_devices(job, machine, fits)
        yield _larger_cards(job, machine, fits)


def _unpinned(job: Job, machine: Machine, fits: Fits) -> str | None:
    """Look whether what the user pinned is in the way."""
    pinned = [
        name
        for name in ("backend", "micro_batch_size", "gradient_checkpointing", "num_processes", "quantization")
        if getattr(job.plan, name) != "auto"
    ]
    if not pinned:
        return None
    free = job.model_copy(update={"plan": type(job.plan)(device=job.plan.device)})
    return f"{' and '.join(f'plan.{name}' for name in pinned)} auto" if fits(free, machine) else None


def _shorter(job: Job, machine: Machine, fits: Fits) -> str | None:
    length = job.train.max_length // 2
    while length >= LEAST_TOKENS:
        shorter = job.model_copy(update={"train": job.train.model_copy(update={"max_length": length})})
        if fits(shorter, machine):
            return f"train.max_length {length}"
        length //= 2
    return None


def _more_host_memory(job: Job, machine: Machine, fits: Fits) -> str | None:
    """Look whether offloading would do with a larger host."""
    host = machine.host
    there = host.available_bytes or host.total_bytes or 0
    for gib in HOSTS_GIB:
        larger = replace(host, total_bytes=gib * GIB, available_bytes=None)
        if gib * GIB > there and fits(job, replace(machine, host=larger)):
            return f"{gib} GiB of host memory"
    return None


def _more_devices(job: Job, machine: Machine, fits: Fits) -> str | None:
    count = len(machine.devices) * 2
    while count <= min(MOST_DEVICES, job.train.global_batch_size):
        one = machine.devices[0]
        many = tuple(replace(one, index=index, uuid=None) for index in range(count))
        if fits(job, replace(machine, devices=many)):
            return f"{count} such devices"
        count *= 2
    return None


def _larger_cards(job: Job, machine: Machine, fits: Fits) -> str | None:
    size = max((device.total_bytes or 0) for device in machine.devices)
    for gib in CARDS_GIB:
        if gib * GIB <= size:
            continue
        larger = tuple(
            replace(device, total_bytes=gib * GIB, free_bytes=None, reserved_bytes=None)
            for device in machine.devices
        )
        if fits(job, replace(machine, devices=larger)):
            return f"cards of {gib} GB"
    return None
