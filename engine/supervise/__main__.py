"""The supervisor's process: ``python -m ftwiz.engine.supervise RUN_FOLDER [--resume-from NAME]``."""

import argparse
import fcntl
import os
import signal
import sys
import time
from pathlib import Path

from ..errors import ExitCode, FtwizError, Refused
from ..job import load_job
from ..rundir import RUNS_ENV, RunFolder
from . import process
from .launch import read_launch
from .locks import lock_devices, release
from .loop import Supervisor
from .recover import Policy

LOCK_SECONDS = 2.0
"""A reader that looks whether the run lives holds the lock for a moment."""


def main() -> int:
    """Supervise one attempt; errors before the launch are one line on stderr, which ``start`` reads."""
    arguments = _parse(sys.argv[1:])
    os.umask(0o077)
    # The supervisor of a run that was started from within another run is no process of that one.
    os.environ.pop(process.MARKER, None)
    if arguments.end_with is not None and not process.end_with_parent(arguments.end_with, signal.SIGTERM):
        return ExitCode.TERMINATED
    run = RunFolder(arguments.run.resolve())
    if home := os.environ.get(RUNS_ENV):  # it means a folder of where we were started
        os.environ[RUNS_ENV] = str(Path(home).absolute())
    try:
        os.chdir(run.path)  # keep no hold on the folder, or the disk, that the user happened to be in
        lock = _lock(run)
        options = load_job(run.job_file).job.run
        launch = read_launch(run)
        devices = lock_devices(launch.devices, run.id)
        supervisor = Supervisor(
            run,
            launch,
            grace_seconds=options.grace_seconds,
            resume_from=arguments.resume_from,
            policy=Policy(on_oom=options.on_oom, on_stall=options.on_stall),
        )
    except FtwizError as error:
        sys.stderr.write(f"{error.message}\n")
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return ExitCode.REFUSED
    supervisor.adopt() if arguments.adopt else supervisor.work()
    release([*devices, lock])
    return ExitCode.OK


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ftwiz.engine.supervise", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER")
    parser.add_argument("--resume-from", metavar="NAME", help="checkpoint folder to go on from")
    parser.add_argument("--adopt", action="store_true", help="take over a run whose supervisor is gone")
    parser.add_argument(
        "--end-with", type=int, metavar="PID", help="save and stop when this one, our parent, dies"
    )
    return parser.parse_args(arguments)


def _lock(run: RunFolder) -> int:
    descriptor = os.open(run.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Refused(f"{run.id} is run by another supervisor") from None
            time.sleep(0.05)
        else:
            return descriptor


if __name__ == "__main__":
    sys.exit(main())
