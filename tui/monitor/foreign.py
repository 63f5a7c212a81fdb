"""Runs that ftwiz did not start: what other trainers leave in their output folder becomes events.

Known are Hugging Face's ``trainer_state.json`` (also under ``checkpoint-*``), LLaMA-Factory's
``trainer_log.jsonl`` and TensorBoard's event files. They are only read.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from ...engine.errors import BadInput
from ...engine.specs.events import DevicesEvent, EvalEvent, Event, StepEvent
from ...engine.specs.run import Attempt, RunRecord, RunState
from ...engine.telemetry import Follower
from .reduce import History
from .tensorboard import Scalar, ScalarFile
from .view import Facts, Frame, Show

MAX_STATE_BYTES = 256 << 20
QUIET_SECONDS = 600.0
"""A folder in which nothing was written for so long belongs to a run that has ended."""
_RATES = ("learning_rate", "lr")
_TOTALS = frozenset({"train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos"})
_PLAIN = frozenset({"loss", "epoch", "step", "grad_norm", "learning_rate", "lr", "num_tokens"})


class Trace(Protocol):
    """The files of one foreign trainer."""

    name: str

    @property
    def behind(self) -> bool:
        """Whether there is more to be read at once."""

    @property
    def max_steps(self) -> int:
        """Steps that the run will make; 0 when nobody says."""

    @property
    def is_finished(self) -> bool:
        """Whether the trainer has said its last word."""

    def poll(self) -> list[Event]:
        """Return what is new, in order."""


class ForeignReader:
    """Follows a foreign trainer's folder as ``Reader`` follows a run.

    Args:
        folder: The output folder.
        sample: Reads this machine's devices; ``None`` where the run is elsewhere.
        clock: Unix time.
    """

    def __init__(
        self,
        folder: Path,
        *,
        sample: Callable[[], DevicesEvent | None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        trace = find_trace(folder)
        if trace is None:
            raise BadInput(
                f"{folder}: neither a run of ftwiz nor a trainer's output folder",
                hint="looked for run.json, trainer_state.json, trainer_log.jsonl and events.out.tfevents.*",
            )
        self._folder, self._trace, self._sample, self._clock = folder, trace, sample, clock
        self._history = History()
        self._first_t: float | None = None
        self._last_t = 0.0
        self._last_step = 0

    @property
    def behind(self) -> bool:
        """Whether there is more to be read at once."""
        return self._trace.behind

    def read(self) -> Frame:
        """Read what is new and return the picture of now."""
        events = self._trace.poll()
        for event in events:
            self._first_t = event.t if self._first_t is None else self._first_t
            self._last_t = max(self._last_t, event.t)
            if isinstance(event, StepEvent):
                self._last_step = event.step
        self._history.feed(events)
        devices = self._sample() if self._sample is not None and not self.behind else None
        if devices is not None:
            self._history.feed_devices(0, devices)
        return Frame(
            record=self._record(),
            view=self._history.view(),
            now=self._clock(),
            folder=str(self._folder),
            facts=Facts(),
            show=Show(readonly=True),
            source=self._trace.name,
            is_own=False,
        )

    def read_all(self) -> Frame:
        """Read until there is nothing more now."""
        self.read()
        while self.behind:
            self.read()
        return self.read()  # the last step of TensorBoard's files is known to be whole when nothing follows

    def status(self) -> RunRecord:
        """Return how the run stands, as far as its files tell."""
        self.read()
        return self._record()

    def close(self) -> None:
        """Nothing is held between two reads."""

    def _record(self) -> RunRecord:
        now, reason = self._clock(), None
        state = RunState.RUNNING
        if self._trace.is_finished or (self._trace.max_steps and self._last_step >= self._trace.max_steps):
            state = RunState.FINISHED
        elif self._last_t and now - self._last_t > QUIET_SECONDS:
            state, reason = RunState.STOPPED, "nothing was written for ten minutes"
        over = self._last_t if state.is_over else None
        began = self._first_t if self._first_t is not None else now
        return RunRecord(
            id=self._folder.resolve().name, name=self._folder.name, state=state, created_at=began, host="",
            ftwiz_version="", reason=reason, attempts=(Attempt(number=1, started_at=began, ended_at=over),),
        )  # fmt: skip


def find_trace(folder: Path) -> Trace | None:
    """Return the files that tell most: LLaMA-Factory's log, TensorBoard's, then the trainer's state."""
    if (folder / "trainer_log.jsonl").is_file():
        return LlamaFactoryLog(folder / "trainer_log.jsonl")
    boards = sorted({*folder.glob("events.out.tfevents.*"), *folder.glob("runs/*/events.out.tfevents.*")})
    boards += sorted(folder.glob("logs/**/events.out.tfevents.*")) if not boards else []
    if boards:
        newest = max(boards, key=lambda path: path.stat().st_mtime).parent
        return TensorBoardLog([path for path in boards if path.parent == newest])
    return TrainerState(folder) if _states(folder) else None


