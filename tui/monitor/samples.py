"""The samples panel: what the model answered before and what it answers now."""

from ..text import beginning, fit, percent, safe, shorten, width_of
from ..widgets.lines import Row, Span, cut, heading
from .devices import bar
from .view import Answer, Frame, Pair

_GAP = 2
_MARK_WIDTH = 2
_BAR_WIDTH = 16
_ROOMY_WIDTH = 64
_MOST_LINES = 6
_MARKS = {True: ("✓ ", "good"), False: ("✗ ", "error"), None: ("  ", "dim")}


def samples(frame: Frame, width: int, height: int) -> list[Row]:
    """A table of prompts with the expected answer, the answer before and the answer now."""
    rows = [heading(_title(frame), width)]
    pairs = frame.view.pairs
    if not pairs:
        return [*rows, ((" no answers yet", "dim"),)]
    columns = _columns(pairs, width)
    room = height - 1
    if room > len(pairs) or room > 3:  # noqa: PLR2004 - column titles only when they crowd out nothing
        rows.append(_titles(pairs, columns))
        room -= 1
    lines_each = min(_MOST_LINES, max(1, room // len(pairs)))
    shown = pairs[: max(1, room // lines_each)]
    if len(shown) < len(pairs) and room > 1:
        shown = shown[: (room - 1) // lines_each]
    for pair in shown:
        rows += _pair(pair, columns, lines_each)
    if len(shown) < len(pairs) and room > 1:
        rows.append(((f"… {len(pairs) - len(shown)} more, press 4", "dim"),))
    return rows


def _title(frame: Frame) -> list[Span]:
    before, now = frame.view.exact_match
    title: list[Span] = [("samples", "title")]
    if before is None:
        return title
    title += [("   exact match ", "dim"), (percent(before), "bright")]
    if now is not None:
        style = "good" if now > before else "warning"
        title += [(" → ", "dim"), (percent(now), style), ("  ", "text"), *bar(now, _BAR_WIDTH, style)]
    return title


def _columns(pairs: tuple[Pair, ...], width: int) -> tuple[int, int, int, int]:
    """Widths of prompt, expected, before and now: what they need, in fair shares where it is too much.

    Expected is left out where nothing is known of it or little room (the marks tell enough).
    """
    free = width - 3 * _GAP - 2 * _MARK_WIDTH
    expected = max((width_of(safe(pair.reference)) for pair in pairs if pair.reference), default=0)
    expected = min(max(expected, 8), free // 5) if expected and width >= _ROOMY_WIDTH else 0
    prompt = max(6, min(max(width_of(safe(pair.prompt)) for pair in pairs), free * 2 // 5))
    share = (free - expected - prompt) // 2
    before = max(width_of(safe(pair.before.text)) for pair in pairs)
    before = min(share, max(before, width_of(_title_of(pairs[0].before))))
    return prompt, expected, before, free - expected - prompt - before


def _title_of(before: Answer) -> str:
    return f"before (step {before.step:,})"


def _titles(pairs: tuple[Pair, ...], columns: tuple[int, int, int, int]) -> Row:
    steps = [pair.now.step for pair in pairs if pair.now]
    words = (
        "prompt",
        "expected",
        _title_of(pairs[0].before),
        f"now (step {max(steps):,})" if steps else "now",
    )
    prompt, expected, first, second = (fit(word, width) for word, width in zip(words, columns, strict=True))
    gap, mark = " " * _GAP, " " * _MARK_WIDTH
    middle = f"{expected}{gap}" if columns[1] else ""
    return ((f"{prompt}{gap}{middle}{mark}{first}{gap}{mark}{second}", "dim"),)


def _pair(pair: Pair, columns: tuple[int, int, int, int], num_lines: int) -> list[Row]:
    prompt = wrapped(safe(pair.prompt), columns[0], num_lines)
    expected = wrapped(safe(pair.reference or ""), columns[1], num_lines)
    before = _answer(pair.before, columns[2], num_lines)
    now = _answer(pair.now, columns[3], num_lines)
    gap: Span = (" " * _GAP, "text")
    rows: list[Row] = []
    for number in range(max(map(len, (prompt, expected, before, now)))):
        row: list[Span] = [(fit(_at(prompt, number), columns[0]), "text"), gap]
        if columns[1]:
            row += [(fit(_at(expected, number), columns[1]), "dim"), gap]
        row += [_mark(pair.before, number), (fit(_at(before, number), columns[2]), "dim"), gap]
        row += [_mark(pair.now, number), (fit(_at(now, number), columns[3]), "bright")]
        rows.append(tuple(row))
    return rows


def _answer(answer: Answer | None, width: int, num_lines: int) -> list[str]:
    if answer is None:
        return ["…"]
    return wrapped(safe(answer.text).strip() or "(nothing)", width, num_lines)


def _mark(answer: Answer | None, line: int) -> Span:
    return _MARKS[answer.matches if answer and line == 0 else None]


def _at(lines: list[str], number: int) -> str:
    return lines[number] if number < len(lines) else ""


def wrapped(text: str, width: int, num_lines: int) -> list[str]:
    """Return the text in at most so many lines of at most so many cells, broken at spaces if it can be."""
    lines: list[str] = []
    rest = text
    while rest and width > 0 and len(lines) < num_lines - 1 and width_of(rest) > width:
        piece = beginning(rest, width)
        space = piece.rfind(" ")
        broken = rest[len(piece)] != " " and space > len(piece) // 3
        end = space if broken else max(1, len(piece))
        lines.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    return [*lines, shorten(rest, width)] if rest or not lines else lines


def paragraph(text: str, width: int, style: str, *, most: int = 4) -> list[Row]:
    """Return wrapped rows of one style."""
    return [cut([(line, style)], width) for line in wrapped(text, width, most)]
