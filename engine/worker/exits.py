"""How a rank ends: an exit record that says how, flushed streams, and no interpreter shutdown.

A gloo thread may abort the process while the interpreter finalizes, after a perfect run (torch 2.13 with
CPython 3.13 and older); ``os._exit`` leaves nothing to finalize.
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Literal, NoReturn

from ..errors import FtwizError
from ..rundir import RunFolder, write_atomically
from .settings import Rank

Status = Literal["finished", "stopped", "failed"]
EXIT_CODES: dict[Status, int] = {"finished": 0, "stopped": 0, "failed": 1}
MAX_ERROR_CHARACTERS = 500


def leave(
    run: RunFolder,
    rank: Rank,
    *,
    status: Status,
    step: int | None,
    error: str | None,
    peaks: Mapping[str, int],
) -> NoReturn:
    """Write this rank's exit record, with its memory peaks, and end the process."""
    code = EXIT_CODES[status]
    record = {
        "rank": rank.rank,
        "pid": os.getpid(),
        "status": status,
        "code": code,
        "step": step,
        "t": time.time(),
        "error": error,
        "peaks": dict(peaks),
    }
    try:
        run.exit_folder.mkdir(mode=0o700, exist_ok=True)
        write_atomically(run.exit_file(rank.rank), json.dumps(record) + "\n")
    except OSError as failure:
        print(f"exit record lost: {failure}", file=sys.stderr)  # noqa: T201 - into the rank's log
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def describe(error: BaseException) -> tuple[str, str]:
    """Return a stable code and one line for an error that ended the rank."""
    if isinstance(error, FtwizError):
        line = error.message if error.hint is None else f"{error.message} ({error.hint})"
        return type(error).__name__.lower(), line
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "interrupted"
    text = " ".join(str(error).split())
    code = "device_oom" if type(error).__name__ == "OutOfMemoryError" else "failed"
    return code, f"{type(error).__name__}: {text}"[:MAX_ERROR_CHARACTERS]
