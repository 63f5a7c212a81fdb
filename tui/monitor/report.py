"""How a run stands or ended, as lines of plain words: no glyph that a screen reader would have to guess."""

from ...engine.specs.run import RunState
from ..text import duration, fit, number, percent, safe, shorten, width_of
from .view import Answer, Frame, Pair, next_command

_MOST_PAIRS = 12
_WIDEST = (32, 20, 26, 26)
_WORDS = {True: "right", False: "wrong", None: ""}


def report(frame: Frame, *, over: bool) -> list[str]:
    """Return the answers before and now, the figures, and what to do next."""
    lines = ["", *_answers(frame)] if frame.view.pairs else []
    lines += ["", *_figures(frame)]
    if over:
        lines += _advice(frame)
    return lines


def _answers(frame: Frame) -> list[str]:
    pairs = frame.view.pairs
    shown = pairs[:_MOST_PAIRS]
    steps = [pair.now.step for pair in pairs if pair.now]
    titles = (
        "prompt",
        "expected",
        f"before (step {pairs[0].before.step})",
        f"now (step {max(steps)})" if steps else "",
    )
    table = [titles, *map(_cells, shown)]
    widths = [min(most, max(width_of(row[at]) for row in table)) for at, most in enumerate(_WIDEST)]
    lines = [
        "  ".join(fit(cell, width) for cell, width in zip(row, widths, strict=True) if width).rstrip()
        for row in table
    ]
    if len(shown) < len(pairs):
        lines.append(f"and {len(pairs) - len(shown)} more")
    return lines


def _cells(pair: Pair) -> tuple[str, str, str, str]:
    return safe(pair.prompt), safe(pair.reference or ""), _answer(pair.before), _answer(pair.now)


def _answer(answer: Answer | None) -> str:
    if answer is None:
        return ""
    text = shorten(safe(answer.text).strip() or "(nothing)", 18)
    return f"{_WORDS[answer.matches]:<5}  {text}" if answer.matches is not None else text


def _figures(frame: Frame) -> list[str]:
    view = frame.view
    lines = [_line("state", f"{frame.record.state.value} after {duration(frame.elapsed_seconds)}")]
    if view.latest is not None:
        lines.append(_line("step", f"{view.latest.step:,} of {view.latest.max_steps:,}"))
    if view.loss.points:
        lines.append(_line("loss", f"{number(view.loss.points[0].high)} -> {number(view.final_loss)}"))
    scored = [event.loss for event in view.evals if event.loss is not None]
    if scored:
        lines.append(_line("eval loss", f"{number(scored[0])} -> {number(scored[-1])}"))
    before, now = view.exact_match
    if before is not None:
        lines.append(
            _line("exact match", percent(before) + (f" -> {percent(now)}" if now is not None else ""))
        )
    return lines


def _advice(frame: Frame) -> list[str]:
    record = frame.record
    lines: list[str] = []
    if record.state is RunState.FINISHED and frame.model:
        lines.append(_line("model", safe(frame.model)))
    found = record.diagnosis
    if found is not None:
        lines.append(_line("cause", safe(found.message)))
        lines += [_line("seen", safe(found.evidence))] if found.evidence else []
        lines += [_line("advice", safe(found.advice))] if found.advice else []
    elif record.reason and record.state is not RunState.FINISHED:
        lines.append(_line("reason", safe(record.reason)))
    command = next_command(frame)
    return [*lines, _line("next", safe(command))] if command else lines


def _line(label: str, text: str) -> str:
    return f"{label:<12}  {text}"
