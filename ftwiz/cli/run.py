"""The commands that start something: run and resume."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..engine.errors import ExitCode, Refused
from .follow import Follow, follow_options, say, start_and_follow
from .job import load

if TYPE_CHECKING:
    from ..engine.job import LoadedJob
    from ..engine.rundir import RunFolder


@click.command()
@click.argument("job", metavar="[JOB.yaml]", required=False, type=click.Path(path_type=Path))
@click.option("--preset", metavar="NAME", help="Run a preset instead of a file; see `ftwiz presets`.")
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Change a value of the job.")
@click.option("--name", help="Name of the run; the file's name when absent.")
@click.option("--dry-run", is_flag=True, help="Print the plan and every file, write nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before code that comes with the model is run.")
@follow_options
def run(
    job: Path | None,
    *,
    preset: str | None,
    overrides: tuple[str, ...],
    name: str | None,
    dry_run: bool,
    yes: bool,
    **follow: bool,
) -> int:
    """Plan a job, write its run folder, launch it and follow it.

    Leaving (Ctrl-C) does not end the training. Exit codes: 0 finished, 1 failed, 75 stopped with a
    checkpoint to go on from.
    """
    how = Follow(**follow)
    loaded = load(job, preset, (*overrides, *([f"run.name={name}"] if name else [])))
    if dry_run:
        _show(loaded, as_json=how.as_json)
        return ExitCode.OK
    model = loaded.job.model
    if model.trust_remote_code and not yes and sys.stdin.isatty():
        click.confirm(f"Run Python code that comes with {model.name_or_path!r}?", abort=True, err=True)
    return launch(loaded, how)


def launch(loaded: "LoadedJob", how: Follow | None = None) -> int:
    """Plan a job, write its run folder, start it and follow it; return the exit code of the command.

    Raises:
        FtwizError: The job, the model or the data is wrong, or the machine refuses.
    """
    from ..engine.hardware import detect
    from ..engine.known import known_of
    from ..engine.prepare import check_stack, prepare, write
    from ..engine.rundir import runs_root

    machine = detect()
    prepared = prepare(loaded, machine, measured=known_of(os.environ, machine))
    strategy = prepared.plan.strategy
    check_stack(strategy.backend, packs=strategy.quantization != "none")
    return start_and_follow(write(prepared, runs_root(os.environ)), how or Follow())


@click.command()
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Change a value of the demo.")
@follow_options
def demo(*, overrides: tuple[str, ...], **follow: bool) -> int:
    """Train a tiny model on the embedded demo: the main job, in about a minute, without a GPU.

    Nothing is downloaded: the model is built from a seed and the data comes with ftwiz.
    """
    return launch(load(None, "demo", overrides), Follow(**follow))


@click.command()
@click.argument("run", metavar="[RUN]", required=False)
@click.option("--replan", is_flag=True, help="With the next plan that needs less memory; same global batch.")
@follow_options
def resume(run: str | None, *, replan: bool, **follow: bool) -> int:
    """Go on from the newest whole checkpoint; of the newest run when none is named."""
    from ..engine.checkpoints import look
    from ..engine.prepare import check_stack
    from ..engine.rundir import find, runs_root
    from ..engine.supervise import refuse_to_resume, tend

    how = Follow(**follow)
    folder = find(runs_root(os.environ), run)
    tend(folder)
    refuse_to_resume(folder)
    check_stack()
    found = look(folder.checkpoints)
    say(f"{path.name} is passed over: {reason}" for path, reason in found.skipped)
    name = found.newest.name if found.newest else None
    if replan:
        say([f"{folder.id} goes on with another plan: {_replanned(folder, name)}"])
    say([f"{folder.id} goes on from {name or 'the beginning: it has no whole checkpoint'}"])
    return start_and_follow(folder, how, resume_from=name)


def _replanned(run: "RunFolder", checkpoint: str | None) -> str:
    from ..engine.supervise import replan

    change = replan(run, keeps_state=checkpoint is not None)
    if change is None:
        where = f" that can read {checkpoint}" if checkpoint else ""
        raise Refused(f"{run.id}: no plan{where} needs less memory", hint="see: ftwiz plan JOB.yaml")
    return change


def _show(loaded: "LoadedJob", *, as_json: bool) -> None:
    from ..engine.hardware import detect
    from ..engine.known import known_of
    from ..engine.prepare import prepare
    from .show import files_text, plan_text
    from .terminal import columns

    machine = detect()
    prepared = prepare(loaded, machine, measured=known_of(os.environ, machine))
    if as_json:
        click.echo(prepared.files["plan.json"], nl=False)
        return
    click.echo(plan_text(prepared, columns()))
    click.echo("\n" + files_text(prepared), nl=False)
