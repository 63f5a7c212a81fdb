"""How a command follows a run: on the monitor's screen, in lines, as JSON, or not at all."""

import contextlib
import errno
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import click

from ..engine import supervise
from ..engine.errors import ExitCode
from ..engine.rundir import RunFolder
from .terminal import columns, on_a_terminal

OPTIONS = (
    click.option("--detach", is_flag=True, help="Start it, print its id and leave."),
    click.option(
        "--foreground",
        is_flag=True,
        help="For batch jobs: SIGTERM, SIGINT and SIGUSR1 save and stop; exit 75 when it can be resumed.",
    ),
    click.option("--no-tui", is_flag=True, help="Follow in plain lines, also on a terminal."),
    click.option("--json", "as_json", is_flag=True, help="Print the events as JSON lines."),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Follow:
    """How the user wants to follow."""

    detach: bool = False
    foreground: bool = False
    no_tui: bool = False
    as_json: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be had together."""
        if self.detach and self.foreground:
            raise click.UsageError("--detach and --foreground exclude each other")


def follow_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of ``Follow``."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def start_and_follow(run: RunFolder, how: Follow, *, resume_from: str | None = None) -> int:
    """Start a run and follow it as the user wants; return the exit code of the command."""
    if how.foreground:
        return _in_foreground(run, how, resume_from)
    supervise.start(run, resume_from=resume_from)
    if how.detach:
        click.echo(json.dumps({"id": run.id, "path": str(run.path)}) if how.as_json else run.id)
        say(_way_back(run))
        return ExitCode.OK
    if not how.as_json and not how.no_tui and on_a_terminal():
        from ..tui.monitor import run_monitor

        code = run_monitor(run)
        say(ending(run) if supervise.status(run).state.is_over else _way_back(run)[1:])
        return code
    return _in_lines(run, how)


def say(lines: Iterable[str]) -> None:
    """Narrate on stderr; a terminal that is gone does not matter."""
    with contextlib.suppress(OSError):
        for line in lines:
            click.echo(line, err=True)


def ending(run: RunFolder) -> list[str]:
    """Return how a run ended, what came of it and what to do next."""
    from ..tui.monitor import plain

    lines: list[str] = []
    plain.once(run, lines.append)
    return lines


def _in_lines(run: RunFolder, how: Follow) -> int:
    try:
        _narrate(run, how)
    except (KeyboardInterrupt, OSError) as error:
        if isinstance(error, OSError):
            _forget_stdout(error)
        # A second Ctrl-C while the hints are written must not end in a traceback either.
        with contextlib.suppress(KeyboardInterrupt):
            say([f"left {run.id}: training goes on", *_way_back(run)])
        return ExitCode.OK
    _say_ending(run, how)
    return supervise.exit_code(supervise.status(run))


def _in_foreground(run: RunFolder, how: Follow, resume_from: str | None) -> int:
    narrator = threading.Thread(target=_narrate_quietly, args=(run, how), daemon=True)
    narrator.start()
    record = supervise.supervise_here(run, resume_from=resume_from)
    narrator.join(timeout=10)
    _say_ending(run, how)
    return supervise.exit_code(record)


def _say_ending(run: RunFolder, how: Follow) -> None:
    # Plain lines end with it already; a person on stderr still wants to see it when those went elsewhere.
    if how.as_json or (sys.stderr.isatty() and not sys.stdout.isatty()):
        say(ending(run))


def _narrate_quietly(run: RunFolder, how: Follow) -> None:
    try:
        _narrate(run, how)
    except OSError as error:
        _forget_stdout(error)


def _narrate(run: RunFolder, how: Follow) -> None:
    from ..tui.monitor import plain

    if how.as_json:
        plain.follow_json(run, _write)
    else:
        plain.follow_plain(run, _write, width=columns())


def _write(text: str) -> None:
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
    sys.stdout.flush()


def _forget_stdout(error: OSError) -> None:
    """Whoever read our output is gone and the run is not: Python must not complain about it at its end."""
    if error.errno not in {errno.EPIPE, errno.EIO}:
        raise error
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _way_back(run: RunFolder) -> list[str]:
    return [f"follow it: ftwiz watch {run.id}", f"stop it:   ftwiz stop {run.id}"]
