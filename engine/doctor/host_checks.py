"""The operating system around the run: Python, shared memory, resource limits, batch systems."""

import contextlib
import os
import platform
import resource
import sys
import time
from collections.abc import Iterator

from .finding import Finding, error, note, ok, warning
from .patient import Patient
from .words import GIB, size

SHM = "/dev/shm"  # noqa: S108 - looked at, never written
LEAST_GLIBC = (2, 28)
"""Torch's wheels are manylinux_2_28."""
LEAST_SHM_BYTES = GIB
LEAST_OPEN_FILES = 4096
LEAST_PROCESSES = 4096
WINDING_DOWN_SECONDS = 3600


def look_at_python(patient: Patient) -> Iterator[Finding]:
    """Report the interpreter and the platform, as far as torch's builds depend on them."""
    glibc = _glibc()
    kernel = patient.system.read("/proc/sys/kernel/osrelease") or platform.release()
    what = f"Python {platform.python_version()} on {platform.system()} {kernel}, {platform.machine()}"
    yield ok(f"{what}, glibc {'.'.join(map(str, glibc))}" if glibc else what)
    if sys.maxsize < 1 << 32:
        yield error("this Python has 32 bits: torch has no such builds", advice="install a 64-bit Python")
    if sys.platform == "linux" and (glibc is None or glibc < LEAST_GLIBC):
        yield warning(
            "the C library is not glibc 2.28 or newer: torch's builds do not load",
            evidence=f"glibc {'.'.join(map(str, glibc))}" if glibc else "not glibc (Alpine's musl?)",
            advice="use a container or an environment with a newer system",
        )
    if sys.platform != "linux":
        yield note(
            f"{platform.system()}: ftwiz is tested on Linux", advice="training works; some readings do not"
        )
    if "microsoft" in kernel.lower():
        yield note("this is WSL", advice="keep runs and models on its own disk, not under /mnt: that is slow")


def look_at_shared_memory(patient: Patient) -> Iterator[Finding]:
    """Report the size of /dev/shm: data loaders and NCCL pass everything through it."""
    if sys.platform != "linux":
        return
    try:
        sizes = os.statvfs(patient.system.path(SHM))
    except OSError as failure:
        yield warning(f"{SHM} cannot be read: {failure.strerror}", advice="mount it: ranks talk through it")
        return
    total, free = sizes.f_blocks * sizes.f_frsize, sizes.f_bavail * sizes.f_frsize
    if total < LEAST_SHM_BYTES:
        yield warning(
            f"{SHM} has only {size(total)}: data loaders and several ranks need more",
            evidence="a container's default is 64 MiB",
            advice="start the container with --shm-size=8g, or with --ipc=host",
        )
    elif free < LEAST_SHM_BYTES // 2:
        yield warning(
            f"{SHM} is nearly full: {size(free)} free of {size(total)}",
            advice="look for what a dead run left there",
            command="ls -lS /dev/shm | head",
        )
    else:
        yield ok(f"{SHM}: {size(free)} free")


def look_at_limits(patient: Patient) -> Iterator[Finding]:
    """Report limits of the shell that a training process inherits."""
    files, processes = _soft(resource.RLIMIT_NOFILE), _soft(resource.RLIMIT_NPROC)
    if files is not None and files < LEAST_OPEN_FILES:
        yield note(
            f"only {files} files may be open at once",
            advice="raise it before training on data in many files",
            command="ulimit -n 65536",
        )
    if processes is not None and processes < LEAST_PROCESSES:
        yield note(
            f"only {processes} processes and threads are allowed to this user",
            advice="a run on 8 devices with data loaders needs thousands of threads",
            command="ulimit -u 65536",
        )
    yield from _sizes()
    yield from _locked_memory(patient)
    if not _is_small(files, LEAST_OPEN_FILES) and not _is_small(processes, LEAST_PROCESSES):
        yield ok(f"open files {_name(files)}, processes {_name(processes)}")


def look_at_time(patient: Patient) -> Iterator[Finding]:
    """Report what ends a run from outside: a batch job's time, a shell's CPU time."""
    seconds = _soft(resource.RLIMIT_CPU)
    if seconds is not None:
        yield warning(
            f"a process here is killed after {seconds} s of CPU time",
            evidence="RLIMIT_CPU, as on login nodes",
            advice="train on a compute node",
        )
    environ = patient.environ
    job = environ.get("SLURM_JOB_ID")
    if job is None:
        if patient.system.has("sbatch"):
            yield note(
                "SLURM is here, and this shell is not inside one of its jobs",
                advice="the devices seen here may not be those of the job: run doctor inside it",
                command="srun --gpus=1 --pty ftwiz doctor",
            )
        return
    left = _left(environ.get("SLURM_JOB_END_TIME"))
    what = f"inside SLURM job {job}" + (f": {left / 3600:.1f} h left" if left is not None else "")
    advice = "start with ftwiz run --foreground, and let SLURM warn it in time: #SBATCH --signal=B:USR1@300"
    is_short = left is not None and left < WINDING_DOWN_SECONDS
    yield warning(what, advice=advice) if is_short else note(what, advice=advice)


def _glibc() -> tuple[int, ...] | None:
    with contextlib.suppress(ValueError, OSError):
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        if name == "glibc":
            return tuple(int(part) for part in version.split(".")[:2])
    return None


def _soft(kind: int) -> int | None:
    """Return a soft limit, ``None`` when there is none."""
    value = resource.getrlimit(kind)[0]
    return None if value == resource.RLIM_INFINITY else value


def _sizes() -> Iterator[Finding]:
    memory, file = _soft(resource.RLIMIT_AS), _soft(resource.RLIMIT_FSIZE)
    if memory is not None:
        yield warning(
            f"a process may address only {size(memory)}: GPU drivers reserve far more",
            evidence="RLIMIT_AS",
            advice="lift the limit, or ask for a shell without it",
            command="ulimit -v unlimited",
        )
    if file is not None:
        yield warning(
            f"a file may not be larger than {size(file)}: checkpoints are",
            evidence="RLIMIT_FSIZE",
            advice="lift the limit",
            command="ulimit -f unlimited",
        )


def _locked_memory(patient: Patient) -> Iterator[Finding]:
    limit = _soft(resource.RLIMIT_MEMLOCK)
    ports = patient.machine.ports if patient.machine is not None else ()
    if limit is not None and any(port.is_active for port in ports):
        yield warning(
            f"only {size(limit)} may be locked in memory: InfiniBand and RoCE need it unlimited",
            evidence=f"RLIMIT_MEMLOCK; active: {', '.join(port.name for port in ports if port.is_active)}",
            advice="lift it in /etc/security/limits.conf, or: docker run --ulimit memlock=-1",
        )


def _is_small(value: int | None, least: int) -> bool:
    return value is not None and value < least


def _name(value: int | None) -> str:
    return "without limit" if value is None else str(value)


def _left(end: str | None) -> float | None:
    if end is None or not end.isdigit():
        return None
    return max(0.0, int(end) - time.time())
