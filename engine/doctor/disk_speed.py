"""How fast a folder's disk writes and reads: a bounded measurement that leaves nothing behind."""

import contextlib
import mmap
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

BLOCK_BYTES = 4 << 20
MOST_BYTES = 256 << 20
SECONDS = 0.3
"""For writing, and again for reading."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DiskSpeed:
    """One sequential stream of 4 MiB blocks, as one rank's offloading would do at least."""

    write_bytes_per_second: float
    read_bytes_per_second: float
    is_direct: bool
    """Past the page cache; when False, the figures may be those of memory."""


def measure(folder: Path, *, seconds: float = SECONDS, most_bytes: int = MOST_BYTES) -> DiskSpeed:
    """Write and read a nameless file in ``folder``.

    Raises:
        OSError: The folder cannot be written, or its disk is full.
    """
    descriptor, is_direct = _nameless(folder)
    try:
        with mmap.mmap(-1, BLOCK_BYTES) as block:
            block.write(os.urandom(BLOCK_BYTES))  # file systems that compress must not win
            written, write_seconds = _write(descriptor, block, seconds, most_bytes)
            if not is_direct and hasattr(os, "posix_fadvise"):
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            read, read_seconds = _read(descriptor, block, seconds, written)
    finally:
        os.close(descriptor)
    return DiskSpeed(
        write_bytes_per_second=written / max(write_seconds, 1e-6),
        read_bytes_per_second=read / max(read_seconds, 1e-6),
        is_direct=is_direct,
    )


def _write(descriptor: int, block: mmap.mmap, seconds: float, most_bytes: int) -> tuple[int, float]:
    start, written = time.perf_counter(), 0
    while written < most_bytes and (written == 0 or time.perf_counter() - start < seconds):
        written += os.writev(descriptor, [block])
    os.fdatasync(descriptor) if hasattr(os, "fdatasync") else os.fsync(descriptor)
    return written, time.perf_counter() - start


def _read(descriptor: int, block: mmap.mmap, seconds: float, size: int) -> tuple[int, float]:
    os.lseek(descriptor, 0, os.SEEK_SET)
    start, read = time.perf_counter(), 0
    while read < size and (read == 0 or time.perf_counter() - start < seconds):
        read += os.readv(descriptor, [block]) or size
    return min(read, size), time.perf_counter() - start


def _nameless(folder: Path) -> tuple[int, bool]:
    """Open a file that has no name, or loses it at once; whatever ends us, the space is given back."""
    for direct in (getattr(os, "O_DIRECT", 0), 0):
        if hasattr(os, "O_TMPFILE"):
            with contextlib.suppress(OSError):
                return os.open(folder, os.O_TMPFILE | os.O_RDWR | direct, 0o600), bool(direct)
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=".ftwiz-doctor-")
    Path(name).unlink()
    return descriptor, False
