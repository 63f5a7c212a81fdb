"""The disks that a run would use: where they are mounted, what they are made of, how much is free."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

import psutil

from ..specs.machine import Disk
from .system import System

Medium = Literal["nvme", "ssd", "hdd", "network", "memory", "overlay"]

_NETWORK = re.compile(
    r"9p|afs|beegfs|ceph|cifs|glusterfs|gpfs|lustre|nfs4?|orangefs|smb3|smbfs|wekafs"
    r"|fuse\.(ceph|gcsfuse|glusterfs|goofys|juicefs|rclone|s3fs|sshfs)"
)
_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
_OVERLAY = frozenset({"overlay", "aufs", "fuse.fuse-overlayfs"})
_VIRTUAL = re.compile(r"(vd|xvd)[a-z]+")
"""Disks of virtual machines, which call themselves rotating whatever they lie on."""
_MOST_PARENTS = 8
_OCTAL = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """A mounted file system; ``number`` is ``major:minor`` of its device."""

    point: str
    number: str
    file_system: str
    source: str


def places(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what a run stores, by name: here, runs, models, temporary; each with its absolute path."""
    try:
        here = os.getcwd()  # noqa: PTH109 - the folder may be gone
    except OSError:
        here = "/"
    home = environ.get("HOME") or "/"
    cache = environ.get("HF_HOME") or os.path.join(  # noqa: PTH118 - text in, text out
        environ.get("XDG_CACHE_HOME") or f"{home}/.cache", "huggingface"
    )
    named = {
        "here": here,
        "runs": environ.get("FTWIZ_HOME") or here,
        "models": environ.get("HF_HUB_CACHE") or cache,
        "temporary": environ.get("TMPDIR") or "/tmp",  # noqa: S108 - asked for its size only
    }
    return {name: os.path.normpath(PurePosixPath(here, path)) for name, path in named.items()}


def read_disks(system: System, wanted: Mapping[str, str]) -> tuple[Disk, ...]:
    """Return the disk of each wanted place, each disk once.

    A network file system whose server is gone makes this wait for ever: call it under a time limit.
    """
    mounts = list(read_mounts(system))
    holds: dict[Mount, list[str]] = {}
    for name, path in wanted.items():
        mount = _mount_of(_resolved(system, path), mounts)
        if mount is not None:
            holds.setdefault(mount, []).append(name)
    return tuple(_disk(system, mount, tuple(names)) for mount, names in holds.items())


def read_mounts(system: System) -> Iterator[Mount]:
    """Yield what is mounted, in the order in which it was mounted."""
    text = system.read("/proc/self/mountinfo")
    if text is None:  # macOS
        for part in psutil.disk_partitions(all=False):
            yield Mount(part.mountpoint, "", part.fstype, part.device)
        return
    for line in text.splitlines():
        before, dash, after = line.partition(" - ")
        left, right = before.split(" "), after.split(" ")
        if dash and len(left) >= 5 and len(right) >= 2:  # noqa: PLR2004 - the columns that are always there
            mount = Mount(_unescaped(left[4]), left[2], right[0], _unescaped(right[1]))
            if "\0" not in "".join(mount):
                yield mount


def medium_of(system: System, mount: Mount) -> Medium | None:
    """Return what a file system lies on, ``None`` when neither its kind nor its block device tells."""
    if _NETWORK.fullmatch(mount.file_system):
        return "network"
    if mount.file_system in _MEMORY:
        return "memory"
    if mount.file_system in _OVERLAY:
        return "overlay"
    return _block_medium(system, mount)


def _block_medium(system: System, mount: Mount) -> Medium | None:
    folder = _real(system.path(f"/sys/dev/block/{mount.number}")) if ":" in mount.number else None
    if folder is None and mount.source.startswith("/dev/"):  # btrfs and zfs have a number of their own
        folder = _real(system.path(f"/sys/class/block/{mount.source.rpartition('/')[2]}"))
    for _ in range(_MOST_PARENTS):
        if folder is None:
            return None
        if folder.name.startswith("nvme"):
            return "nvme"
        rotates = _text(folder / "queue" / "rotational")
        below = _first(folder / "slaves")
        if below is not None:  # device mapper, RAID: what is below decides
            folder = below
        elif rotates in ("0", "1"):
            if _VIRTUAL.fullmatch(folder.name):
                return None
            return "hdd" if rotates == "1" else "ssd"
        else:  # a partition: its disk is the folder above
            folder = folder.parent
    return None


def _disk(system: System, mount: Mount, holds: tuple[str, ...]) -> Disk:
    total, free = space_of(system, mount.point)
    return Disk(
        path=mount.point,
        file_system=mount.file_system,
        holds=holds,
        medium=medium_of(system, mount),
        total_bytes=total,
        free_bytes=free,
    )


def space_of(system: System, path: str) -> tuple[int | None, int | None]:
    """Return total and free bytes of the file system of a path."""
    try:
        space = os.statvfs(system.path(path))
    except OSError:
        return None, None
    return space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize


def _mount_of(path: str, mounts: list[Mount]) -> Mount | None:
    """Return the mount with the longest fitting point; of several at one point the last, which is on top."""
    fitting = [mount for mount in mounts if PurePosixPath(path).is_relative_to(mount.point)]
    longest = max((len(mount.point) for mount in fitting), default=0)
    return next((mount for mount in reversed(fitting) if len(mount.point) == longest), None)


def _resolved(system: System, path: str) -> str:
    """Follow links as far as the path exists, without leaving the system's root."""
    root = os.path.realpath(system.root)
    real = os.path.realpath(system.path(path))
    return "/" + os.path.relpath(real, root) if PurePosixPath(real).is_relative_to(root) else path


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def _real(path: Path) -> Path | None:
    real = Path(os.path.realpath(path))
    return real if _is_there(real) else None


def _first(folder: Path) -> Path | None:
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - names only
    except OSError:
        return None
    return _real(folder / names[0]) if names else None


def _is_there(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises where it may not look


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf8", errors="replace").strip()
    except OSError:
        return ""
