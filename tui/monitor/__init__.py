"""The monitor: one screen that follows a run folder and never writes to it."""

import signal
import sys

from ...engine import supervise
from ...engine.errors import ExitCode
from ...engine.rundir import RunFolder


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
    failure = show(run, readonly=readonly)
    if failure:
        return failure
    record = supervise.status(run)
    return int(supervise.exit_code(record)) if record.state.is_over else int(ExitCode.OK)


def show(run: RunFolder, *, readonly: bool = False, until_done: bool = False) -> int:
    """Show a run until the user leaves, or with ``until_done`` until it is over.

    Returns:
        0, or 1 when the screen failed, whatever became of the run.

    Raises:
        FtwizError: The run folder cannot be read.
    """
    from .app import Monitor  # noqa: PLC0415 - textual: plain output and --json do without
    from .reader import Reader  # noqa: PLC0415

    reader = Reader(run, readonly=readonly)
    stop = None if readonly else lambda now: supervise.request_stop(run, now=now)
    app = Monitor(reader, stop=stop, until_done=until_done)
    # A viewer whose terminal hangs up has no reason to live, whatever it was started under.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        app.run()
    finally:
        signal.signal(signal.SIGHUP, before)
    if app.failure is not None:
        raise app.failure
    if app.return_code:
        return app.return_code
    if not supervise.status(run).state.is_over:
        sys.stderr.write(f"left {run.id}; it goes on\nback to it: ftwiz watch {run.id}\n")
    return int(ExitCode.OK)
