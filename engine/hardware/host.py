"""The computer around the devices: what of its CPUs and memory this process may use, and how busy it is."""

import os
import platform
import time
from collections.abc import Collection

import psutil

from ..specs.machine import Host, HostReading, Limit
from .disks import space_of
from .limits import count_of, cpu_limits, memory_bounds
from .system import System

CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8", "sve", "bf16")
"""What matters to kernels that compute on the CPU; names of /proc/cpuinfo."""
_CONTAINER_FILES = (
    ("/var/run/secrets/kubernetes.io", "kubernetes"),
    ("/run/.containerenv", "podman"),
    ("/.dockerenv", "docker"),
)
_CONTAINER_GROUPS = (("kubepods", "kubernetes"), ("libpod", "podman"), ("docker", "docker"), ("lxc", "lxc"))
_KIB = 1024
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - asked for its size only


def read_host(system: System | None = None) -> Host:
    """Return what this process may use of the computer: the least of hardware and every bound."""
    system = system or System()
    total, available = _hardware_memory(system)
    limits = []
    for bound in memory_bounds(system):
        value = int(bound.limit.value)
        if value < total:
            limits.append(bound.limit)
        available = min(available, max(0, value - (bound.used_bytes or 0)))
    cpus = _hardware_cpus(system)
    limits += [limit for limit in cpu_limits(system) if limit.value < cpus]
    name, flags = _cpu(system)
    return Host(
        name=system.read("/proc/sys/kernel/hostname") or platform.node(),
        num_cpus=max(1, int(min([cpus, *_values(limits, "cpus")]))),
        total_bytes=int(min([total, *_values(limits, "memory")])),
        available_bytes=available,
        limits=tuple(sorted(dict.fromkeys(limits), key=lambda limit: (limit.what, limit.value))),
        cpu_name=name,
        cpu_flags=flags,
        num_numa_nodes=_num_numa_nodes(system),
        container=_container(system),
        shm_bytes=space_of(system, SHARED_MEMORY)[1],
    )


class HostSampler:
    """Reads how busy the host is; percentages are means since its previous reading, None in the first."""

    def __init__(self, system: System | None = None) -> None:
        self._system = system or System()
        self._total: tuple[float, float] | None = None
        self._processes: dict[int, tuple[psutil.Process, float]] = {}
        """By pid: the process and its CPU seconds at the previous reading."""
        self._time: float | None = None

    def read(self, pids: Collection[int] = ()) -> HostReading:
        """Return a reading; ``pids`` are the processes of the run, those that are gone do not count."""
        busy, total = _cpu_seconds()
        percent = None
        if self._total is not None and total > self._total[1]:
            percent = 100 * max(0.0, busy - self._total[0]) / (total - self._total[1])
        now = time.monotonic()
        run_bytes, run_percent = self._read_run(pids, now)
        self._total = (busy, total)
        self._time = now
        used, limit = _memory(self._system)
        return HostReading(
            cpu_percent=percent,
            memory_used_bytes=used,
            memory_total_bytes=limit,
            run_memory_bytes=run_bytes,
            run_cpu_percent=run_percent,
        )

    def _read_run(self, pids: Collection[int], now: float) -> tuple[int | None, float | None]:
        """Return resident bytes and CPU percent of the run's processes."""
        known, self._processes = self._processes, {}
        memory, worked, is_comparable = 0, 0.0, False
        for pid in pids:
            try:
                before = known.get(pid)
                is_same = before is not None and before[0].is_running()
                process = before[0] if before is not None and is_same else psutil.Process(pid)
                times = process.cpu_times()
                seconds = times.user + times.system
                memory += process.memory_info().rss
            except (psutil.Error, OSError):
                continue
            if before is not None and is_same:
                worked += seconds - before[1]
                is_comparable = True
            self._processes[pid] = (process, seconds)
        if not self._processes:
            return None, None
        elapsed = 0.0 if self._time is None else now - self._time
        return memory, 100 * max(0.0, worked) / elapsed if is_comparable and elapsed > 0 else None


def _values(limits: list[Limit], what: str) -> list[float]:
    return [limit.value for limit in limits if limit.what == what]


def _hardware_memory(system: System) -> tuple[int, int]:
    """Return total and available bytes of the computer."""
    sizes = {}
    for line in (system.read("/proc/meminfo") or "").splitlines():
        key, _, rest = line.partition(":")
        number, _, unit = rest.strip().partition(" ")
        if unit == "kB" and number.isascii() and number.isdigit() and len(number) < 20:  # noqa: PLR2004 - 64 bits
            sizes[key] = int(number) * _KIB
    if sizes.get("MemTotal") and "MemAvailable" in sizes:
        return sizes["MemTotal"], sizes["MemAvailable"]
    memory = psutil.virtual_memory()
    return memory.total, memory.available


def _hardware_cpus(system: System) -> int:
    return count_of(system.read("/sys/devices/system/cpu/online") or "") or os.cpu_count() or 1


def _cpu(system: System) -> tuple[str | None, tuple[str, ...]]:
    """Return the CPU's name, and those of ``CPU_FLAGS`` that it has."""
    text = system.read("/proc/cpuinfo")
    if text is None:  # macOS
        return platform.processor() or None, ()
    found: dict[str, str] = {}
    for line in text.partition("\n\n")[0].splitlines():  # the first CPU speaks for all
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    flags = set((found.get("flags") or found.get("Features") or "").split())
    name = found.get("model name") or found.get("Model") or None
    return name, tuple(flag for flag in CPU_FLAGS if flag in flags)


def _num_numa_nodes(system: System) -> int | None:
    """Count the nodes that have CPUs: the memory of some GPUs is a node without any."""
    nodes = system.glob("/sys/devices/system/node/node[0-9]*/cpulist")
    lists = [system.read(f"/sys/devices/system/node/{path.parent.name}/cpulist") for path in nodes]
    return sum(bool(text) for text in lists) or None


def _container(system: System) -> str | None:
    if {"APPTAINER_CONTAINER", "SINGULARITY_CONTAINER"} & system.environ.keys():
        return "apptainer"
    if "KUBERNETES_SERVICE_HOST" in system.environ:
        return "kubernetes"
    for path, kind in _CONTAINER_FILES:
        if os.path.exists(system.path(path)):  # noqa: PTH110 - Path.exists raises where it may not look
            return kind
    groups = system.read("/proc/self/cgroup") or ""
    found = next((kind for word, kind in _CONTAINER_GROUPS if f"/{word}" in groups), None)
    return found or system.read("/run/systemd/container") or None


def _memory(system: System) -> tuple[int, int]:
    """Return used and total bytes of the tightest bound."""
    total, available = _hardware_memory(system)
    bounds = [
        (int(bound.limit.value), bound.used_bytes)
        for bound in memory_bounds(system)
        if bound.used_bytes is not None and bound.limit.value < total
    ]
    if not bounds:
        return total - available, total
    limit, used = min(bounds)
    return used, limit


def _cpu_seconds() -> tuple[float, float]:
    """Return busy and all CPU seconds since boot, summed over the CPUs."""
    times = psutil.cpu_times()
    # guest time is contained in user time already
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return total - times.idle - getattr(times, "iowait", 0.0), total
