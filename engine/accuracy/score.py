"""Scores rows: asks a tier for every row that can be asked, and says why of the others."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from ..errors import FtwizError, Refused
from ..memory import estimate
from ..memory.ledger import completed
from ..specs.estimate import Estimate
from .case import Case, Counter, predicted_bytes
from .rivals import RIVALS
from .row import NotScored, Row
from .sources import case_of, source_of

TierName = Literal["fast", "exact"]
TIERS: tuple[TierName, ...] = ("fast", "exact")
EXACT_SECONDS = 120.0
"""Time limit of one row in the exact tier."""
UNKNOWN_SOURCE = "other sources"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of a row."""

    id: str
    source: str
    counter: Counter | None = None
    measured_bytes: int | None = None
    predicted_bytes: int | None = None
    not_scored: str | None = None
    """Why it does not count. With a prediction: what nobody knows of the measurement."""
    rivals: dict[str, int] = field(default_factory=dict)
    """Bytes by other estimators that apply."""

    @property
    def error(self) -> float | None:
        """Signed share: 0.05 is 5 % too much; of a row that counts."""
        return None if self.not_scored else self.shown_error

    @property
    def shown_error(self) -> float | None:
        """The same, also of a row that is not fully specified."""
        return share_off(self.predicted_bytes, self.measured_bytes)


def share_off(predicted: int | None, measured: int | None) -> float | None:
    """Return by which share of the measurement a prediction is off; above 0 it is too much."""
    if predicted is None or not measured:
        return None
    return predicted / measured - 1


def score(
    rows: Iterable[Row], tier: TierName = "fast", *, with_rivals: bool = False, remembered: bool = False
) -> Iterator[Outcome]:
    """Yield what came of every row, in their order. A row that fails does not end the others.

    Args:
        rows: Measurements.
        tier: Whom to ask.
        with_rivals: Ask the other estimators too.
        remembered: Of the exact tier, only what was traced before.
    """
    ask = _fast if tier == "fast" else _remembered if remembered else _exact
    for row in rows:
        yield _outcome(row, ask, with_rivals=with_rivals)


def _outcome(row: Row, ask: Callable[[Case], Estimate], *, with_rivals: bool) -> Outcome:
    source = _title(row)
    try:
        case = case_of(row)
    except NotScored as reason:
        return Outcome(id=row.id, source=source, not_scored=str(reason))
    rivals = {rival.name: found for rival in RIVALS if (found := rival.predict(case))} if with_rivals else {}
    try:
        predicted: int | None = predicted_bytes(ask(case), case.counter)
        reason_not = case.missing if predicted else "the estimate is empty"
    except FtwizError as error:
        predicted, reason_not = None, error.message
    except Exception as error:  # noqa: BLE001 - one row's fault must not lose the others; it is shown
        predicted, reason_not = None, f"the estimator failed: {type(error).__name__}: {error}"
    return Outcome(
        id=row.id,
        source=source,
        counter=case.counter,
        measured_bytes=case.measured_bytes,
        predicted_bytes=predicted or None,
        not_scored=reason_not,
        rivals=rivals,
    )


def _title(row: Row) -> str:
    try:
        return source_of(row).title
    except NotScored:
        return UNKNOWN_SOURCE


def _fast(case: Case) -> Estimate:
    return estimate(case.workload)


def _remembered(case: Case) -> Estimate:
    from ..exact import cache  # noqa: PLC0415 - the fast tier must not wait for it

    if cache.load(cache.key_of(case.workload, case.config)) is None:
        raise Refused("not traced when this was written")
    return _exact(case)


def _exact(case: Case) -> Estimate:
    from ..exact import exact_estimate  # noqa: PLC0415 - the fast tier must not wait for it

    traced = exact_estimate(case.workload, case.config, time_limit=EXACT_SECONDS)
    return completed(traced, case.workload)
