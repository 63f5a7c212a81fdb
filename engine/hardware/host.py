"""The computer around the devices: CPUs and memory as the least of hardware, affinity and cgroup limits."""

import os
import socket
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import psutil

from ..specs.machine import Host, HostReading

ROOT = Path("/")
_V1_MEMORY = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2_MEMORY = ("memory.max", "memory.current", "inactive_file")


def read_host(root: Path = ROOT) -> Host:
    """Return what this process may use of the computer.

    Args:
        root: Where /proc and /sys are looked up for cgroup limits.
    """
    memory = psutil.virtual_memory()
    total, available = memory.total, memory.available
    for limit, used in memory_limits(root):
        total = min(total, limit)
        available = min(available, max(0, limit - used))
    return Host(
        name=socket.gethostname(),
        num_cpus=_num_cpus(root),
        total_bytes=total,
        available_bytes=available,
    )


class HostSampler:
    """Reads how busy the host is; percentages are means since its previous reading, None in the first."""

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
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
        used, limit = _memory(self._root)
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


def memory_limits(root: Path = ROOT) -> Iterator[tuple[int, int]]:
    """Yield limit and used bytes of every cgroup that bounds this process; used without file cache."""
    for folder, is_v2 in _cgroups(root, "memory"):
        limit_file, used_file, cache_key = _V2_MEMORY if is_v2 else _V1_MEMORY
        limit, used = _number(folder / limit_file), _number(folder / used_file)
        if limit is not None and used is not None:
            yield limit, max(0, used - _stat(folder / "memory.stat", cache_key))


def cpu_limits(root: Path = ROOT) -> Iterator[float]:
    """Yield the CPU quota (1.5 is one and a half CPUs) of every cgroup that bounds this process."""
    for folder, is_v2 in _cgroups(root, "cpu"):
        if is_v2:
            words = _read(folder / "cpu.max").split()
        else:
            words = [_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")]
        if len(words) == 2 and all(word.isdigit() and int(word) for word in words):  # noqa: PLR2004 - quota, period
            yield int(words[0]) / int(words[1])


def _num_cpus(root: Path) -> int:
    counts = [float(os.cpu_count() or 1), *cpu_limits(root)]
    if hasattr(os, "sched_getaffinity"):
        counts.append(len(os.sched_getaffinity(0)))
    return max(1, int(min(counts)))


def _memory(root: Path) -> tuple[int, int]:
    """Return used and total bytes of the tightest bound."""
    memory = psutil.virtual_memory()
    bounds = [(limit, used) for limit, used in memory_limits(root) if limit < memory.total]
    if not bounds:
        return memory.total - memory.available, memory.total
    limit, used = min(bounds)
    return used, limit


def _cpu_seconds() -> tuple[float, float]:
    """Return busy and all CPU seconds since boot, summed over the CPUs."""
    times = psutil.cpu_times()
    # guest time is contained in user time already
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return total - times.idle - getattr(times, "iowait", 0.0), total


def _cgroups(root: Path, controller: str) -> Iterator[tuple[Path, bool]]:
    """Yield this process's cgroup folder and its parents, with whether they are version 2.

    Inside a container the path of /proc/self/cgroup may not exist; its parents up to the mount do.
    """
    mounts = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        parts = line.split(":", 2)
        if len(parts) != 3:  # noqa: PLR2004 - id, controllers, path
            continue
        _, controllers, inner = parts
        if not controllers:
            mount, is_v2 = mounts, True
        elif controller in controllers.split(","):
            joint = mounts / controllers  # "cpu,cpuacct"; "cpu" is often only a link to it
            mount, is_v2 = joint if joint.is_dir() else mounts / controller, False
        else:
            continue
        folder = mount / inner.lstrip("/")
        for candidate in (folder, *folder.parents):
            if candidate.is_relative_to(mount):
                yield candidate, is_v2


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _number(path: Path) -> int | None:
    text = _read(path)
    return int(text) if text.isdigit() else None


def _stat(path: Path, key: str) -> int:
    for line in _read(path).splitlines():
        name, _, value = line.partition(" ")
        if name == key and value.isdigit():
            return int(value)
    return 0
