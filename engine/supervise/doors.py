"""What other rooms ask of the supervisor: start, stop, resume, and how a run stands."""

import contextlib
import fcntl
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import FrameType

from .. import checkpoints
from ..errors import BadInput, ExitCode, Refused
from ..rundir import RunFolder
from ..specs.run import ProcessIdentity, RunRecord, RunState
from . import process
from .evidence import newest_checkpoint
from .launch import marker_of, read_launch
from .preflight import check_disk, planned_disk_bytes

HANDSHAKE_SECONDS = 60.0
POLL_SECONDS = 0.05
FOREGROUND_POLL_SECONDS = 0.5
SILENT_SECONDS = 60.0
"""A supervisor on another host that has not sampled for so long is taken for dead."""
_SIGNALS_OF_THE_FOREGROUND = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def start(run: RunFolder, *, resume_from: str | None = None, foreground: bool = False) -> None:
    """Start a supervisor in a session of its own; return when it holds the run and has launched it.

    Args:
        run: A run folder with a plan and a record.
        resume_from: Name of the checkpoint folder to go on from.
        foreground: The run saves and stops when this process dies.

    Raises:
        BadInput: The folder is not a run, or its plan cannot be read.
        Refused: The run is alive, is somebody else's, has no room on its disk, or the supervisor could not
            start.
    """
    record = status(run)
    _refuse_if_alive(run, record)
    _refuse_if_foreign(run)
    read_launch(run)
    check_disk(run, planned_disk_bytes(run))
    told_before = _size(run)
    arguments = ["-P", "-m", "ftwiz.engine.supervise", str(run.path)]
    arguments += ["--resume-from", resume_from] if resume_from else []
    arguments += ["--end-with", str(os.getpid())] if foreground else []
    pid = spawn_supervisor(run, arguments)
    wait_for_handshake(run, pid, told_before)


def supervise_here(run: RunFolder, *, resume_from: str | None = None) -> RunRecord:
    """Run to the end in the foreground, for batch jobs and containers.

    SIGTERM, SIGINT and SIGUSR1 save and stop within the grace period; a second SIGINT stops at once. The
    supervisor is a process of its own that saves and stops when this one is killed. Main thread only.

    Returns:
        The final record; ``exit_code`` says what to leave with.

    Raises:
        BadInput: As ``start``.
        Refused: As ``start``.
    """
    with _stop_signals() as interrupts:
        start(run, resume_from=resume_from, foreground=True)
        while not (record := status(run)).state.is_over:
            _pass_on(run, interrupts)
            time.sleep(FOREGROUND_POLL_SECONDS)
    return record


def request_stop(run: RunFolder, *, now: bool = False) -> None:
    """Ask a living run to save and stop, or to stop at once. Returns without waiting.

    Raises:
        Refused: The run is not alive, or the request cannot be written.
    """
    record = status(run)
    left = leftovers(record) if record.state is RunState.LOST else []
    if record.state is RunState.CREATED or (record.state.is_over and not left):
        raise Refused(f"{run.id} is not running: it is {record.state}")
    wanted = run.stop_now_request if now else run.stop_request
    try:
        wanted.touch(mode=0o600)
    except OSError as error:
        raise Refused(f"{wanted}: cannot be written: {error.strerror}") from error
    if now and left:
        process.kill_all(marker_of(record))


def resume(run: RunFolder) -> str | None:
    """Start a run again from its newest whole checkpoint, or from the beginning when there is none.

    Returns:
        The name of the checkpoint.

    Raises:
        Refused: The run is alive or has finished.
    """
    refuse_to_resume(run)
    newest = checkpoints.newest_whole(run.checkpoints)
    start(run, resume_from=newest.name if newest else None)
    return newest.name if newest else None


def refuse_to_resume(run: RunFolder) -> None:
    """Make sure that a run can be started again.

    Raises:
        Refused: It is alive or has finished.
    """
    record = status(run)
    _refuse_if_alive(run, record)
    if record.state is RunState.FINISHED:
        raise Refused(f"{run.id} has finished: there is nothing to resume")


def status(run: RunFolder) -> RunRecord:
    """Return how a run stands: its record, and ``lost`` when that says alive and its supervisor is gone.

    Raises:
        BadInput: There is no record, or it cannot be read.
    """
    record = run.read_record()
    if not _is_deserted(run, record):
        return record
    record = run.read_record()  # it may have ended between the first look and now
    if not _is_deserted(run, record):
        return record
    return replace(
        record,
        state=RunState.LOST,
        reason=_why_lost(record),
        resumable_from=newest_checkpoint(run),
    )


def exit_code(record: RunRecord) -> ExitCode:
    """Return what a command that followed a run to its end leaves with.

    Finished is 0. Stopped is 75 when there is a checkpoint to go on from, so that batch schedulers requeue
    it, and 1 when there is none. Failed and lost are 1.
    """
    if record.state is RunState.FINISHED:
        return ExitCode.OK
    if record.state is RunState.STOPPED and record.resumable_from:
        return ExitCode.RESUMABLE
    return ExitCode.RUN_FAILED


