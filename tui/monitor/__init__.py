"""The monitor: one screen that follows a run folder and never writes to it."""

import os
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...engine import supervise
from ...engine.errors import ExitCode, FtwizError, Refused
from ...engine.rundir import RunFolder, find, list_runs

if TYPE_CHECKING:
    from .app import Monitor
    from .reader import Source
    from .view import Compared
    from .viewer import Others


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """How the user wants the screen."""

    readonly: bool = False
    """Offer nothing that changes the run."""
    until_done: bool = False
    """Leave when the run is over."""
    ascii: bool = False
    """Draw with ASCII alone."""
    compare: str | None = None
    """Another run to draw beside it."""


def run_monitor(run: RunFolder, *, readonly: bool = False) -> int:
    """Show a run until the user leaves.

    Args:
        run: The run folder.
        readonly: Offer nothing that changes the run.

    Returns:
        The exit code of the run when it is over, 0 when the user left before, 1 when the screen failed.

    Raises:
        FtwizError: The run folder cannot be read.
    """
    failure = show(run, Look(readonly=readonly))
    if failure:
        return failure
    record = supervise.status(run)
    return int(supervise.exit_code(record)) if record.state.is_over else int(ExitCode.OK)


def show(run: RunFolder, look: Look | None = None) -> int:
    """Show a run until the user leaves, or with ``until_done`` until it is over.

    Returns:
        0, or 1 when the screen failed, whatever became of the run.

    Raises:
        FtwizError: The run folder cannot be read.
    """
    from .reader import Reader  # noqa: PLC0415 - plain output and --json do without a screen

    look = look or Look()
    code = show_source(Reader(run, readonly=look.readonly), look, run=run)
    if not code and not supervise.status(run).state.is_over:
        sys.stderr.write(f"left {run.id}; it goes on\nback to it: ftwiz watch {run.id}\n")
    return code


def show_source(reader: "Source", look: Look, *, run: RunFolder | None = None) -> int:
    """Show whatever gives frames; with ``run`` it can be asked to save and to stop.

    Raises:
        FtwizError: What is read cannot be read any more.
    """
    from .app import Monitor  # noqa: PLC0415 - textual

    may_change = run is not None and not look.readonly
    app = Monitor(
        reader,
        stop=(lambda now: supervise.request_stop(run, now=now)) if may_change and run else None,
        save=(lambda: request_save(run)) if may_change and run else None,
        until_done=look.until_done,
        others=_others(run) if run is not None else None,
    )
    app.is_ascii = app.is_ascii or look.ascii
    if look.compare is not None:
        app.compare_with(look.compare)
    return _shown(app)


def _shown(app: "Monitor") -> int:
    # A viewer whose terminal hangs up has no reason to live, whatever it was started under.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        app.run()
    finally:
        signal.signal(signal.SIGHUP, before)
    if app.failure is not None:
        raise app.failure
    return app.return_code or int(ExitCode.OK)


def request_save(run: RunFolder) -> None:
    """Ask a living run for a checkpoint after its next step.

    Raises:
        Refused: The run is not alive, or the request cannot be written.
    """
    record = supervise.status(run)
    if record.state.is_over:
        raise Refused(f"{run.id} is not running: it is {record.state}")
    try:
        run.save_request.touch(mode=0o600)
    except OSError as error:
        raise Refused(f"{run.save_request}: cannot be written: {error.strerror}") from error


def _others(run: RunFolder) -> "Others":
    from .viewer import Others  # noqa: PLC0415 - textual

    def listed() -> list[tuple[str, str]]:
        found = []
        for other in list_runs(run.path.parent)[:50]:
            try:
                found.append((other.id, str(other.read_record().state)))
            except FtwizError:
                continue
        return found

    return Others(listed=listed, load=lambda wanted: load_compared(run, wanted))


def load_compared(run: RunFolder, wanted: str) -> "Compared":
    """Return the loss of another run, named by id, by its beginning or by its folder.

    Raises:
        BadInput: There is none of that name.
    """
    from .reader import Reader  # noqa: PLC0415
    from .view import Compared  # noqa: PLC0415

    other = find(run.path.parent, os.path.abspath(wanted) if "/" in wanted else wanted)  # noqa: PTH100 - '..' is folded
    reader = Reader(other, status=RunFolder.read_record, readonly=True)
    frame = reader.read_all()
    reader.close()
    return Compared(id=other.id, loss=frame.view.loss)
