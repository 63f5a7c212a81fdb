"""The command that examines machine and installation."""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import click

from .. import __version__
from ..engine.doctor import TORCH_SECONDS, Finding, Level, examine, meet
from ..engine.errors import ExitCode
from ..engine.hardware import detect
from ..engine.rundir import runs_root
from ..tui.text import safe, width_of

LEAST_WIDTH, MOST_WIDTH = 20, 100
HEADINGS = {
    Level.OK: ("well", "green"),
    Level.NOTE: ("notes", "cyan"),
    Level.WARNING: ("warnings", "yellow"),
    Level.ERROR: ("errors", "red"),
}
"""What matters most comes last, where a terminal still shows it."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option(
    "--wait",
    "seconds",
    type=click.FloatRange(min=0.1, max=600),
    default=TORCH_SECONDS,
    metavar="SECONDS",
    help=f"How long torch may take to answer; {TORCH_SECONDS:g}.",
)
def doctor(*, as_json: bool, seconds: float) -> int:
    """Find what keeps training from working here, and say what to do about it.

    Ends with 0 when training can work, and with 3 when it cannot.
    """
    began = time.monotonic()
    patient = meet(detect, runs=runs_root(os.environ), torch_seconds=seconds)
    findings = examine(patient)
    if as_json:
        click.echo(json.dumps(_as_json(findings, time.monotonic() - began), indent=2))
    else:
        columns = shutil.get_terminal_size().columns
        lines = report(findings, width=min(columns, MOST_WIDTH))
        is_coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        click.echo(
            "\n".join(line if is_coloured else click.unstyle(line) for line in lines), color=is_coloured
        )
    return ExitCode.REFUSED if any(finding.level is Level.ERROR for finding in findings) else ExitCode.OK


def report(findings: Sequence[Finding], *, width: int) -> Iterator[str]:
    """Yield the lines of the report, from what is well to what is worst, and one that sums it up."""
    column = max((len(finding.check) for finding in findings), default=0) + 2
    for level, (heading, colour) in HEADINGS.items():
        those = [finding for finding in findings if finding.level is level]
        if not those:
            continue
        yield click.style(heading, fg=colour, bold=True)
        previous = ""
        for finding in those:
            name = "" if finding.check == previous else finding.check
            yield from _lines(finding, name, column, width)
            previous = finding.check
        yield ""
    yield summary(findings)


def summary(findings: Sequence[Finding]) -> str:
    """Return the last line: whether training can work, and how much was found."""
    numbers = {level: sum(finding.level is level for finding in findings) for level in Level}
    counted = [
        f"{number} {level}{'' if number == 1 else 's'}"
        for level, number in reversed(numbers.items())
        if number and level is not Level.OK
    ]
    can = "training cannot work here" if numbers[Level.ERROR] else "training can work here"
    colour = "red" if numbers[Level.ERROR] else "green"
    return click.style(can, fg=colour, bold=True) + (f": {', '.join(counted)}" if counted else "")


def _lines(finding: Finding, name: str, column: int, width: int) -> Iterator[str]:
    indent = " " * (2 + column)
    first, *rest = _wrapped(finding.what, width - len(indent))
    yield "  " + click.style(name.ljust(column), dim=True) + first
    yield from (indent + line for line in rest)
    for label, text in (("seen", finding.evidence), ("do", finding.advice)):
        lead = f"  {label:<6}"
        for line in _wrapped(text or "", width - len(indent) - len(lead)) if text else ():
            yield (
                indent
                + click.style(lead, dim=True)
                + (click.style(line, dim=True) if label == "seen" else line)
            )
            lead = " " * len(lead)
    if finding.command:
        # never broken, so that it can be copied
        yield indent + " " * 8 + "$ " + click.style(safe(finding.command), bold=True)


def _wrapped(text: str, width: int) -> list[str]:
    """Break a text between words; a word that is wider than a line, as a path may be, stays whole."""
    width = max(width, LEAST_WIDTH)
    lines: list[str] = []
    for word in safe(text).split():
        if lines and width_of(lines[-1]) + 1 + width_of(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines or [""]


def _as_json(findings: Sequence[Finding], seconds: float) -> dict[str, Any]:
    worst = max((finding.level for finding in findings), key=list(Level).index, default=Level.OK)
    return {
        "version": 1,
        "ftwiz": __version__,
        "level": worst,
        "can_train": worst is not Level.ERROR,
        "seconds": round(seconds, 3),
        "findings": [asdict(finding) for finding in findings],
    }