def _states(folder: Path) -> list[Path]:
    found = [folder / "trainer_state.json", *folder.glob("checkpoint-*/trainer_state.json")]
    return [path for path in found if path.is_file()]


class TrainerState:
    """Hugging Face's ``trainer_state.json``: written whole with every checkpoint and at the end."""

    name = "trainer_state.json"
    behind = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: tuple[Path, int] | None = None
        self._num_taken = 0
        self.max_steps, self.is_finished = 0, False

    def poll(self) -> list[Event]:
        """Return the entries of the log that are new."""
        states = _states(self._folder)
        if not states:
            return []
        newest = max(states, key=lambda path: path.stat().st_mtime_ns)
        stat = newest.stat()
        if (newest, stat.st_mtime_ns) == self._seen or stat.st_size > MAX_STATE_BYTES:
            return []
        try:
            body = json.loads(newest.read_bytes())
            entries = [entry for entry in body["log_history"] if isinstance(entry, dict)]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return []  # being written: the next look sees it whole
        self._seen = newest, stat.st_mtime_ns
        self.max_steps = body["max_steps"] if type(body.get("max_steps")) is int else 0
        self.is_finished = any("train_runtime" in entry for entry in entries[-2:])
        fresh = entries[self._num_taken :]
        self._num_taken = len(entries)
        return [
            event for entry in fresh if (event := _entry(entry, self.max_steps, stat.st_mtime)) is not None
        ]


def _entry(entry: Mapping[str, Any], max_steps: int, t: float) -> Event | None:
    step = entry.get("step")
    if type(step) is not int or step < 0 or "train_runtime" in entry:
        return None
    numbers = {name: float(value) for name, value in entry.items() if _is_number(value)}
    of_eval = {name[5:]: value for name, value in numbers.items() if name.startswith("eval_")}
    if of_eval:
        return EvalEvent(t=t, step=step, loss=of_eval.pop("loss", None), metrics=of_eval)
    return StepEvent(
        t=t,
        step=step,
        max_steps=max(max_steps, step),
        epoch=numbers.get("epoch"),
        loss=numbers.get("loss"),
        learning_rate=next((numbers[name] for name in _RATES if name in numbers), None),
        grad_norm=numbers.get("grad_norm"),
        num_tokens=int(numbers["num_tokens"]) if math.isfinite(numbers.get("num_tokens", math.nan)) else None,
        metrics={name: value for name, value in numbers.items() if name not in _PLAIN | _TOTALS},
    )


