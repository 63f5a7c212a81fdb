"""How a command follows a run: on the monitor's screen, in lines, as JSON, or not at all."""

import contextlib
import json
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import click

from ..engine import supervise
from ..engine.errors import ExitCode
from ..engine.rundir import RunFolder
from ..engine.specs.run import RunRecord, RunState

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
    if not how.as_json and not how.no_tui and sys.stdin.isatty() and sys.stdout.isatty():
        from ..tui.monitor import run_monitor

        code = run_monitor(run)
        if supervise.status(run).state.is_over:
            say(ending(run))
        return code
    return _in_lines(run, how)


def say(lines: Iterable[str]) -> None:
    """Narrate on stderr; a terminal that is gone does not matter."""
    with contextlib.suppress(OSError):
        for line in lines:
            click.echo(line, err=True)


def ending(run: RunFolder) -> list[str]:
    """Return how a run ended, what came of it and what to do next."""
    from ..tui.text import safe
    from .summary import outcome

    record = supervise.status(run)
    found = record.diagnosis
    if found is not None:
        lines = [f"{run.id}: failed: {found.message}"]
        lines += [
            f"  {label:<9} {text}"
            for label, text in (("evidence", found.evidence), ("advice", found.advice))
            if text
        ]
        lines += [f"  try       {found.command}"] if found.command else []
    else:
        lines = [f"{run.id}: {record.reason or record.state}"]
    return [safe(line) for line in (*lines, *outcome(run), *_next(run, record))]


def _in_lines(run: RunFolder, how: Follow) -> int:
    try:
        _narrate(run, how)
    except (KeyboardInterrupt, BrokenPipeError):
        # A second Ctrl-C while the hints are written must not end in a traceback either.
        with contextlib.suppress(KeyboardInterrupt):
            say([f"left {run.id}: training goes on", *_way_back(run)])
        return ExitCode.OK
    say(ending(run))
    return supervise.exit_code(supervise.status(run))


def _in_foreground(run: RunFolder, how: Follow, resume_from: str | None) -> int:
    narrator = threading.Thread(target=_narrate_quietly, args=(run, how), daemon=True)
    narrator.start()
    record = supervise.supervise_here(run, resume_from=resume_from)
    narrator.join(timeout=10)
    say(ending(run))
    return supervise.exit_code(record)


def _narrate_quietly(run: RunFolder, how: Follow) -> None:
    with contextlib.suppress(OSError):  # whoever read our output is gone; the run is not
        _narrate(run, how)


def _narrate(run: RunFolder, how: Follow) -> None:
    from ..tui.monitor import plain

    if how.as_json:
        plain.follow_json(run, _write)
    else:
        plain.follow_plain(run, _write)


def _write(text: str) -> None:
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
    sys.stdout.flush()


def _way_back(run: RunFolder) -> list[str]:
    return [f"follow it: ftwiz watch {run.id}", f"stop it:   ftwiz stop {run.id}"]


def _next(run: RunFolder, record: RunRecord) -> list[str]:
    if record.state is RunState.FINISHED:
        return []
    if record.resumable_from and record.state is not RunState.FAILED:
        return [f"  go on     ftwiz resume {run.id}  (from {record.resumable_from})"]
    return [f"  logs      ftwiz logs {run.id}"]
