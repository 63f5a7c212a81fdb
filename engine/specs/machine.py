"""What is in the box: devices and their links, host, disks, networks, and how busy they are.

Unknown is ``None``, never 0 and never a guess. Sizes are bytes as the driver reports them.
"""

from dataclasses import dataclass
from typing import Literal

CPU = "cpu"
"""The device kind of a machine that has no accelerator."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceProcess:
    """A process that holds memory of a device. Of other containers only the pid, or nothing, may be seen."""

    pid: int | None = None
    name: str | None = None
    used_bytes: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """One accelerator, or one partition of an accelerator, as its driver reports it.

    ``kind`` is torch's device type (``cuda``, ``npu``, ``xpu``, ``hpu``, ``mps``, ``mlu``, ``musa``).
    """

    kind: str
    index: int
    """Position among the devices that this process may use: torch's ``cuda:index``."""
    name: str
    vendor: str | None = None
    """``nvidia``, ``amd``, ``huawei``, ``intel``, ``habana``, ``apple``, ``cambricon``, ``mthreads``,
    ``metax``, ``hygon``."""
    physical_index: int | None = None
    """Position among all devices of the box, in the vendor tool's order."""
    uuid: str | None = None
    bus_id: str | None = None
    """PCI address, ``00000000:3B:00.0``."""
    total_bytes: int | None = None
    free_bytes: int | None = None
    """What a new process could take now."""
    reserved_bytes: int | None = None
    """Kept by the driver and never to be had."""
    processes: tuple[DeviceProcess, ...] = ()
    """Who holds memory of it now."""
    unified_memory: bool = False
    """Device and host share one memory: offloading to the host saves nothing."""
    partition: str | None = None
    """Profile of a slice of a device, ``1g.10gb``; ``None`` for a whole one."""
    partitioned: bool = False
    """The device is split into slices, which stand beside it; nothing can be trained on it as a whole."""
    architecture: str | None = None
    """``sm_90``, ``gfx942``, ``Ascend910B3``: what a build of torch must have been compiled for."""
    supports_bf16: bool | None = None
    """In hardware (CUDA: compute capability 8.0 or newer). torch's own check is also true for emulation."""
    supports_fp8: bool | None = None
    supports_flash_attention_2: bool | None = None
    supports_flash_attention_3: bool | None = None
    numa_node: int | None = None
    pcie_generation: int | None = None
    """The most that card and slot can do: an idle card runs slower."""
    pcie_width: int | None = None
    bandwidth_bytes_per_second: float | None = None
    """Of the device's memory; from the catalogue."""
    dense_bf16_flops_per_second: float | None = None
    """Peak without sparsity; from the catalogue."""
    is_lost: bool = False
    """The driver knows the device and it no longer answers."""
    source: str | None = None
    """What was read: ``NVML``, ``npu-smi info``, ``written``."""
    note: str | None = None
    """One line on what is unusual."""


LinkKind = Literal["nvlink", "xgmi", "hccs", "mxlink", "xelink", "pix", "pxb", "phb", "node", "sys"]
"""From fast to slow. pix: one PCIe switch; pxb: several; phb: the CPU's host bridge; node: one NUMA node;
sys: between CPU sockets. xelink also joins the tiles of one Intel card. Words of ``nvidia-smi topo -m``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """The best path between two devices, by their ``index``; ``first`` is smaller."""

    first: int
    second: int
    kind: LinkKind
    count: int | None = None
    """Number of joined links: 12 of ``NV12``."""
    peer_access: bool | None = None
    """Whether the one may read the other's memory directly."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """A bound below the hardware's: who sets it, and how much it leaves."""

    what: Literal["memory", "cpus"]
    by: str
    """``cgroup /sys/fs/cgroup/...``, ``SLURM_MEM_PER_NODE``, ``affinity``."""
    value: float
    """Bytes or CPUs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """The computer around the devices. Memory and CPUs are the least of hardware, cgroup and SLURM."""

    name: str
    num_cpus: int | None
    total_bytes: int | None = None
    available_bytes: int | None = None
    limits: tuple[Limit, ...] = ()
    cpu_name: str | None = None
    cpu_flags: tuple[str, ...] = ()
    """Those of ``avx2 avx512f avx512_bf16 amx_bf16 amx_int8 sve bf16`` that the CPU has."""
    num_numa_nodes: int | None = None
    container: str | None = None
    """``docker``, ``podman``, ``kubernetes``, ``lxc``, ``apptainer``; ``None`` on the bare host."""
    shm_bytes: int | None = None
    """Free bytes of /dev/shm, through which ranks and data loaders talk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Disk:
    """Where a run would write, or offload to."""

    path: str
    """Mount point."""
    file_system: str
    holds: tuple[str, ...] = ()
    """What would lie there: ``runs``, ``models``, ``temporary``, and ``here`` for the current folder."""
    medium: Literal["nvme", "ssd", "hdd", "network", "memory", "overlay"] | None = None
    total_bytes: int | None = None
    free_bytes: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkPort:
    """A port of an InfiniBand or RoCE adapter."""

    name: str
    """``mlx5_0/1``."""
    link_layer: Literal["infiniband", "ethernet"] | None = None
    is_active: bool | None = None
    bits_per_second: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Something that could not be read, in one line that names the tool and the field."""

    source: str
    """The tool or library: ``NVML``, ``npu-smi``."""
    message: str
    advice: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """Everything that a plan may count on. Of several equal nodes it describes one."""

    host: Host
    devices: tuple[Device, ...] = ()
    links: tuple[Link, ...] = ()
    disks: tuple[Disk, ...] = ()
    ports: tuple[NetworkPort, ...] = ()
    problems: tuple[Problem, ...] = ()
    num_nodes: int = 1

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
    power_limit_watts: float | None = None
    clock_mhz: float | None = None
    throttle_reasons: tuple[str, ...] = ()
    """Why the clock is held back: ``power``, ``heat``, ``hardware``."""
    pids: tuple[int, ...] = ()
    is_lost: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class HostReading:
    """How busy the host is now; ``run_memory_bytes`` is the resident memory of the run's processes."""

    cpu_percent: float | None = None
    """Of all CPUs together, 0 to 100."""
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    run_memory_bytes: int | None = None
    run_disk_free_bytes: int | None = None
    """Free on the disk of the run folder."""
    run_cpu_percent: float | None = None
    """Of one CPU: two busy processes are 200."""
