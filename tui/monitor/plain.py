"""A run as lines: for pipes, batch logs, screen readers and machines. No escape sequence, no redrawing.

Says every evaluation, checkpoint, alert and change of state, and the steps now and then.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from ...engine.rundir import RunFolder
from ...engine.specs.events import Event, SampleEvent, StepEvent
from ...engine.telemetry import encode, follow
from ..text import count, duration, number, percent, rate, safe, shorten
from .foreign import ForeignReader
from .reader import Reader
from .reduce import History
from .report import report
from .view import Frame, Line

STEP_SECONDS = 2.0
"""Steps are told at most so often, and at most once a percent of the way."""
QUIET_SECONDS = 60.0
"""After so long without a line a step is told however small it is."""


def follow_plain(
    run: RunFolder, write: Callable[[str], None], *, until_done: bool = True, width: int | None = None
) -> None:
    """Write a run from its beginning, line by line, and at its end what came of it.

    Args:
        run: The run folder.
        write: Takes one line, without its newline.
        until_done: Wait for the end of the run; otherwise stop at what is there now.
        width: Cut lines to so many cells; ``None`` for a pipe.
    """
    reader = Reader(run)
    printer = _Printer(write, width)
    printer.opening(reader.read_all())
    for event in follow(run.events_file, until=lambda: not until_done or _is_over(reader)):
        printer.tell(event)
    frame = reader.read_all()
    reader.close()
    for line in report(frame, over=frame.record.state.is_over):
        printer.line(line)


def follow_json(run: RunFolder, write: Callable[[str], None], *, until_done: bool = True) -> None:
    """Write every event as one line of ASCII JSON, as docs/events.md describes them."""
    reader = Reader(run)
    for event in follow(run.events_file, until=lambda: not until_done or _is_over(reader)):
        write(json.dumps(json.loads(encode(event))))
    reader.close()


def once(run: RunFolder, write: Callable[[str], None], *, width: int | None = None) -> None:
    """Write how a run stands now, without its history."""
    reader = Reader(run)
    frame = reader.read_all()
    reader.close()
    tell_frame(frame, write, width=width)


def wait(run: RunFolder, *, poll_seconds: float = 0.5) -> None:
    """Return when the run is over."""
    reader = Reader(run)
    while not _is_over(reader):
        time.sleep(poll_seconds)
    reader.close()


def snapshot(run: RunFolder) -> dict[str, Any]:
    """Return how a run stands now, in plain values for JSON; unknown is ``None``."""
    reader = Reader(run)
    frame = reader.read_all()
    reader.close()
    return standing(frame)


def wait_for(reader: ForeignReader, *, poll_seconds: float = 1.0) -> None:
    """Return when another trainer's run is over, as far as its files tell."""
    while not reader.status().state.is_over:
        time.sleep(poll_seconds)


def standing(frame: Frame) -> dict[str, Any]:
    """Return a frame in plain values for JSON; unknown is ``None``."""
    return {**_standing(frame), **_progress(frame), **_found(frame)}


def tell_frame(frame: Frame, write: Callable[[str], None], *, width: int | None = None) -> None:
    """Write how a run stands now, without its history."""
    printer = _Printer(write, width)
    printer.opening(frame)
    for line in report(frame, over=frame.record.state.is_over)[1:]:
        printer.line(line)


def _is_over(reader: Reader) -> bool:
    return reader.status().state.is_over


