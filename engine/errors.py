"""What can go wrong for a user, and the exit code that each kind of trouble ends with.

FtwizError
├── BadInput    exit 2: the user can mend it by editing what was typed or written
└── Refused     exit 3: the environment does not allow it (busy, missing, too small)

Bugs of our own are asserts and ordinary exceptions, never a ``FtwizError``.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every ftwiz command."""

    OK = 0
    RUN_FAILED = 1
    BAD_INPUT = 2
    REFUSED = 3
    RESUMABLE = 75
    """Stopped early with a whole checkpoint: batch schedulers requeue on it (sysexits' EX_TEMPFAIL)."""
    INTERRUPTED = 130
    TERMINATED = 143


class FtwizError(Exception):
    """A message for the user: what is wrong and where, and in ``hint`` what to do.

    Args:
        message: One line. Names the file, line and key where there is one.
        hint: One line that says what to do, or ``None``.
    """

    exit_code = ExitCode.RUN_FAILED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class BadInput(FtwizError):  # noqa: N818 - read as a sentence: raise BadInput("...")
    """The input is wrong; editing it helps."""

    exit_code = ExitCode.BAD_INPUT


class Refused(FtwizError):  # noqa: N818
    """The environment refuses: stack missing, device busy, folder locked, nothing fits."""

    exit_code = ExitCode.REFUSED
