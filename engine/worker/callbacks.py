"""Turns what the trainer does into events: steps, evaluations, checkpoints and samples."""

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ..checkpoints import surplus, write_manifest
from ..rundir import RunFolder
from ..specs.events import CheckpointEvent, EvalEvent, StepEvent
from ..specs.plan import Strategy
from .engines import forget_order
from .peaks import FIRST_STEPS, Peaks
from .ranks import Group, check_ranks, describe_rank
from .samples import Prompt, answer
from .stopwatch import Stopwatch
from .voice import Voice

OWN_FIELDS = frozenset(
    {
        "loss",
        "grad_norm",
        "learning_rate",
        "epoch",
        # Ours are cumulative over resumes, and instantaneous; the trainer's are neither.
        "num_tokens",
        "num_input_tokens_seen",
        "train_runtime",
        "train_tokens_per_second",
    }
)
"""What the trainer logs and an event has a field for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """What the callbacks work with."""

    run: RunFolder
    strategy: Strategy
    group: Group
    voice: Voice
    prompts: Sequence[Prompt]
    max_new_tokens: int
    save_total_limit: int
    peaks: Peaks
    saves: bool = True
    """Whether the last step is saved. A trial run leaves nothing."""


class Events(TrainerCallback):  # type: ignore[misc]
    """Writes the events of one attempt; ``bind`` it to the trainer before training.

    It must be the last callback: what the others ask for decides when its clock rests.
    """

    def __init__(self, around: Surroundings, *, resumed: bool) -> None:
        self._around = around
        self._resumed = resumed
        self._trainer: Any = None
        self._watch = Stopwatch()
        self._steps_logged = 0
        self._tokens_logged = 0
        self._nan_told = False
        self._save_started = 0.0
        self._first_step = 0

    def bind(self, trainer: Any) -> None:
        """Say which trainer this is the callback of."""
        self._trainer = trainer
        self._around.peaks.watch_batches(trainer)

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Check the ranks against the plan, and answer the prompts before the first step."""
        ranks = self._around.group.gather(describe_rank(self._around.group.rank, self._trainer))
        for event in ranks:
            self._around.voice.event(event)
        check_ranks(ranks, self._around.strategy)
        self._first_step = state.global_step
        self.tell_peaks("load", state.global_step)
        self._steps_logged, self._tokens_logged = state.global_step, state.num_input_tokens_seen
        if not self._resumed and self._around.prompts:
            matched = self._answer(state.global_step)  # of rank 0; the others have None
            self._around.voice.event(EvalEvent(t=time.time(), step=0, exact_match=matched))
            self.tell_peaks("evaluation", state.global_step)
        self._around.voice.say(f"training from step {state.global_step} to {state.max_steps}")

    def on_step_begin(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
        """Start the clock with the first step."""
        if not self._watch.started:
            self._watch.start()

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Have the last step evaluated and saved, whatever the rhythm."""
        if state.global_step >= state.max_steps:  # the last step is always evaluated and saved
            control.should_save, control.should_log = self._around.saves, True
            control.should_evaluate = self._trainer.eval_dataset is not None
        self._save_started = time.monotonic()
        self._rest(control)
        self._steps_peaks(state.global_step, rests=control.should_evaluate or control.should_save)
        return control

    def on_log(self, _args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Write a step event."""
        if logs and "loss" in logs:
            self._step(state, logs)
            self._rest(control)

    def on_evaluate(self, _args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        """Answer the prompts, and write an eval event."""
        matched = self._answer(state.global_step)
        self._around.voice.event(_eval_event(state.global_step, metrics or {}, matched, self._trainer))
        self.tell_peaks("evaluation", state.global_step)
        self._save_started = time.monotonic()
        if not control.should_save:
            self._watch.go_on()

    def on_save(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Make the checkpoint count: its manifest, its event, and the oldest one goes."""
        folder = Path(args.output_dir).resolve() / f"checkpoint-{state.global_step}"
        self._around.group.wait()  # every rank has written its part
        if self._around.group.rank.is_first:
            _finish_checkpoint(self._around, folder, state.global_step, self._save_started)
        self.tell_peaks("save", state.global_step)
        self._watch.go_on()

    def tell_peaks(self, moment: str, step: int) -> None:
        """Write what every rank held at most since the last time. All ranks call it together."""
        peaks = self._around.peaks
        event = peaks.end(step) if moment == "end" else peaks.take(moment, step)
        for one in peaks.news(self._around.group.gather(event)):
            self._around.voice.event(one)

    def _steps_peaks(self, step: int, *, rests: bool) -> None:
        done = step - self._first_step
        if done == FIRST_STEPS or rests:
            self._watch.pause()
            self.tell_peaks("first steps" if done <= FIRST_STEPS else "training", step)
            if not rests:
                self._watch.go_on()

    def _rest(self, control: Any) -> None:
        if control.should_evaluate or control.should_save:
            self._watch.pause()

    def _step(self, state: Any, logs: Mapping[str, float]) -> None:
        seconds = self._watch.lap_seconds()
        steps = max(1, state.global_step - self._steps_logged)
        tokens = state.num_input_tokens_seen - self._tokens_logged
        self._steps_logged, self._tokens_logged = state.global_step, state.num_input_tokens_seen
        loss = logs["loss"]
        self._around.voice.event(
            StepEvent(
                t=time.time(),
                step=state.global_step,
                max_steps=state.max_steps,
                epoch=state.epoch,
                loss=loss,
                learning_rate=logs.get("learning_rate"),
                grad_norm=logs.get("grad_norm"),
                num_tokens=state.num_input_tokens_seen,
                tokens_per_second=tokens / seconds if seconds > 0 else None,
                step_seconds=seconds / steps,
                device_peak_bytes=self._around.peaks.device_peak_bytes,
                metrics=_other_metrics(logs) | {"total_flos": float(state.total_flos)},
            )
        )
        if not math.isfinite(loss) and not self._nan_told:
            self._nan_told = True
            message = f"the loss is {loss} at step {state.global_step}: nothing is learned from here on"
            self._around.voice.alert("error", "nan_loss", message, state.global_step)

    def _answer(self, step: int) -> float | None:
        matched = None
        together = self._around.strategy.splits_weights
        if (self._around.group.rank.is_first or together) and self._around.prompts:
            events = answer(
                self._trainer.model,
                self._trainer.processing_class,
                self._around.prompts,
                step=step,
                max_new_tokens=self._around.max_new_tokens,
                together=together,
            )
            matched = _tell(self._around.voice, events)
            forget_order(self._trainer)
        self._around.group.wait()
        return matched


def _tell(voice: Voice, samples: Any) -> float | None:
    """Write the samples; return the share that is right of those whose right answer is known."""
    matches = []
    for sample in samples:
        voice.event(sample)
        matches += [] if sample.matches is None else [sample.matches]
    return sum(matches) / len(matches) if matches else None


def _eval_event(step: int, metrics: Mapping[str, float], matched: float | None, trainer: Any) -> EvalEvent:
    own = ("eval_loss", "epoch", "eval_num_tokens", "num_input_tokens_seen")
    others = {name: float(value) for name, value in metrics.items() if name not in own}
    return EvalEvent(
        t=time.time(),
        step=step,
        loss=metrics.get("eval_loss"),
        exact_match=matched,
        num_rows=len(trainer.eval_dataset),
        metrics=others,
    )


def _finish_checkpoint(around: Surroundings, folder: Path, step: int, started: float) -> None:
    size_bytes = write_manifest(folder)
    event = CheckpointEvent(
        t=time.time(),
        step=step,
        path=str(folder.relative_to(around.run.path.resolve())),
        size_bytes=size_bytes,
        seconds=time.monotonic() - started,
    )
    around.voice.event(event)
    for old in surplus(folder, limit=around.save_total_limit):
        shutil.rmtree(old, ignore_errors=True)


def _other_metrics(logs: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in logs.items()
        if name not in OWN_FIELDS and isinstance(value, int | float)
    }
