"""The last page of a run: how it ended, what came of it, and what to do next."""

from ...engine.specs.run import RunState
from ..text import duration, number, percent, safe
from ..widgets.lines import Row, Span, heading
from .samples import paragraph
from .view import Frame, next_command

_HEADINGS = {
    RunState.FINISHED: ("finished", "good"),
    RunState.STOPPED: ("stopped", "warning"),
    RunState.FAILED: ("failed", "error"),
    RunState.LOST: ("lost", "error"),
}


def result(frame: Frame, width: int, height: int) -> list[Row]:
    """How the run ended; nothing while it goes on."""
    if frame.record.state not in _HEADINGS:
        return []
    word, style = _HEADINGS[frame.record.state]
    title: list[Span] = [(word, style), (f"  after {duration(frame.elapsed_seconds)}", "dim")]
    outcome, advice = _outcome(frame, width), _what_to_do(frame, width)
    body = [*outcome, *advice] if frame.record.state is RunState.FINISHED else [*advice, *outcome]
    return [heading(title, width), *body][:height]


def num_result_rows(frame: Frame, width: int) -> int:
    """Return the rows that the end of a run wants."""
    return len(result(frame, width, 1000))


def _outcome(frame: Frame, width: int) -> list[Row]:
    view = frame.view
    rows: list[Row] = []
    if view.latest is not None:
        rows.append(_figure("step", f"{view.latest.step:,} of {view.latest.max_steps:,}"))
    if view.loss.points:
        first = view.loss.points[0].high
        rows.append(_change("loss", number(first), number(view.final_loss), better=view.broken_step is None))
    scored = [event.loss for event in view.evals if event.loss is not None]
    if scored:
        rows.append(
            _change("eval loss", number(scored[0]), number(scored[-1]), better=scored[-1] < scored[0])
        )
    before, now = view.exact_match
    if before is not None and now is not None:
        rows.append(_change("exact match", percent(before), percent(now), better=now > before))
    if frame.model is not None and frame.record.state is RunState.FINISHED:
        rows += _labelled("model", safe(frame.model), width, "bright")
    return rows


def _what_to_do(frame: Frame, width: int) -> list[Row]:
    record = frame.record
    rows: list[Row] = []
    found = record.diagnosis
    if found is not None:
        rows += _labelled("cause", safe(found.message), width, "error")
        rows += _labelled("seen", safe(found.evidence), width, "dim") if found.evidence else []
        rows += _labelled("advice", safe(found.advice), width, "text") if found.advice else []
    elif record.reason and record.state is not RunState.FINISHED:
        rows += _labelled("reason", safe(record.reason), width, "text")
    command = next_command(frame)
    if command is not None:
        rows += _labelled("next", safe(command), width, "accent")
    return rows


def _figure(label: str, value: str) -> Row:
    return ((f"{label:<12}", "dim"), (value, "bright"))


def _change(label: str, before: str, now: str, *, better: bool) -> Row:
    return (
        (f"{label:<12}", "dim"),
        (before, "text"),
        (" → ", "dim"),
        (now, "good" if better else "warning"),
    )


def _labelled(label: str, text: str, width: int, style: str) -> list[Row]:
    rows = paragraph(text, width - 12, style)
    return [((f"{label if not number else '':<12}", "dim"), *row) for number, row in enumerate(rows)]
