"""The command that follows a run: on one screen, as lines, or as JSON."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..engine.errors import BadInput, ExitCode
from .terminal import columns, on_a_terminal

if TYPE_CHECKING:
    from ..engine.rundir import RunFolder
    from ..tui.monitor import Look
    from ..tui.monitor.foreign import ForeignReader

_FOREIGN = (
    "trainer_state.json",
    "checkpoint-*/trainer_state.json",
    "trainer_log.jsonl",
    "events.out.tfevents.*",
    "*/events.out.tfevents.*",
    "*/*/events.out.tfevents.*",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class How:
    """What the options of ``ftwiz watch`` say."""

    plain: bool
    once: bool
    as_json: bool
    follow: bool
    readonly: bool
    until_done: bool
    prometheus: Path | None
    replay: float | None
    ascii: bool
    compare: str | None

    def look(self) -> "Look":
        """How the screen is wanted."""
        from ..tui.monitor import Look

        return Look(
            readonly=self.readonly, until_done=self.until_done, ascii=self.ascii, compare=self.compare
        )

    @property
    def is_screen(self) -> bool:
        """Whether a full screen is wanted and can be had."""
        return not (self.plain or self.once or self.as_json or self.prometheus) and on_a_terminal()


@click.command()
@click.argument("run", metavar="[RUN|FOLDER|HOST:FOLDER]", required=False)
@click.option("--plain", is_flag=True, help="One line an event instead of a full screen.")
@click.option("--once", is_flag=True, help="Tell how the run stands now, and leave.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object of how the run stands.")
@click.option("--follow", is_flag=True, help="With --json: every event as it comes, one JSON object a line.")
@click.option("--readonly", is_flag=True, help="Offer nothing that changes the run.")
@click.option("--until-done", is_flag=True, help="Leave when the run is over, with its exit code.")
@click.option(
    "--prometheus",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep this file up to date for a node exporter's textfile collector; with --once write it once.",
)
@click.option("--replay", type=click.FloatRange(min=0.01), metavar="SPEED", help="Show it again, so fast.")
@click.option("--ascii", is_flag=True, help="Draw with ASCII characters alone.")
@click.option("--compare", metavar="RUN", help="Draw another run's loss beside it.")
def watch(run: str | None, **options: Any) -> None:
    """Follow a run (the newest one when none is named); leaving it never stops it.

    RUN is an id or its beginning, as `ftwiz runs` lists them; FOLDER also the output folder of another
    trainer (Hugging Face, LLaMA-Factory, TensorBoard); HOST:FOLDER a run on another host, over your ssh.
    Without a terminal it writes plain lines.
    """
    how = How(**options)
    if how.follow and (how.once or not how.as_json):
        raise click.UsageError("--follow goes with --json, and not with --once")
    from ..tui.monitor.remote import is_remote

    if run is not None and is_remote(run):
        _remote(run, how)
    elif run is not None and _is_foreign(Path(run)):
        _foreign(Path(run), how)
    else:
        _own(_find(run), how)


def _own(found: "RunFolder", how: How) -> None:
    """Follow a run of ftwiz, its folder being here."""
    try:
        _follow(found, how)
    except KeyboardInterrupt:
        click.echo(f"left {found.id}; it goes on\nback to it: ftwiz watch {found.id}", err=True)
        raise SystemExit(ExitCode.INTERRUPTED if how.until_done else ExitCode.OK) from None
    if how.until_done:
        from ..engine.supervise import exit_code, status

        raise SystemExit(exit_code(status(found)))


def _follow(run: "RunFolder", how: How) -> None:
    if how.prometheus is not None:
        from ..tui.monitor.prometheus import keep

        keep(run, how.prometheus, once=how.once)
    elif how.replay is not None:
        _replay(run, how, how.replay)
    elif how.as_json:
        _json(run, follow=how.follow, until_done=how.until_done)
    elif how.is_screen:
        from ..tui.monitor import show

        _leave(show(run, how.look()))
    else:
        _plain(run, once=how.once, until_done=how.until_done)


def _replay(run: "RunFolder", how: How, speed: float) -> None:
    if not how.is_screen:
        raise click.UsageError("--replay needs a terminal of its own, and no other form")
    from ..tui.monitor import show_source
    from ..tui.monitor.replay import Replay

    _leave(show_source(Replay(run, speed=speed), how.look()))


def _remote(wanted: str, how: How) -> None:
    """Follow a run on another host through a copy of its folder."""
    from ..tui.monitor.remote import Mirror

    mirror = Mirror(wanted)
    try:
        mirror.wait()
        if how.is_screen and how.replay is None:
            from ..engine.rundir import RunFolder
            from ..tui.monitor import show_source
            from ..tui.monitor.reader import Reader

            reader = Reader(mirror.run, status=RunFolder.read_record, readonly=True, source=wanted)
            _leave(show_source(reader, how.look()))
            click.echo(f"left {wanted}; it goes on\nback to it: ftwiz watch {wanted}", err=True)
        else:
            _own(mirror.run, how)
    finally:
        mirror.close()


def _is_foreign(folder: Path) -> bool:
    if not folder.is_dir() or (folder / "run.json").exists():
        return False
    return any(next(folder.glob(pattern), None) is not None for pattern in _FOREIGN)


def _foreign(folder: Path, how: How) -> None:
    """Follow what another trainer writes into its output folder."""
    from ..tui.monitor.foreign import ForeignReader

    reader = ForeignReader(folder, sample=_sampler() if how.is_screen else None)
    if how.is_screen:
        from ..tui.monitor import show_source

        _leave(show_source(reader, how.look()))
        return
    _foreign_lines(reader, how)


def _foreign_lines(reader: "ForeignReader", how: How) -> None:
    from ..tui.monitor import plain

    if how.follow or how.prometheus is not None:
        raise BadInput("of another trainer's folder only the screen, --once, --plain and --json are there")
    if how.until_done:
        plain.wait_for(reader)
    frame = reader.read_all()
    if how.as_json:
        click.echo(json.dumps(plain.standing(frame)))
    else:
        plain.tell_frame(frame, click.echo, width=columns())


def _sampler() -> Any:
    """Return what reads this machine's devices, in a thread: asking drivers takes seconds."""
    from .sampling import LocalDevices

    return LocalDevices().newest


def _leave(code: int) -> None:
    if code:
        raise SystemExit(code)


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


def choose_and_watch(root: Path) -> None:
    """Show all runs, open the one that is chosen, and come back when that is left."""
    if not on_a_terminal():
        raise click.UsageError("--watch needs a terminal; without one: ftwiz runs")
    from ..engine.rundir import list_runs
    from ..engine.supervise import status
    from ..tui.monitor import Look, show
    from ..tui.monitor.runs import Runs

    while (chosen := Runs(lambda: list_runs(root), status=status).run()) is not None:
        _leave(show(chosen.run, Look(compare=chosen.compare)))
