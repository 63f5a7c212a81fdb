"""Every row of the corpus is scored or has a reason, and the page is what its generator writes."""

import importlib.util
import math
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from ftwiz.engine.accuracy.row import read_rows
from ftwiz.engine.accuracy.score import Outcome, score
from ftwiz.engine.accuracy.summary import figures
from ftwiz.engine.memory.ledger import BASIS, UNCERTAINTY, VARIED_BASIS, VARIED_UNCERTAINTY

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def outcomes(corpus: Path) -> list[Outcome]:
    return list(score(read_rows(corpus / "memory" / "measured.json")))


def test_every_row_is_scored_or_has_a_reason(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        assert (outcome.error is None) == bool(outcome.not_scored), outcome.id
        assert (outcome.shown_error is None) == (outcome.predicted_bytes is None), outcome.id
        assert "estimator failed" not in (outcome.not_scored or ""), outcome


def test_no_reason_is_about_a_source_that_nobody_looked_up(outcomes: list[Outcome]) -> None:
    reasons = Counter(outcome.not_scored for outcome in outcomes)
    assert not [reason for reason in reasons if reason and "is not known" in reason]


@pytest.fixture
def generator() -> ModuleType:
    path = ROOT / "docs" / "make_accuracy.py"
    spec = importlib.util.spec_from_file_location("make_accuracy", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_fast_tier_says_of_itself_what_the_page_has_found(generator: ModuleType) -> None:
    """Its uncertainty is the 90th percentile of its own errors, rounded up."""
    results = generator.read_page((ROOT / "docs" / "accuracy.md").read_text(encoding="utf8"))
    everything = [line for line in results.lines if line.errors[0] is not None]
    counted = [line for line in everything if not line.missing]
    told = ((counted, UNCERTAINTY, BASIS), (everything, VARIED_UNCERTAINTY, VARIED_BASIS))
    for lines, share, basis in told:
        found = figures([line.errors[0] for line in lines])
        assert found is not None
        assert math.ceil(round(100 * found.p90, 6)) == round(100 * share)
        assert basis.startswith(f"{len(lines)} published")
        assert basis.endswith(f"nine of ten within {100 * share:.0f} %")


def test_the_page_is_what_its_own_rows_give(generator: ModuleType) -> None:
    text = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf8")
    assert generator.page(generator.read_page(text)) == text, "make accuracy"
