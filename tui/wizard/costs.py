"""What an answer costs here, for the help on its field: found by planning with it and without."""

from dataclasses import replace

from ...engine.job.schema import allowed, fields
from ..text import safe, size
from .check import Checker, Review
from .measure import grouped, speed_words
from .state import METHODS, Answers, Field, settings_of, with_settings


def cost_words(checker: Checker, answers: Answers, review: Review, field: Field) -> list[str]:
    """Return lines on what a field costs here with the present answers; none where it costs nothing."""
    if field == "method":
        return [f"{method}: {_needs(checker.check(replace(answers, method=method)))}" for method in METHODS]
    if field == "settings":
        return _of_settings(checker, answers, review)
    if review.plan is None or review.plan.estimate is None:
        return []
    if field == "model":
        weights = dict(grouped(review.plan.estimate))["weights"]
        whole = review.plan.estimate.process_bytes
        return [f"weights on each device: {size(weights)} of the {size(whole)} that are needed"]
    if field == "data":
        return [f"its length decides how long it takes: {speed_words(review)}"]
    return []


def _of_settings(checker: Checker, answers: Answers, review: Review) -> list[str]:
    """Explain each key that is set: what it is, what it may be, and what it costs against its default."""
    known = dict(fields())
    lines = []
    for key in settings_of(answers.settings):
        if key in known:
            text = " ".join(str(known[key].get("description", "")).split()).replace("`", "")
            lines.append(f"{safe(key)}: {text} Takes {allowed(known[key])}.")
            without = checker.check(replace(answers, settings=with_settings(answers.settings, {key: None})))
            lines.append(f"  here: {_needs(review)}; without it: {_needs(without)}")
    return lines


def _needs(review: Review) -> str:
    plan = review.plan
    if plan is None:
        return review.plan_problem or next(iter(review.problems.values()), "not known")
    if plan.estimate is None or plan.verdict is None:
        return "not known: this model's shape is not known here"
    word = "does not fit" if plan.verdict.word == "no" else plan.verdict.word
    return f"{size(plan.estimate.process_bytes)} on a device, {word}"
