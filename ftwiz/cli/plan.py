"""The commands that only tell: plan, presets and schema."""

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..engine.specs.plan import Cluster, Rendezvous

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9])?")
_PORT = re.compile(r"[0-9]{1,5}")
_OPTION = re.compile(r"[a-z][a-z-]{0,40}(=[A-Za-z0-9][A-Za-z0-9@%._:,/=+-]{0,200})?")
MOST_PORT = 65535


@click.command()
@click.argument("job", metavar="[JOB.yaml]", required=False, type=click.Path(path_type=Path))
@click.option("--preset", metavar="NAME", help="Plan a preset instead of a file; see `ftwiz presets`.")
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Change a value of the job.")
@click.option(
    "--machine",
    "spec",
    metavar="SPEC",
    help="Plan for another machine: 8xA100-80GB+1TB, '2 nodes x 8xH100', a file of `ftwiz devices --json`.",
)
@click.option("--hosts", metavar="A,B", help="Names of the nodes, the first where ranks meet: A[:PORT],B.")
@click.option("--rendezvous", type=click.Choice(["static", "c10d"]), default="static", help="How nodes meet.")
@click.option("--slurm", is_flag=True, help="Also make job.sbatch, a batch script for SLURM.")
@click.option("--sbatch", "sbatch", metavar="KEY=VALUE", multiple=True, help="An option of the batch script.")
@click.option("--show", is_flag=True, help="Also print every file that a run would write.")
@click.option(
    "--write",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Write these files into a folder.",
)
@click.option(
    "--explain", "key", metavar="KEY", help="Say what a key of plan, files or job is, and why it is so."
)
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def plan(
    job: Path | None,
    overrides: tuple[str, ...],
    *,
    preset: str | None,
    spec: str | None,
    show: bool,
    folder: Path | None,
    key: str | None,
    as_json: bool,
    **meeting: Any,
) -> None:
    """Show the plan of a job and its reasons; start nothing, and write only what --write asks for."""
    from ..engine.hardware import detect
    from ..engine.hardware.written import parse_machine
    from ..engine.known import known_of
    from ..engine.prepare import prepare
    from ..engine.rundir import write_plan
    from .job import load
    from .show import files_text, plan_text, written_text
    from .terminal import columns

    loaded = load(job, preset, overrides)
    machine = detect() if spec is None else parse_machine(spec)
    cluster = _cluster(machine.num_nodes, **meeting)
    prepared = prepare(loaded, machine, cluster=cluster, measured=known_of(os.environ, machine))
    if folder is not None:
        write_plan(folder, prepared.files)
        click.echo(written_text(prepared, folder))
    elif key is not None:
        from .explain import explanation

        click.echo(explanation(prepared, key, columns()))
    elif as_json:
        click.echo(prepared.files["plan.json"], nl=False)
    else:
        click.echo(plan_text(prepared, columns()))
        if show:
            click.echo("\n" + files_text(prepared), nl=False)


def _cluster(
    num_nodes: int, *, hosts: str | None, rendezvous: "Rendezvous", slurm: bool, sbatch: tuple[str, ...]
) -> "Cluster":
    """Return where the nodes are, after a look at every word that goes into a script."""
    from ..engine.errors import BadInput
    from ..engine.specs.plan import Cluster

    names = tuple(hosts.split(",")) if hosts else ()
    first, _, port = names[0].partition(":") if names else ("", "", "")
    names = (first, *names[1:]) if names else ()
    if bad := [name for name in names if not _HOST.fullmatch(name)]:
        raise BadInput(f"--hosts: {bad[0]!r} is no host name", hint="write --hosts node1:29500,node2")
    if port and not (_PORT.fullmatch(port) and 0 < int(port) <= MOST_PORT):
        raise BadInput(f"--hosts: {port!r} is no port", hint=f"a number from 1 to {MOST_PORT}")
    if names and len({*names}) != num_nodes:
        raise BadInput(
            f"--hosts names {len({*names})} nodes, and the machine has {num_nodes}",
            hint="name each node once, and write the machine as in: --machine '2 nodes x 8xH100'",
        )
    if bad := [option for option in sbatch if not _OPTION.fullmatch(option)]:
        raise BadInput(
            f"--sbatch: {bad[0]!r} is no option", hint="write --sbatch partition=gpu, without dashes"
        )
    return Cluster(
        hosts=names,
        port=int(port or Cluster().port),
        rendezvous=rendezvous,
        sbatch=sbatch if slurm or sbatch else None,
    )


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the names as a JSON list.")
def presets(*, as_json: bool) -> None:
    """List the presets: jobs that come with ftwiz, for `ftwiz --preset` and `ftwiz run --preset`."""
    from ..engine.job import preset_names, preset_summary

    names = preset_names()
    if as_json:
        click.echo(json.dumps(names))
        return
    column = max(map(len, names))
    for name in names:
        click.echo(f"{name:<{column}}  {preset_summary(name)}")


@click.command()
def schema() -> None:
    """Print the JSON schema of the job file; editors complete and check job files with it."""
    from ..engine.job import job_schema

    click.echo(json.dumps(job_schema(), indent=2))
