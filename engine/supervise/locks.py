"""One run per device: a lock that the kernel lets go of when the supervisor dies, however it dies.

The locks are the user's own (another user's programs are seen by the driver, and shown by ``ftwiz devices``).
"""

import contextlib
import fcntl
import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path

import platformdirs

from ..errors import Refused


def lock_devices(devices: Sequence[str], run_id: str, *, folder: Path | None = None) -> list[int]:
    """Take the lock of every device, or none; return the descriptors that hold them.

    Args:
        devices: Names that stay the same over reboots: UUIDs, or kind and index.
        run_id: Written into the locks, so that whoever waits learns for whom.
        folder: Where the locks are; the user's runtime folder when absent.

    Raises:
        Refused: A device is used by another run; the message names both.
    """
    place = folder or platformdirs.user_runtime_path("ftwiz") / "devices"
    held: list[int] = []
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        for device in dict.fromkeys(devices):
            name = f"{_plain(socket.gethostname())}-{_plain(device)}.lock"
            held.append(_lock(place / name, device, run_id))
    except OSError as error:
        release(held)
        raise Refused(f"{place}: devices cannot be locked: {error.strerror}") from error
    except Refused:
        release(held)
        raise
    return held


def release(held: Sequence[int]) -> None:
    """Let go of locks."""
    for descriptor in held:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _lock(path: Path, device: str, run_id: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another run"
        os.close(descriptor)
        raise Refused(
            f"device {device} is in use by {holder}",
            hint="wait for it, stop it (ftwiz stop), or plan for other devices",
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, run_id.encode(), 0)
    return descriptor


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "_", name)[:100]
