"""Reading files that someone else named: only ordinary files, up to a size, and never waiting for one."""

import os
import stat
from pathlib import Path

from ..errors import BadInput

KIB = 1024


def shown_path(path: str | Path) -> str:
    """Return a path for a message: as it is, or escaped where a terminal would obey it."""
    text = str(path)
    return text if text.isprintable() else ascii(text)


def shown(value: object) -> str:
    """Return a value for a message: text quoted, control characters escaped, never long."""
    if isinstance(value, dict):
        return "keys and values" if value else "no keys"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:44]}... ({len(text)} characters)"  # noqa: PLR2004 - a line's half


def read_regular(path: Path, *, limit_bytes: int, what: str) -> bytes:
    """Return the bytes of an ordinary file.

    Args:
        path: The file. A named pipe, device or folder is refused, and nothing waits for one.
        limit_bytes: Most that is read.
        what: What the file should be, for the message: ``a job file``.

    Raises:
        BadInput: Missing, unreadable, not an ordinary file, or too large.
    """
    where = shown_path(path)
    try:
        # O_NONBLOCK: opening a named pipe without a writer must return. O_NOCTTY: nor become our terminal.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise BadInput(f"{where}: is {kind_of(status.st_mode)}, not {what}")
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(limit_bytes + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise BadInput(f"{where}: {reason_of(error)}") from None
    except ValueError:
        raise BadInput(f"{where}: a path cannot hold a NUL character") from None
    if len(data) > limit_bytes:
        size = max(status.st_size, len(data)) // KIB
        raise BadInput(f"{where}: has {size:,} KiB; {what} has at most {limit_bytes // KIB:,}")
    return data


def reason_of(error: OSError) -> str:
    """Return what the system says, in lower case: ``no such file or directory``."""
    return (error.strerror or type(error).__name__).lower()


def kind_of(mode: int) -> str:
    """Return what a file is when it is not an ordinary one."""
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device"
