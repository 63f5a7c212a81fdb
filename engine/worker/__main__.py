"""``python -m ftwiz.engine.worker RUN_FOLDER [--resume-from checkpoint-40]``: one rank of a run.

Prints nothing on the screen: everything goes into log/rank-N.log of the run folder. Nothing heavy is
imported before that stands.
"""

import argparse
import os
import sys
import time
import traceback
from pathlib import Path
from typing import NoReturn

from ..rundir import RunFolder
from .settings import Rank, rank_of
from .streams import redirect

USAGE_ERROR = 2


def main() -> NoReturn:
    """Run this rank to its end and leave with its exit code."""
    arguments = _parse(sys.argv[1:])
    run, rank = RunFolder(arguments.run_folder.resolve()), rank_of(os.environ)
    redirect(run.rank_log(rank.rank))
    os.environ["TQDM_DISABLE"] = "1"  # progress bars make a log unreadable; events tell the progress
    _train(run, rank, arguments.resume_from)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ftwiz.engine.worker", description="One rank of a run.")
    parser.add_argument("run_folder", type=Path, help="folder made by ftwiz run")
    parser.add_argument("--resume-from", metavar="NAME", help="checkpoint of that run: checkpoint-40")
    parsed = parser.parse_args(arguments)
    if not parsed.run_folder.is_dir():
        print(f"error: {parsed.run_folder}: no such folder", file=sys.stderr)  # noqa: T201 - a usage error
        sys.exit(USAGE_ERROR)
    return parsed


def _train(run: RunFolder, rank: Rank, resume_from: str | None) -> NoReturn:
    from . import exits
    from .peaks import Peaks
    from .voice import Voice

    voice, peaks = Voice(run, rank), Peaks(rank.rank)
    try:
        from .session import run_session

        result = run_session(run, rank, voice, peaks=peaks, resume_from=resume_from)
    except BaseException as error:  # noqa: BLE001 - whatever ends a rank is put on record
        traceback.print_exc()
        code, line = exits.describe(error)
        _tell_failure(voice, code, line)
        step = voice.last_step.step if voice.last_step else None
        exits.leave(run, rank, status="failed", step=step, error=line, peaks=peaks.record())
    exits.leave(run, rank, status=result.status, step=result.step, error=None, peaks=peaks.record())


def _tell_failure(voice: object, code: str, line: str) -> None:
    from ..specs.events import EndEvent
    from .voice import Voice

    assert isinstance(voice, Voice)
    last = voice.last_step
    step, max_steps = (last.step, last.max_steps) if last else (0, 0)
    voice.alert("error", code, line, step)
    voice.event(EndEvent(t=time.time(), status="failed", step=step, max_steps=max_steps, message=line))


if __name__ == "__main__":
    main()
