"""What the drivers say: devices found, broken, lost or busy, and limits on memory and CPUs."""

from collections import Counter
from collections.abc import Iterator, Sequence

from ..specs.machine import Device, DeviceProcess, Host, Limit, Machine, Problem
from .finding import Finding, error, note, ok, warning
from .patient import Patient
from .words import GIB, size, some

BUSY_SHARE = 0.1
"""A device with more of its memory taken than this is somebody's: drivers alone take less."""
FEW_BYTES = 4 * GIB


def look(patient: Patient) -> Iterator[Finding]:
    """Report devices, and what could not be read of them."""
    machine = patient.machine
    if machine is None:
        yield warning(
            f"the hardware could not be read: {patient.machine_answer.failure}",
            advice="a vendor's tool hangs: its driver may need a reboot",
        )
        return
    if patient.devices:
        yield ok(_inventory(patient.devices))
    elif not machine.problems:
        yield note("no accelerator found: training runs on the CPU", evidence="no vendor's driver is here")
    for problem in machine.problems:
        yield _problem(problem, has_devices=bool(patient.devices))
    yield from _lost(machine)
    yield from _busy(patient.devices)
    yield from _mixed(patient.devices)


def look_at_limits(patient: Patient) -> Iterator[Finding]:
    """Report what a container, a batch system or an affinity leaves of the machine."""
    machine = patient.machine
    if machine is None:
        return
    host = machine.host
    place = f"in a {host.container} container" if host.container else "on the bare host"
    parts = [f"{host.num_cpus} CPUs"] if host.num_cpus is not None else []
    if host.available_bytes is not None and host.total_bytes is not None:
        parts.append(f"{size(host.available_bytes)} of {size(host.total_bytes)} memory free")
    what = f"{', '.join(parts)}, {place}" if parts else place
    if host.limits:
        bounds = "; ".join(map(_bound, host.limits))
        yield note(what, evidence=bounds, advice="plans count on what these limits leave")
    else:
        yield ok(what)
    yield from _scarce(host, len(patient.devices))


def _bound(limit: Limit) -> str:
    value = size(limit.value) if limit.what == "memory" else f"{limit.value:g}"
    return f"{limit.what}: {value} by {limit.by}"


def _inventory(devices: Sequence[Device]) -> str:
    models = Counter((device.name, device.total_bytes) for device in devices)
    return ", ".join(
        f"{count} x {name}" + (f" ({size(total)})" if total else "")
        for (name, total), count in models.items()
    )


def _problem(problem: Problem, *, has_devices: bool) -> Finding:
    # Without any usable device the accelerator that the problem is about is all that there is.
    kind = warning if has_devices else error
    return kind(
        problem.message,
        evidence=None if problem.source in problem.message else f"asked: {problem.source}",
        advice=problem.advice or "see what the vendor's own tool says",
    )


def _lost(machine: Machine) -> Iterator[Finding]:
    if any("lost" in problem.message for problem in machine.problems):
        return  # said already, by the driver itself
    for device in machine.devices:
        if device.is_lost:
            yield warning(
                f"{device.name} (number {_number(device)}) no longer answers",
                evidence=device.note or device.source,
                advice="reset the device or reboot; until then leave it out of the visible devices",
            )


def _busy(devices: Sequence[Device]) -> Iterator[Finding]:
    busy = [device for device in devices if _is_busy(device)]
    if busy:
        yield note(
            f"{len(busy)} of {len(devices)} devices {'is' if len(busy) == 1 else 'are'} in use",
            evidence=some([_use(device) for device in busy]),
            advice="plans count on what is free; wait, or choose other devices",
        )


def _is_busy(device: Device) -> bool:
    if device.processes:
        return True
    used = _used_bytes(device)
    # An idle Ascend holds 3 to 5 GB for itself: only a process is proof there.
    if used is None or device.total_bytes is None or device.vendor == "huawei":
        return False
    return used > BUSY_SHARE * device.total_bytes


def _use(device: Device) -> str:
    used = _used_bytes(device)
    taken = f" {size(used)} taken" if used else ""
    holders = [f"{_program(process)} (pid {process.pid})" for process in device.processes if process.pid]
    return f"number {_number(device)}:{taken} by {some(holders, 2) or 'somebody out of sight'}"


def _program(process: DeviceProcess) -> str:
    words = (process.name or "").split()
    return words[0].rpartition("/")[2] if words else "a process"


def _used_bytes(device: Device) -> int | None:
    if device.total_bytes is None or device.free_bytes is None or device.unified_memory:
        return None
    return device.total_bytes - device.free_bytes - (device.reserved_bytes or 0)


def _mixed(devices: Sequence[Device]) -> Iterator[Finding]:
    models = {(device.kind, device.name) for device in devices}
    if len(models) > 1:
        yield note(
            "different devices in one box",
            evidence=", ".join(sorted(name for _, name in models)),
            advice="the smallest bounds a run on all of them; with CUDA_DEVICE_ORDER=PCI_BUS_ID their "
            "numbers are those of nvidia-smi",
        )


def _scarce(host: Host, num_devices: int) -> Iterator[Finding]:
    if host.num_cpus is not None and num_devices and host.num_cpus < 2 * num_devices:
        yield warning(
            f"{host.num_cpus} CPUs for {num_devices} devices: data loading will hold them up",
            advice="ask the container or the batch system for more, 4 per device or better",
        )
    if host.available_bytes is not None and host.available_bytes < FEW_BYTES:
        yield warning(
            f"only {size(host.available_bytes)} of host memory are free",
            advice="end other programs, or raise the container's limit: models are loaded through it",
        )


def _number(device: Device) -> int:
    return device.index if device.physical_index is None else device.physical_index