class _Printer:
    def __init__(self, write: Callable[[str], None], width: int | None) -> None:
        self._write = write
        self._width = width
        self._history = History()
        self._told: StepEvent | None = None
        self._answers: dict[int, bool | None] = {}
        self._num_lines = 0

    def line(self, text: str) -> None:
        text = text.rstrip()
        self._write(text if self._width is None else shorten(text, self._width))

    def opening(self, frame: Frame) -> None:
        facts = frame.facts
        ranks = "" if not facts.num_processes or facts.num_processes == 1 else f"{facts.num_processes} x "
        self.line(f"run     {safe(frame.record.id)}")
        if facts.backend is not None:
            self.line(f"plan    {safe(facts.backend)} on {ranks}{safe(facts.device_kind or 'n/a')}")
        self.line(f"folder  {safe(frame.folder)}")
        self.line("")

    def tell(self, event: Event) -> None:
        seen = self._num_lines
        self._history.feed([event])
        self._num_lines = self._history.num_lines
        if isinstance(event, SampleEvent):
            self._answers[event.index] = event.matches
        elif self._answers:
            self._tell_answers(event.t)
        if isinstance(event, StepEvent) and self._is_due(event):
            self._told = event
            self._say(event.t, "step", self._step(event))
        if self._num_lines > seen:
            self._tell_line(self._history.newest_line)

    def _tell_line(self, line: Line) -> None:
        self._say(line.t, safe(line.label), safe(line.text))

    def _tell_answers(self, t: float) -> None:
        known = [matches for matches in self._answers.values() if matches is not None]
        right = f", {sum(known)} of {len(known)} right" if known else ""
        self._say(t, "samples", f"{len(self._answers)} answers{right}")
        self._answers.clear()

    def _say(self, t: float, label: str, text: str) -> None:
        moment = time.strftime("%H:%M:%S", time.localtime(t))
        self.line(f"{moment}  {label:<8}  {text}")

    def _is_due(self, event: StepEvent) -> bool:
        told = self._told
        if told is None or event.step == event.max_steps or event.step < told.step:
            return True
        if event.t - told.t >= QUIET_SECONDS:
            return True
        return event.t - told.t >= STEP_SECONDS and event.step - told.step >= event.max_steps / 100

    def _step(self, event: StepEvent) -> str:
        digits = len(str(event.max_steps))
        share = event.step / max(1, event.max_steps)
        parts = [
            f"{event.step:>{digits}}/{event.max_steps}  {percent(share):>5}",
            f"loss {number(event.loss):<8}",
            f"lr {rate(event.learning_rate):<7}",
            f"grad {number(event.grad_norm, digits=3):<7}",
            f"{count(event.tokens_per_second):>7} tokens/s",
        ]
        left = (event.max_steps - event.step) * (self._history.step_seconds or 0.0)
        if left > 0:
            parts.append(f"left {duration(left)}")
        return "  ".join(parts)


def _standing(frame: Frame) -> dict[str, Any]:
    record = frame.record
    return {
        "id": record.id,
        "name": record.name,
        "folder": frame.folder,
        "state": record.state.value,
        "reason": record.reason,
        "diagnosis": asdict(record.diagnosis) if record.diagnosis else None,
        "attempts": len(record.attempts),
        "elapsed_seconds": round(frame.elapsed_seconds, 3),
        "model": frame.model,
    }


def _progress(frame: Frame) -> dict[str, Any]:
    view, latest = frame.view, frame.view.latest
    return {
        "step": latest.step if latest else None,
        "max_steps": latest.max_steps if latest else None,
        "epoch": latest.epoch if latest else None,
        "loss": _number(latest.loss if latest else None),
        "smoothed_loss": _number(view.final_loss),
        "learning_rate": _number(latest.learning_rate if latest else None),
        "grad_norm": _number(latest.grad_norm if latest else None),
        "num_tokens": latest.num_tokens if latest else None,
        "tokens_per_second": _number(latest.tokens_per_second if latest else None),
        "step_seconds": view.step_seconds,
        "remaining_seconds": None if frame.record.state.is_over else view.remaining_seconds,
        "device_peak_bytes": latest.device_peak_bytes if latest else None,
    }


def _found(frame: Frame) -> dict[str, Any]:
    view = frame.view
    before, now = view.exact_match
    return {
        "exact_match": {"before": _number(before), "now": _number(now)},
        "evals": list(_bodies(view.evals)),
        "samples": [asdict(pair) for pair in view.pairs],
        "checkpoints": list(_bodies(view.checkpoints)),
        "ranks": list(_bodies(view.ranks)),
        "devices": next(_bodies((view.devices,)), None) if view.devices else None,
        "num_alerts": view.num_alerts,
    }


def _bodies(events: tuple[Event, ...]) -> Iterator[dict[str, Any]]:
    for event in events:
        body: dict[str, Any] = json.loads(encode(event))
        del body["kind"]
        yield body


def _number(value: float | None) -> float | str | None:
    return str(value) if value is not None and not math.isfinite(value) else value
