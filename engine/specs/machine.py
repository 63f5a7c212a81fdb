"""What is in the box: devices and host, and one reading of how busy they are."""

from dataclasses import dataclass

CPU = "cpu"
"""The device kind of a machine that has no accelerator."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """One accelerator as its driver reports it.

    ``kind`` is torch's device type (``cuda``, ``npu``, ``xpu``, ``mps``, ``hpu``). Unknown is ``None``.
    """

    kind: str
    index: int
    name: str
    uuid: str | None = None
    total_bytes: int | None = None
    free_bytes: int | None = None
    supports_bf16: bool | None = None
    """From the compute capability, never from the name (CUDA: 8.0 or newer)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """The computer around the devices. Memory is the least of hardware and cgroup limits."""

    name: str
    num_cpus: int
    total_bytes: int | None = None
    available_bytes: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """Everything that a plan may count on."""

    host: Host
    devices: tuple[Device, ...] = ()

    @property
    def device_kind(self) -> str:
        """Torch's device type that training would use; ``cpu`` without an accelerator."""
        return self.devices[0].kind if self.devices else CPU


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceReading:
    """How busy one accelerator is now."""

    index: int
    name: str
    utilization_percent: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class HostReading:
    """How busy the host is now; ``run_memory_bytes`` is the resident memory of the run's processes."""

    cpu_percent: float | None = None
    """Of all CPUs together, 0 to 100."""
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    run_memory_bytes: int | None = None
    run_cpu_percent: float | None = None
    """Of one CPU: two busy processes are 200."""
