"""Which devices an estimate is for, and what is free there."""

from dataclasses import dataclass

from ..engine.errors import BadInput, Refused
from ..engine.specs.machine import CPU, Device, Machine


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Where the ranks would run."""

    kind: str
    name: str
    """Of the device, or of the CPU."""
    num_ranks: int
    ranks_per_node: int
    free_bytes: int | None
    """Now, on the fullest device that would be used; of the host for ranks on the CPU."""
    total_bytes: int | None
    shares_host: bool
    """Device and host are one memory."""
    host_free_bytes: int | None
    host_total_bytes: int | None
    disk_free_bytes: int | None
    disk_path: str | None
    is_written: bool
    """The machine is written down: what is free there now is not known."""
    fullest: Device | None = None


def target(machine: Machine, *, num_ranks: int | None) -> Target:
    """Choose devices: those with the most free memory, in the machine's first kind.

    Args:
        machine: What is there.
        num_ranks: Devices of all nodes together; ``None``: all of them, or one process on the CPU.

    Raises:
        BadInput: More devices than there are.
        Refused: None of the devices can be used.
    """
    devices = [device for device in machine.devices if device.kind == machine.device_kind]
    usable = [device for device in devices if not device.is_lost and not device.partitioned]
    if devices and not usable:
        raise Refused("none of the devices of this machine can be trained on", hint="see why: ftwiz devices")
    if not devices:
        return _on_cpu(machine, num_ranks or 1)
    there = len(usable) * machine.num_nodes
    wanted = there if num_ranks is None else num_ranks
    if wanted > there:
        raise BadInput(
            f"--devices {wanted}: there {'is' if there == 1 else 'are'} {there}",
            hint=f"estimate for another machine: --machine {wanted}x...",
        )
    if wanted > len(usable) and wanted % len(usable):
        raise BadInput(f"--devices {wanted}: cannot be split over nodes of {len(usable)} devices")
    per_node = min(wanted, len(usable))
    by_room = sorted(usable, key=lambda device: (-_room(device), device.index))
    fullest = by_room[per_node - 1]
    return _target(machine, fullest, wanted, per_node)


def _room(device: Device) -> int:
    free = device.total_bytes if device.free_bytes is None else device.free_bytes
    return free or 0


def _target(machine: Machine, fullest: Device | None, num_ranks: int, per_node: int) -> Target:
    host = machine.host
    disk = next((disk for disk in machine.disks if "runs" in disk.holds), None)
    shares = fullest is None or fullest.unified_memory
    written = host.available_bytes is None and host.cpu_name is None
    free = fullest.free_bytes if fullest else host.available_bytes
    total = fullest.total_bytes if fullest else host.total_bytes
    return Target(
        kind=fullest.kind if fullest else CPU,
        name=fullest.name if fullest else host.cpu_name or "CPU",
        num_ranks=num_ranks,
        ranks_per_node=per_node,
        free_bytes=free,
        total_bytes=total,
        shares_host=shares,
        host_free_bytes=host.available_bytes,
        host_total_bytes=host.total_bytes,
        disk_free_bytes=disk.free_bytes if disk else None,
        disk_path=disk.path if disk else None,
        is_written=written,
        fullest=fullest,
    )


def _on_cpu(machine: Machine, num_ranks: int) -> Target:
    most = machine.host.num_cpus or num_ranks
    if num_ranks > most * machine.num_nodes:
        raise BadInput(f"--devices {num_ranks}: no accelerator here, and ranks share {most} CPUs")
    return _target(machine, None, num_ranks, -(-num_ranks // machine.num_nodes))
