"""What bounds this process below the hardware: CPU affinity, cgroups of either version, SLURM."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..specs.machine import Limit
from .system import System

_V1_MEMORY = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2_MEMORY = ("memory.max", "memory.current", "inactive_file")
_CPUSETS = ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus")
_MIB = 1 << 20
_MOST_CPUS = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryBound:
    """A bound of memory, and how much of it is taken (without file cache that can be dropped)."""

    limit: Limit
    used_bytes: int | None = None


def memory_bounds(system: System) -> Iterator[MemoryBound]:
    """Yield every bound of this process's memory, also those above what the hardware has."""
    for folder, is_v2 in _cgroups(system, "memory"):
        limit_file, used_file, cache_key = _V2_MEMORY if is_v2 else _V1_MEMORY
        value, used = _number(folder / limit_file), _number(folder / used_file)
        if value is not None:
            if used is not None:
                used = max(0, used - _stat(folder / "memory.stat", cache_key))
            limit = Limit(what="memory", by=_name(system, folder), value=value)
            yield MemoryBound(limit=limit, used_bytes=used)
    for limit in slurm_limits(system.environ):
        if limit.what == "memory":
            yield MemoryBound(limit=limit)


def cpu_limits(system: System) -> Iterator[Limit]:
    """Yield every bound of this process's CPUs; 1.5 is one and a half CPUs' time."""
    status = system.read("/proc/self/status") or ""
    for line in status.splitlines():
        key, _, value = line.partition(":")
        if key == "Cpus_allowed_list" and (count := count_of(value.strip())):
            yield Limit(what="cpus", by="affinity", value=count)
    for folder, is_v2 in _cgroups(system, "cpu"):
        if is_v2:
            words = _read(folder / "cpu.max").split()
        else:
            words = [_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")]
        quota = [int(word) for word in words if _is_number(word)]
        if len(quota) == 2 and all(quota):  # noqa: PLR2004 - quota and period
            yield Limit(what="cpus", by=_name(system, folder), value=quota[0] / quota[1])
    for folder, _ in _cgroups(system, "cpuset"):
        lists = (_read(folder / name) for name in _CPUSETS)
        if count := next((number for text in lists if (number := count_of(text))), None):
            yield Limit(what="cpus", by=_name(system, folder), value=count)
    yield from (limit for limit in slurm_limits(system.environ) if limit.what == "cpus")


def slurm_limits(environ: Mapping[str, str]) -> list[Limit]:
    """Return what a SLURM job gives this process on its node; nothing outside of a job.

    A step's task has SLURM_CPUS_PER_TASK, the batch script all CPUs of the job on the node. SLURM counts
    memory in MiB, and 0 is all there is.
    """
    if "SLURM_JOB_ID" not in environ:
        return []

    def read(name: str) -> int:
        text = environ.get(name, "").strip()
        return int(text) if _is_number(text) else 0

    per_task, name = read("SLURM_CPUS_PER_TASK"), "SLURM_CPUS_ON_NODE"
    on_node = read(name)
    if not on_node:
        on_node, name = per_task * max(1, read("SLURM_NTASKS_PER_NODE")), "SLURM_CPUS_PER_TASK"
    cpus = [(name, on_node)]
    if "SLURM_STEP_ID" in environ:
        cpus.append(("SLURM_CPUS_PER_TASK", per_task))
    memory = [
        ("SLURM_MEM_PER_NODE", read("SLURM_MEM_PER_NODE")),
        ("SLURM_MEM_PER_CPU", read("SLURM_MEM_PER_CPU") * on_node),
        ("SLURM_MEM_PER_GPU", read("SLURM_MEM_PER_GPU") * read("SLURM_GPUS_ON_NODE")),
    ]
    return [
        *(Limit(what="memory", by=by, value=value * _MIB) for by, value in memory if value),
        *(Limit(what="cpus", by=by, value=value) for by, value in cpus if value),
    ]


def count_of(text: str) -> int | None:
    """Return how many CPUs a list of the kernel names: 9 of ``0-7,16``; ``None`` when it is none."""
    total = 0
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not _is_number(first) or (last and not _is_number(last)):
            return None
        total += max(0, int(last or first) - int(first) + 1)
    return total if 0 < total <= _MOST_CPUS else None


def _cgroups(system: System, controller: str) -> Iterator[tuple[Path, bool]]:
    """Yield this process's cgroup folder and its parents, with whether they are version 2.

    Inside a container the path of /proc/self/cgroup may not exist; its parents up to the mount do.
    """
    mounts = system.path("/sys/fs/cgroup")
    for line in (system.read("/proc/self/cgroup") or "").splitlines():
        parts = line.split(":", 2)
        if len(parts) != 3 or "\0" in line:  # noqa: PLR2004 - id, controllers, path
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


def _name(system: System, folder: Path) -> str:
    return f"cgroup /{folder.relative_to(system.root)}"


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(1 << 16).decode("utf8", errors="replace").strip()
    except OSError:
        return ""


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20  # noqa: PLR2004 - 64 bits


def _number(path: Path) -> int | None:
    text = _read(path)
    return int(text) if _is_number(text) else None


def _stat(path: Path, key: str) -> int:
    for line in _read(path).splitlines():
        name, _, value = line.partition(" ")
        if name == key and _is_number(value):
            return int(value)
    return 0
