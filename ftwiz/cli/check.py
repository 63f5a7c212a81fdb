"""The command that tries a job before it is run."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..engine.errors import ExitCode

if TYPE_CHECKING:
    from ..engine.probe import Comparison, Result, Smoke

COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}
LIMIT_SECONDS = 900
NAMES = {
    "allocated_bytes": "allocated",
    "reserved_bytes": "reserved",
    "process_bytes": "process",
    "grown_bytes": "resident",
}


@click.command()
@click.argument("job", metavar="JOB.yaml", type=click.Path(path_type=Path))
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Change a value of the job.")
@click.option(
    "--smoke",
    "num_steps",
    type=click.IntRange(2, 1000),
    metavar="N",
    help="Then run it for N steps at half its length and at its length, and measure.",
)
@click.option(
    "--limit",
    "seconds",
    type=click.IntRange(1, 86_400),
    default=LIMIT_SECONDS,
    metavar="SECONDS",
    help=f"How long the steps may take together; {LIMIT_SECONDS}.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def check(
    job: Path, overrides: tuple[str, ...], *, num_steps: int | None, seconds: int, as_json: bool
) -> int:
    """Find everything that can fail in a job, before it fails.

    Ends with 0 when nothing stands in its way, 1 when something does, 2 when the job file cannot be read,
    and 3 when the machine refuses the steps.
    """
    from ..engine.doctor import examine, meet
    from ..engine.hardware import detect
    from ..engine.job import load_job
    from ..engine.probe import Surroundings, check_job, look_at_findings
    from ..engine.rundir import runs_root

    loaded = load_job(job, overrides=overrides)
    machine = detect()
    patient = meet(lambda: machine, runs=runs_root(os.environ))  # torch is asked meanwhile
    around = Surroundings(machine=machine, environ=os.environ)
    found = [_said(result, as_json=as_json) for result in check_job(loaded, around)]
    found += [_said(result, as_json=as_json) for result in look_at_findings(examine(patient))]
    smoke = None
    if num_steps is not None and not any(result.level == "problem" for result in found):
        from ..engine.probe import results, smoke_test

        smoke = smoke_test(
            loaded, machine, os.environ, num_steps=num_steps, seconds=seconds, narrate=_narrate
        )
        found += [_said(result, as_json=as_json) for result in results(smoke)]
    if as_json:
        click.echo(json.dumps(_as_json(found, smoke), indent=2))
    else:
        click.echo("\n".join([*_table(smoke), _summary(found, wanted=num_steps is not None, smoke=smoke)]))
    return ExitCode.RUN_FAILED if any(result.level == "problem" for result in found) else ExitCode.OK


def _narrate(text: str) -> None:
    click.echo(text, err=True)


def _said(result: "Result", *, as_json: bool) -> "Result":
    """Print a result as soon as it is there."""
    from ..tui.text import safe

    if not as_json:
        level = _coloured(f"{result.level:<8}", COLOURS[result.level])
        click.echo(f"{level} {result.check:<13} {safe(result.what)}")
        if result.advice:
            click.echo(f"{'':<22} do: {safe(result.advice)}")
    return result


def _coloured(text: str, colour: str) -> str:
    wanted = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return click.style(text, fg=colour, bold=True) if wanted else text


def _summary(found: list["Result"], *, wanted: bool, smoke: "Smoke | None") -> str:
    problems = sum(result.level == "problem" for result in found)
    warnings = sum(result.level == "warning" for result in found)
    counted = f"{warnings} warning{'' if warnings == 1 else 's'}"
    if not problems:
        tried = "it ran" if smoke else "nothing was found that stands in its way"
        return f"\n{tried}: {counted}"
    skipped = "; no steps were made" if wanted and smoke is None else ""
    return f"\n{problems} problem{'' if problems == 1 else 's'}, {counted}{skipped}"


def _table(smoke: "Smoke | None") -> Iterator[str]:
    from ..engine.probe import comparisons

    if smoke is None or not (compared := comparisons(smoke)):
        return
    yield f"\n{'tokens':>10}  {'memory':<10} {'measured':>12} {'predicted':>12} {'error':>8}"
    for one in compared:
        error = "n/a" if one.error is None else f"{one.error:+.1%}"
        yield (
            f"{one.tokens:>10,}  {NAMES[one.counter]:<10} {_size(one.measured_bytes):>12} "
            f"{_size(one.predicted_bytes):>12} {error:>8}"
        )
    if smoke.fit is not None:
        for name, label in NAMES.items():
            line = smoke.fit.lines.get(name)
            is_shown = line is not None and any(one.counter == name for one in compared)
            if line is not None and is_shown:
                yield f"{label} = {_size(line.fixed_bytes)} + {line.bytes_per_token:,.0f} B x tokens"


def _size(num_bytes: float | None) -> str:
    from ..engine.probe.result import size

    return size(num_bytes)


def _as_json(found: list["Result"], smoke: "Smoke | None") -> dict[str, Any]:
    body: dict[str, Any] = {"version": 1, "checks": [asdict(result) for result in found], "smoke": None}
    if smoke is not None:
        body["smoke"] = _smoke_as_json(smoke)
    return body


def _smoke_as_json(smoke: "Smoke") -> dict[str, Any]:
    from ..engine.probe import comparisons

    fit = None
    if smoke.fit is not None:
        fit = {name: asdict(line) for name, line in smoke.fit.lines.items()}
    return {
        "trials": [
            {
                "sequence_tokens": length,
                "state": outcome.state,
                "timed_out": outcome.timed_out,
                "seconds": round(outcome.seconds, 3),
                "diagnosis": asdict(outcome.diagnosis) if outcome.diagnosis else None,
                "measured": asdict(outcome.row) if outcome.row else None,
            }
            for length, outcome in smoke.outcomes.items()
        ],
        "compared": [_compared_as_json(one) for one in comparisons(smoke)],
        "fit": fit,
    }


def _compared_as_json(one: "Comparison") -> dict[str, Any]:
    return {**asdict(one), "error": one.error}