def leftovers(record: RunRecord) -> list[ProcessIdentity]:
    """Return the living processes on this host that carry the run's mark: of a lost run they train on."""
    return process.members(marker_of(record))


def _is_deserted(run: RunFolder, record: RunRecord) -> bool:
    if record.state.is_over or record.supervisor is None:
        return False
    if record.host == socket.gethostname():
        return not process.alive(record.supervisor) and not _is_locked(run)
    # Another host, or a container that is gone: its processes cannot be seen from here. A supervisor samples
    # every second, and holds the lock where the file system knows of locks.
    return _silent_seconds(run) > SILENT_SECONDS and not _is_locked(run)


def _silent_seconds(run: RunFolder) -> float:
    files = [run.record_file, *run.devices_files]
    return time.time() - max(path.stat().st_mtime for path in files)


def _why_lost(record: RunRecord) -> str:
    assert record.supervisor is not None
    if record.host != socket.gethostname():
        return f"nothing was heard from its supervisor on {record.host} for {SILENT_SECONDS:.0f} s"
    if record.supervisor.boot_id != process.boot_id():
        return "the host was rebooted"
    return f"its supervisor (pid {record.supervisor.pid}) is gone"


def _is_locked(run: RunFolder) -> bool:
    try:
        descriptor = os.open(run.lock_file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def _refuse_if_alive(run: RunFolder, record: RunRecord) -> None:
    is_alive = record.supervisor is not None and not record.state.is_over
    if is_alive and record.supervisor is not None:
        raise Refused(
            f"{run.id} is {record.state} on {record.host} (supervisor pid {record.supervisor.pid})",
            hint=f"look at it: ftwiz watch {run.id}; end it: ftwiz stop {run.id}",
        )
    left = leftovers(record)
    if left:
        raise Refused(
            f"{run.id} has lost its supervisor and still trains (pid {left[0].pid})",
            hint=f"end it first: ftwiz stop {run.id}",
        )


def _refuse_if_foreign(run: RunFolder) -> None:
    # Starting a run executes what its plan says: nobody else may have written that.
    owner = run.path.stat().st_uid
    if owner != os.geteuid():
        raise Refused(f"{run.path}: belongs to user {owner}, and starting it would run their command as you")


def _size(run: RunFolder) -> int:
    try:
        return run.supervisor_log.stat().st_size
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise BadInput(f"{run.supervisor_log}: cannot be read: {error.strerror}") from error


def spawn_supervisor(run: RunFolder, arguments: list[str]) -> int:
    """Start the process with default signals, in a session of its own, and return its pid.

    Not by subprocess: nobody waits for it, and it outlives us.

    Raises:
        Refused: It cannot be started.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    handled = set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}
    try:
        return os.posix_spawn(
            sys.executable,
            [sys.executable, *arguments],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(run.supervisor_log), flags, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigdef=handled,
            setsigmask=(),
        )
    except OSError as error:
        raise Refused(f"the supervisor cannot be started: {error.strerror}") from error


def wait_for_handshake(run: RunFolder, pid: int, told_before: int) -> None:
    """Wait until a new supervisor stands in the record.

    Args:
        run: Its run.
        pid: Its process.
        told_before: Size of its log before it was started.

    Raises:
        Refused: It ended, with its last words, or has not answered in time.
    """
    deadline = time.monotonic() + HANDSHAKE_SECONDS
    while time.monotonic() < deadline:
        record = run.read_record()
        if record.supervisor is not None and record.supervisor.pid == pid:
            return
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG)[0]:
                raise Refused(_last_words(run, told_before))
        time.sleep(POLL_SECONDS)
    raise Refused(
        f"the supervisor (pid {pid}) has not answered for {HANDSHAKE_SECONDS:.0f} s", hint=str(run.path)
    )


def _last_words(run: RunFolder, told_before: int) -> str:
    with contextlib.suppress(OSError), run.supervisor_log.open("rb") as log:
        log.seek(told_before)
        lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        if lines:
            return f"the supervisor ended at once: {lines[-1]}"
    return "the supervisor ended at once and said nothing"


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect the signals that ask for a stop, from before the launch until after the end."""
    assert threading.current_thread() is threading.main_thread()
    taken: list[int] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        taken.append(number)

    before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {
        number: signal.signal(number, on_signal) for number in _SIGNALS_OF_THE_FOREGROUND
    }
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield taken
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _pass_on(run: RunFolder, taken: list[int]) -> None:
    if not taken:
        return
    with contextlib.suppress(Refused):  # it has just ended by itself
        request_stop(run, now=taken.count(signal.SIGINT) > 1)
