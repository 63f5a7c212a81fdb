"""Ascend chips as devices: what of their memory is a job's and what the driver's, and whose the pids are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ...specs.machine import Device, DeviceProcess
from ..system import System
from ..tables import Card
from ..tables import device as device_of
from .details import Activity, Place
from .facts import INFERENCE_ONLY, facts, full_name
from .table import Chip, Process, Table

VENDOR = "huawei"
KIND = "npu"
SOURCE = "npu-smi info"
MOST_DRIVER_BYTES = 6 << 30
"""An idle chip shows 2.8 (910B4), 3.3 (A2, A3) or 4.8 GiB (950DT) as used: the driver's own share."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """Everything that was read of a box."""

    system: System
    table: Table
    places: Mapping[tuple[int, int], Place]

    def place(self, chip: Chip) -> Place | None:
        """Return the chip's row of ``info -m``."""
        return self.places.get((chip.npu, chip.chip))

    def by_logic_id(self) -> list[Chip]:
        """Return the chips as the runtime counts them.

        Chips without logic id (A5's ``info -m`` has none) come last, in the table's order.
        """
        return sorted(self.table.chips, key=lambda chip: (self._logic(chip), chip.npu, chip.chip))

    def processes(self, chip: Chip) -> tuple[DeviceProcess, ...]:
        """Return who holds memory of the chip, with pids in our own numbering."""
        own = (one for one in self.table.processes if (one.npu, one.chip) == (chip.npu, chip.chip))
        return tuple(
            DeviceProcess(pid=_pid(one, self.system), name=one.name, used_bytes=one.used_bytes) for one in own
        )

    def _logic(self, chip: Chip) -> int:
        place = self.place(chip)
        return 1 << 30 if place is None else place.logic


def uuid(npu: int, chip: int) -> str:
    """Return what names a chip for npu-smi (``-i`` and ``-c``), also when another one falls out."""
    return f"NPU {npu} chip {chip}"


def card(index: int, chip: Chip) -> Card:
    """Return the chip as a card."""
    return Card(
        index=index,
        name=full_name(chip.name),
        uuid=uuid(chip.npu, chip.chip),
        bus_id=chip.bus_id,
        used_bytes=chip.used_bytes,
        total_bytes=chip.total_bytes,
        utilization_percent=chip.utilization_percent,
        power_watts=chip.power_watts,
        temperature_celsius=chip.temperature_celsius,
    )


def device(index: int, logic: int, chip: Chip, box: Box) -> Device:
    """Return the device with a logic id, at its position among the visible ones."""
    place = box.place(chip)
    known = facts(chip.name, place.name if place else None)
    processes = box.processes(chip)
    is_told = chip.npu in box.table.told
    reserved = driver_share(chip, processes) if is_told else None
    notes = (
        INFERENCE_ONLY if known.trains is False else None,
        None if chip.health in {"OK", None} else f"health: {chip.health}",
        _memory_note(chip, reserved) if is_told and not processes else None,
    )
    return replace(
        device_of(card(logic, chip), index=index, vendor=VENDOR, kind=KIND, source=SOURCE),
        processes=processes,
        reserved_bytes=reserved,
        architecture=known.architecture,
        supports_bf16=known.supports_bf16,
        note="; ".join(note for note in notes if note) or None,
    )


def driver_share(chip: Chip, processes: Sequence[DeviceProcess]) -> int | None:
    """Return what is used without being any process's, as long as it is no more than drivers take."""
    if chip.used_bytes is None or any(process.used_bytes is None for process in processes):
        return None
    rest = chip.used_bytes - sum(process.used_bytes or 0 for process in processes)
    return rest if 0 <= rest <= MOST_DRIVER_BYTES else None


def card_of_activity(one: Device, now: Activity) -> Card:
    """Return a known device with the figures of ``-t common`` or ``-t usages``, which give shares only."""
    total = now.total_bytes or one.total_bytes
    used = None if total is None or now.memory_percent is None else int(total * now.memory_percent / 100)
    return Card(
        index=one.physical_index or 0,
        name=one.name,
        uuid=one.uuid,
        used_bytes=used,
        total_bytes=total,
        utilization_percent=now.utilization_percent,
        power_watts=now.power_watts,
        temperature_celsius=now.temperature_celsius,
        clock_mhz=now.clock_mhz,
    )


def _pid(process: Process, system: System) -> int:
    """Return the pid in our own numbering: inside a container that is the table's last column."""
    inside = process.container_pid
    if inside is None or system.path(f"/proc/{process.pid}").exists():
        return process.pid
    return inside if system.path(f"/proc/{inside}").exists() else process.pid


def _memory_note(chip: Chip, reserved: int | None) -> str | None:
    if not chip.used_bytes:
        return None
    if reserved is None:
        return f"{chip.used_bytes / 2**30:.1f} GiB in use by what npu-smi does not list"
    return f"{reserved / 2**30:.1f} GiB in use are the driver's own; no process is listed"
