"""The command that follows a run: on one screen, as lines, or as JSON."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..engine.errors import ExitCode
from .terminal import columns, on_a_terminal

if TYPE_CHECKING:
    from ..engine.rundir import RunFolder


@click.command()
@click.argument("run", metavar="[RUN|FOLDER]", required=False)
@click.option("--plain", is_flag=True, help="One line an event instead of a full screen.")
@click.option("--once", is_flag=True, help="Tell how the run stands now, and leave.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object of how the run stands.")
@click.option("--follow", is_flag=True, help="With --json: every event as it comes, one JSON object a line.")
@click.option("--readonly", is_flag=True, help="Offer nothing that changes the run.")
@click.option("--until-done", is_flag=True, help="Leave when the run is over, with its exit code.")
def watch(
    run: str | None,
    *,
    plain: bool,
    once: bool,
    as_json: bool,
    follow: bool,
    readonly: bool,
    until_done: bool,
) -> None:
    """Follow a run (the newest one when none is named); leaving it never stops it.

    RUN is an id or its beginning, as `ftwiz runs` lists them. Without a terminal it writes plain lines.
    """
    if follow and (once or not as_json):
        raise click.UsageError("--follow goes with --json, and not with --once")
    found = _find(run)
    try:
        if as_json:
            _json(found, follow=follow, until_done=until_done)
        elif plain or once or not on_a_terminal():
            _plain(found, once=once, until_done=until_done)
        else:
            _screen(found, readonly=readonly, until_done=until_done)
    except KeyboardInterrupt:
        click.echo(f"left {found.id}; it goes on\nback to it: ftwiz watch {found.id}", err=True)
        raise SystemExit(ExitCode.INTERRUPTED if until_done else ExitCode.OK) from None
    if until_done:
        from ..engine.supervise import exit_code, status

        raise SystemExit(exit_code(status(found)))


def _find(wanted: str | None) -> "RunFolder":
    from ..engine.rundir import find, runs_root

    if wanted is not None and Path(wanted, "run.json").is_file():
        wanted = str(Path(wanted).resolve())
    return find(runs_root(os.environ), wanted)


def _json(run: "RunFolder", *, follow: bool, until_done: bool) -> None:
    from ..tui.monitor.plain import follow_json, snapshot, wait

    if follow:
        follow_json(run, click.echo)
        return
    if until_done:
        wait(run)
    click.echo(json.dumps(snapshot(run)))


def _plain(run: "RunFolder", *, once: bool, until_done: bool) -> None:
    from ..tui.monitor import plain

    width = columns()
    if not once:
        plain.follow_plain(run, click.echo, width=width)
        return
    if until_done:
        plain.wait(run)
    plain.once(run, click.echo, width=width)


def _screen(run: "RunFolder", *, readonly: bool, until_done: bool) -> None:
    from ..tui.monitor import show

    code = show(run, readonly=readonly, until_done=until_done)
    if code:
        raise SystemExit(code)
