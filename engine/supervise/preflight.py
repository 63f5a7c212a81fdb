"""What is looked at before ranks start: room on the disk, and locks of builds that died.

What else could be in the way is refused where it is known: devices and the run folder by their locks,
packages by ``prepare``, memory by the planner, a lost port by another attempt.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from ..errors import FtwizError, Refused
from ..memory import estimate
from ..rundir import RunFolder
from .measured import read_planned

GIB = 1 << 30
YOUNG_SECONDS = 10.0
"""A lock that was made just now may be of a builder that is not seen yet."""
NETWORK = ("nfs", "lustre", "gpfs", "ceph", "cifs", "smb", "beegfs", "fuse.", "9p")
"""File systems on which the builder may sit on another host."""


def check_disk(run: RunFolder, needed: int | None) -> None:
    """Make sure that what the plan will write fits on the disk of the run folder.

    What earlier attempts have written is counted as free: it is written over or rotated away.

    Raises:
        Refused: It does not; the message has both figures.
    """
    if needed is None:
        return
    try:
        free = shutil.disk_usage(run.path).free + _size(run.checkpoints)
    except OSError:
        return
    if needed > free:
        raise Refused(
            f"{run.path}: {free / GIB:.2f} GiB are free, and checkpoints and model take "
            f"{needed / GIB:.2f} GiB",
            hint="free space, lower train.save_total_limit, or choose another disk with FTWIZ_HOME",
        )


def clear_dead_locks(environ: Mapping[str, str]) -> list[str]:
    """Remove locks of extension builds that nobody here holds; return a line for each.

    Whoever needs the extension would wait for such a lock for ever (torch 2.13, utils/file_baton.py). On
    network file systems the builder may be on another host: those are left, and ``ftwiz doctor`` tells.
    """
    cleared = []
    locks = [lock for lock in _locks(environ) if _is_local(lock) and _age_seconds(lock) > YOUNG_SECONDS]
    held = _open_files() if locks else set()
    for lock in locks:
        if str(lock) in held:
            continue
        with contextlib.suppress(OSError):
            lock.unlink()
            cleared.append(f"a dead build left its lock {lock}: it was removed, and the build begins anew")
    return cleared


def planned_disk_bytes(run: RunFolder) -> int | None:
    """Return what checkpoints and model take by the estimate; downloads may lie on other disks."""
    try:
        workload = read_planned(run).workload
    except (FtwizError, OSError):
        return None
    if workload is None:
        return None
    terms = estimate(workload).phase_terms("save", "disk")
    return sum(term.num_bytes for term in terms if term.group == "checkpoints")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _locks(environ: Mapping[str, str]) -> Iterator[Path]:
    home = environ.get("HOME") or os.path.expanduser("~")  # noqa: PTH111 - Path.home() raises without a home
    cache = environ.get("XDG_CACHE_HOME") or str(Path(home) / ".cache")
    root = Path(environ.get("TORCH_EXTENSIONS_DIR") or Path(cache) / "torch_extensions")
    with contextlib.suppress(OSError):
        for pattern in ("*/lock", "*/*/lock"):
            yield from sorted(path for path in root.resolve().glob(pattern) if path.is_file())


def _age_seconds(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _is_local(path: Path) -> bool:
    mounts = [part for part in psutil.disk_partitions(all=True) if path.is_relative_to(part.mountpoint)]
    nearest = max(mounts, key=lambda part: len(part.mountpoint), default=None)
    return nearest is None or not nearest.fstype.startswith(NETWORK)


def _open_files() -> set[str]:
    found: set[str] = set()
    for pid in psutil.pids():
        with contextlib.suppress(OSError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    found.add(str(link.readlink()))
    return found
