"""The command that compares the estimate with measurements that were published."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ..engine.accuracy.row import read_rows
from ..engine.accuracy.score import Outcome, TierName, score
from ..engine.accuracy.summary import figures
from ..tui.text import safe

HEAD = ("SOURCE", "ROWS", "MEDIAN", "MEAN", "P90", "WORST", "BIAS", "WITHIN 5 %", "10 %")


@click.command()
@click.argument("rows", type=click.Path(path_type=Path))
@click.option(
    "--tier",
    type=click.Choice(["fast", "exact"]),
    default="fast",
    show_default=True,
    help="exact traces the real libraries: seconds a row, remembered.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list with an object for every row.")
def accuracy(rows: Path, *, tier: TierName, as_json: bool) -> None:
    """Compare the memory estimate with measurements: a JSON list of rows, as docs/accuracy.md describes it.

    A row that cannot be scored is listed with the reason. Errors are shares of the measured bytes.
    """
    outcomes = list(score(read_rows(rows), tier))
    if as_json:
        click.echo(json.dumps([_as_json(outcome) for outcome in outcomes], indent=1))
        return
    for line in _report(outcomes):
        click.echo(safe(line))


def _as_json(outcome: Outcome) -> dict[str, Any]:
    if outcome.not_scored is not None:
        return {"id": outcome.id, "not_scored": outcome.not_scored}
    return {
        "id": outcome.id,
        "predicted_bytes": outcome.predicted_bytes,
        "measured_bytes": outcome.measured_bytes,
        "error": outcome.error,
        "counter": outcome.counter,
        "source": outcome.source,
    }


def _report(outcomes: list[Outcome]) -> Iterator[str]:
    by_source: dict[str, list[float]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.error is not None:
            by_source[outcome.source].append(outcome.error)
    table = [HEAD, *(_line(source, errors) for source, errors in by_source.items())]
    if by_source:
        table.append(_line("all", [error for errors in by_source.values() for error in errors]))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        yield "  ".join([cells[0].ljust(widths[0]), *rest])
    reasons = Counter(outcome.not_scored for outcome in outcomes if outcome.not_scored is not None)
    yield f"{sum(reasons.values())} of {len(outcomes)} rows are not scored"
    for reason, count in reasons.most_common():
        yield f"  {count:>4}  {reason}"


def _line(source: str, errors: list[float]) -> tuple[str, ...]:
    found = figures(errors)
    assert found is not None
    shares = (found.median, found.mean, found.p90, found.worst)
    return (
        source,
        str(found.num_rows),
        *(f"{share:.1%}" for share in shares),
        f"{found.bias:+.1%}",
        str(found.num_near),
        str(found.num_wide),
    )
