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

    A row that cannot be scored is listed with the reason, and one that is not fully specified is shown apart.
    Errors are shares of the measured bytes.
    """
    outcomes = list(score(read_rows(rows), tier))
    if as_json:
        click.echo(json.dumps([_as_json(outcome) for outcome in outcomes], indent=1))
        return
    for line in _report(outcomes):
        click.echo(safe(line))


def _as_json(outcome: Outcome) -> dict[str, Any]:
    if outcome.predicted_bytes is None:
        return {"id": outcome.id, "not_scored": outcome.not_scored}
    errors: dict[str, Any] = {"error": outcome.error}
    if outcome.not_scored is not None:
        errors = {"shown_error": outcome.shown_error, "not_scored": outcome.not_scored}
    return {
        "id": outcome.id,
        "predicted_bytes": outcome.predicted_bytes,
        "measured_bytes": outcome.measured_bytes,
        **errors,
        "counter": outcome.counter,
        "source": outcome.source,
    }


def _report(outcomes: list[Outcome]) -> Iterator[str]:
    counted = [(one.source, one.error) for one in outcomes if one.error is not None]
    shown = [
        (one.source, one.shown_error) for one in outcomes if one.error is None and one.shown_error is not None
    ]
    yield from _table(counted)
    if shown:
        yield "not fully specified, shown for honesty and not counted:"
        yield from _table(shown)
    reasons = Counter(outcome.not_scored for outcome in outcomes if outcome.not_scored is not None)
    yield f"{sum(reasons.values())} of {len(outcomes)} rows are not scored"
    for reason, count in reasons.most_common():
        yield f"  {count:>4}  {reason}"


def _table(errors: list[tuple[str, float]]) -> Iterator[str]:
    by_source: dict[str, list[float]] = defaultdict(list)
    for source, error in errors:
        by_source[source].append(error)
    table = [HEAD, *(_line(source, found) for source, found in by_source.items())]
    if by_source:
        table.append(_line("all", [error for found in by_source.values() for error in found]))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        yield "  ".join([cells[0].ljust(widths[0]), *rest])


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
