"""Takes over a run whose supervisor was killed: training has gone on, and somebody has to see how it ends."""

import os
import socket
import time
from pathlib import Path

from ..errors import FtwizError
from ..rundir import RunFolder
from ..specs.run import RunRecord, RunState
from . import process
from .doors import spawn_supervisor, status, wait_for_handshake

RETRY_SECONDS = 10.0
_failed_at: dict[Path, float] = {}
"""Runs that could not be taken over, and when: a viewer asks several times a second."""


def tend(run: RunFolder) -> RunRecord:
    """Return how a run stands, after starting a new supervisor for it where its own is gone.

    What cannot be taken over (another host, another user's, another boot) stays ``lost``.

    Raises:
        BadInput: There is no record, or it cannot be read.
    """
    record = status(run)
    if record.state is not RunState.LOST or not _can_be_adopted(run, record):
        return record
    if time.monotonic() - _failed_at.get(run.path, float("-inf")) < RETRY_SECONDS:
        return record
    try:
        told_before = run.supervisor_log.stat().st_size if run.supervisor_log.exists() else 0
        pid = spawn_supervisor(run, ["-P", "-m", "ftwiz.engine.supervise", str(run.path), "--adopt"])
        wait_for_handshake(run, pid, told_before)
    except (FtwizError, OSError):  # another command was faster, or the folder cannot be written
        _failed_at[run.path] = time.monotonic()
    return status(run)


def _can_be_adopted(run: RunFolder, record: RunRecord) -> bool:
    """Starting a supervisor runs what the folder says: only for whoever made it."""
    supervisor = record.supervisor
    return (
        supervisor is not None
        and bool(record.attempts)
        and record.host == socket.gethostname()
        and supervisor.boot_id == process.boot_id()
        and run.path.stat().st_uid == os.geteuid()
    )