class LlamaFactoryLog:
    """LLaMA-Factory's ``trainer_log.jsonl``: a line a logged step."""

    name = "LLaMA-Factory"

    def __init__(self, path: Path) -> None:
        self._lines = Follower(path)
        self._path = path
        self._before: tuple[int, float] | None = None
        self.max_steps, self.is_finished = 0, False

    @property
    def behind(self) -> bool:
        """Whether the last poll left something unread."""
        return self._lines.behind

    def poll(self) -> list[Event]:
        """Return the lines that are new."""
        lines = self._lines.poll()
        try:
            now = self._path.stat().st_mtime
        except OSError:
            return []
        bodies = [body for line in lines if (body := _json(line)) is not None]
        newest = next((seconds for body in reversed(bodies) if (seconds := _seconds(body)) is not None), 0.0)
        return [event for body in bodies if (event := self._event(body, now - newest)) is not None]

    def _event(self, body: Mapping[str, Any], began: float) -> Event | None:
        step, total, seconds = body.get("current_steps"), body.get("total_steps"), _seconds(body)
        if type(step) is not int or step < 0:
            return None
        self.max_steps = total if type(total) is int else self.max_steps
        t = began + (seconds or 0.0)
        numbers = {name: float(value) for name, value in body.items() if _is_number(value)}
        if "eval_loss" in numbers:
            return EvalEvent(t=t, step=step, loss=numbers["eval_loss"])
        if "loss" not in numbers:
            return None
        each = None
        if self._before is not None and seconds is not None and step > self._before[0]:
            each = (seconds - self._before[1]) / (step - self._before[0])
        self._before = (step, seconds) if seconds is not None else self._before
        return StepEvent(
            t=t, step=step, max_steps=max(self.max_steps, step), epoch=numbers.get("epoch"),
            loss=numbers["loss"], step_seconds=each, tokens_per_second=numbers.get("throughput"),
            learning_rate=next((numbers[name] for name in _RATES if name in numbers), None),
            grad_norm=numbers.get("grad_norm"),
            metrics={name: numbers[name] for name in ("reward", "accuracy") if name in numbers},
        )  # fmt: skip


class TensorBoardLog:
    """Event files of one folder; a step is told when the next one begins, or when nothing came for a poll."""

    name = "TensorBoard"
    max_steps = 0
    is_finished = False

    def __init__(self, paths: list[Path]) -> None:
        self._files = [ScalarFile(path) for path in paths]
        self._waiting: list[Scalar] = []

    @property
    def behind(self) -> bool:
        """Whether there is more to be read at once."""
        return any(file.behind for file in self._files)

    def poll(self) -> list[Event]:
        """Return the steps that are complete."""
        fresh = [scalar for file in self._files for scalar in file.poll()]
        events: list[Event] = []
        for scalar in fresh:
            if self._waiting and scalar.step != self._waiting[0].step:
                events += self._told()
            self._waiting.append(scalar)
        return events if fresh else self._told()

    def _told(self) -> list[Event]:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return []
        step, t = waiting[0].step, waiting[-1].wall_time
        of_eval: dict[str, float] = {}
        of_train: dict[str, float] = {}
        for scalar in waiting:
            group, _, name = scalar.tag.rpartition("/")
            is_eval = any(word in scalar.tag.casefold() for word in ("eval", "valid", "test"))
            name = "loss" if name.casefold() in {"train", "training"} and "loss" in group.casefold() else name
            (of_eval if is_eval else of_train)[name.casefold() if "loss" in name.casefold() else name] = (
                scalar.value
            )
        told: list[Event] = []
        if of_train.keys() - {"epoch"}:
            event = _entry({**of_train, "step": step}, 0, t)
            told += [event] if event is not None else []
        if of_eval:
            told.append(EvalEvent(t=t, step=step, loss=of_eval.pop("loss", None), metrics=of_eval))
        return told


def _json(line: bytes) -> Mapping[str, Any] | None:
    try:
        body = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _seconds(body: Mapping[str, Any]) -> float | None:
    """Return LLaMA-Factory's elapsed time: ``0:01:02`` or ``1 day, 0:01:02``."""
    text = body.get("elapsed_time")
    if not isinstance(text, str):
        return None
    days, comma, clock = text.rpartition(", ")
    try:
        hours, minutes, seconds = (float(part) for part in clock.split(":"))
        num_days = float(days.split()[0]) if comma else 0.0
    except (ValueError, IndexError):
        return None
    return ((num_days * 24 + hours) * 60 + minutes) * 60 + seconds


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
