"""Rules over what is sampled: disk, devices, memory of the host."""

from ..specs.events import CheckpointEvent, DevicesEvent, Event
from .rule import Finding, Told

GIB = 1 << 30


class DiskSpace:
    """A disk with room for fewer than two more checkpoints of the size of the last one."""

    def __init__(self) -> None:
        self._told = Told()
        self._size = 0

    def feed(self, event: Event) -> Finding | None:
        """Take a checkpoint, or a sample of the host."""
        if isinstance(event, CheckpointEvent):
            self._size = event.size_bytes
        if (
            not isinstance(event, DevicesEvent)
            or event.host is None
            or event.host.run_disk_free_bytes is None
        ):
            return None
        free = event.host.run_disk_free_bytes
        if not self._told.now(holds=self._size > 0 and free < 2 * self._size):
            return None
        return Finding(
            level="warning",
            code="disk_space",
            message=f"{free / GIB:.2f} GiB are free where the run is saved, and a checkpoint takes "
            f"{self._size / GIB:.2f} GiB: free space before the next one, or lower train.save_total_limit",
        )


class Throttled:
    """A device whose clock is held back by heat or hardware for ten samples in a row."""

    def __init__(self) -> None:
        self._told: dict[int, Told] = {}

    def feed(self, event: Event) -> Finding | None:
        """Take a sample. A power limit is normal under load, and no reason."""
        if not isinstance(event, DevicesEvent):
            return None
        for device in event.devices:
            reasons = {"heat", "hardware"} & set(device.throttle_reasons)
            told = self._told.setdefault(device.index, Told(after=10))
            if told.now(holds=bool(reasons)):
                hot = (
                    f" at {device.temperature_celsius:.0f} C"
                    if device.temperature_celsius is not None
                    else ""
                )
                return Finding(
                    level="warning",
                    code="throttled",
                    message=f"device {device.index} is slowed by {' and '.join(sorted(reasons))}{hot}: "
                    "see to its cooling, or lower its power limit",
                )
        return None


class LostDevice:
    """A device that no longer answers its driver."""

    def __init__(self) -> None:
        self._told: dict[int, Told] = {}

    def feed(self, event: Event) -> Finding | None:
        """Take a sample."""
        if not isinstance(event, DevicesEvent):
            return None
        for device in event.devices:
            if self._told.setdefault(device.index, Told()).now(holds=device.is_lost):
                return Finding(
                    level="error",
                    code="device_lost",
                    message=f"device {device.index} ({device.name}) no longer answers: look for Xid in dmesg",
                )
        return None


class HostMemory:
    """A host with less than a twentieth of its memory left."""

    def __init__(self) -> None:
        self._told = Told(after=5)

    def feed(self, event: Event) -> Finding | None:
        """Take a sample."""
        if not isinstance(event, DevicesEvent) or event.host is None:
            return None
        used, total = event.host.memory_used_bytes, event.host.memory_total_bytes
        if not used or not total or not self._told.now(holds=used > 0.95 * total):
            return None
        return Finding(
            level="warning",
            code="host_memory",
            message=f"{used / total:.0%} of the host's memory is used: the kernel may soon kill a rank; "
            "use fewer data workers, or less offload",
        )
