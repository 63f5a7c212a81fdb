"""The commands that only tell: plan, presets and schema."""

import json
from pathlib import Path

import click


@click.command()
@click.argument("job", metavar="JOB.yaml", type=click.Path(path_type=Path))
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Change a value of the job.")
@click.option(
    "--machine",
    "spec",
    metavar="SPEC",
    help="Plan for another machine: 8xA100-80GB+1TB, or a file of `ftwiz devices --json`.",
)
@click.option("--show", is_flag=True, help="Also print every file that a run would write.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def plan(job: Path, overrides: tuple[str, ...], *, spec: str | None, show: bool, as_json: bool) -> None:
    """Show the plan of a job and its reasons; write and start nothing."""
    from ..engine.hardware import detect
    from ..engine.hardware.written import parse_machine
    from ..engine.job import load_job
    from ..engine.prepare import prepare
    from .show import files_text, plan_text
    from .terminal import columns

    loaded = load_job(job, overrides=overrides)
    machine = detect() if spec is None else parse_machine(spec)
    prepared = prepare(loaded, machine)
    if machine.num_nodes > 1:
        click.echo(f"note: planned for one of the {machine.num_nodes} nodes", err=True)
    if as_json:
        click.echo(prepared.files["plan.json"], nl=False)
        return
    click.echo(plan_text(prepared, columns()))
    if show:
        click.echo("\n" + files_text(prepared), nl=False)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the names as a JSON list.")
def presets(*, as_json: bool) -> None:
    """List the presets: jobs that come with ftwiz, for `ftwiz --preset` and `ftwiz run --preset`."""
    from ..engine.job import preset_names

    names = preset_names()
    click.echo(json.dumps(names) if as_json else "\n".join(names))


@click.command()
def schema() -> None:
    """Print the JSON schema of the job file; editors complete and check job files with it."""
    from ..engine.job import job_schema

    click.echo(json.dumps(job_schema(), indent=2))
