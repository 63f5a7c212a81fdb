"""Panels that answer whether all is well: verdicts, ranks, checkpoints, and memory against the estimate."""

from collections.abc import Sequence

from ..text import clock, count, fit, number, safe, size
from ..widgets.lines import Row, Span, cut, heading
from .devices import bar
from .samples import paragraph
from .verdicts import Verdict, measured_bytes, verdicts, word
from .view import Frame

_STYLES = {"ok": "good", "!!": "warning", "--": "dim"}
_HEADED = 4


def health(frame: Frame, width: int, height: int) -> list[Row]:
    """What is wrong first, then what is worth knowing; in one row the most important sentence."""
    found = verdicts(frame)
    if height < _HEADED:
        return [_short(found, width)]
    said, style = word(frame)
    title: list[Span] = [("health ", "title"), (said.lower(), style)]
    rows = _sentences(found, width, most=2)
    if len(rows) >= height:
        rows = _sentences(found, width, most=1)
    return [heading(title, width), *rows][:height]


def _sentences(found: Sequence[Verdict], width: int, *, most: int) -> list[Row]:
    rows: list[Row] = []
    for verdict in found:
        lines = most + (verdict.mark == "!!")
        for at, row in enumerate(paragraph(verdict.text, width - 4, _text_style(verdict), most=lines)):
            rows.append(((f"{verdict.mark if at == 0 else '  '}  ", _mark_style(verdict)), *row))
    return rows


def _short(found: Sequence[Verdict], width: int) -> Row:
    wrong = [verdict for verdict in found if verdict.mark == "!!"]
    shown = wrong or list(found)
    row: list[Span] = []
    for verdict in shown:
        row += [(f"{verdict.mark} ", _mark_style(verdict)), (f"{verdict.text}   ", _text_style(verdict))]
    return cut(row, width)


def _mark_style(verdict: Verdict) -> str:
    return "error" if verdict.is_serious else _STYLES[verdict.mark]


def _text_style(verdict: Verdict) -> str:
    return "bright" if verdict.mark == "!!" else "text"


def ranks(frame: Frame, width: int, height: int) -> list[Row]:
    """Every rank with what it found itself to be, and the most that it held."""
    known = frame.view.ranks
    rows: list[Row] = [heading([("ranks", "title"), (f"  {len(known)}", "dim")], width)]
    if not known:
        return [*rows, cut([("no rank has told of itself yet", "dim")], width)]
    rows.append(((fit("rank  host              device   pid       trains         peak", width), "dim"),))
    peaks = frame.view.peaks
    most = max((peak.allocated_bytes or peak.host_bytes or 0 for peak in peaks.values()), default=0)
    for rank in known:
        peak = peaks.get(rank.rank)
        held = (peak.allocated_bytes or peak.host_bytes) if peak else None
        words = f"{rank.rank:<5} {fit(safe(rank.host), 17)} {fit(safe(rank.device), 8)} {rank.pid:<9} "
        row: list[Span] = [
            (words, "text"),
            (f"{count(rank.num_trainable_parameters):>13}  ", "text"),
            (f"{size(held):>9} ", "bright"),
            *bar(held / most if held and most else None, max(0, min(24, width - len(words) - 26))),
            (f"  {safe(rank.engine)}", "dim"),
        ]
        rows.append(cut(row, width))
    if len(rows) > height:
        rows = [*rows[: height - 1], ((f"… {len(rows) - height + 1} more", "dim"),)]
    return rows[:height]


def checkpoints(frame: Frame, width: int, height: int) -> list[Row]:
    """Every checkpoint that was written, the newest first."""
    saved = frame.view.checkpoints
    rows: list[Row] = [heading([("checkpoints", "title"), (f"  {len(saved)}", "dim")], width)]
    if not saved:
        return [*rows, cut([("nothing saved yet; w saves now", "dim")], width)]
    rows.append(((fit("step       size       took     ago        where", width), "dim"),))
    scores = {event.step: event.loss for event in frame.view.evals}
    for event in reversed(saved):
        scored = scores.get(event.step)
        row: list[Span] = [
            (
                f"{event.step:<10,} {size(event.size_bytes):<10} {number(event.seconds, digits=3):>6} s ",
                "text",
            ),
            (f"{clock((frame.now - event.t) // 60 * 60):>9}  ", "dim"),
            (safe(event.path), "bright"),
            (f"  eval loss {number(scored)}" if scored is not None else "", "mark"),
        ]
        rows.append(cut(row, width))
    return rows[:height]


def memory(frame: Frame, width: int, height: int) -> list[Row]:
    """The estimate, by what it is for, against what was measured."""
    predicted, measured = frame.facts.predicted, measured_bytes(frame)
    rows: list[Row] = [heading([("memory of a device", "title"), ("  estimate and measured", "dim")], width)]
    if predicted is None:
        rows.append((("no estimate: the shape of the model was not known to the plan", "dim"),))
    else:
        most = max([*predicted.groups.values(), 1])
        for name, num_bytes in sorted(predicted.groups.items(), key=lambda item: -item[1]):
            style = {"logits": "activations", "buffers": "overhead"}.get(name, name)
            rows.append(
                cut(
                    (
                        (f"{safe(name):<14}", "text"),
                        (f"{size(num_bytes):>10}  ", "bright"),
                        *bar(num_bytes / most, max(4, width - 28), style if style in _KNOWN else "accent"),
                    ),
                    width,
                )
            )
        rows.append(())
        rows.append(_pair("tensors, planned", size(predicted.allocated_bytes)))
    rows.append(_pair("tensors, measured", size(measured)))
    reserved = [peak.reserved_bytes for peak in frame.view.peaks.values() if peak.reserved_bytes is not None]
    rows.append(_pair("allocator, measured", size(max(reserved, default=None))))
    host = [peak.host_bytes for peak in frame.view.peaks.values() if peak.host_bytes is not None]
    rows.append(_pair("host, all ranks", size(sum(host) if host else None)))
    if predicted is not None:
        rows.append(_pair("host, planned", size(predicted.host_bytes)))
    return [cut(row, width) for row in rows[:height]]


_KNOWN = {"weights", "gradients", "optimizer", "activations", "overhead"}


def _pair(label: str, value: str) -> Row:
    return ((f"{label:<24}", "dim"), (value, "bright"))
