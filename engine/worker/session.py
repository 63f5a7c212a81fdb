"""One attempt of one rank, from the planned files to the trained model."""

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..checkpoints import verify
from ..data import Rows, load_rows
from ..errors import BadInput
from ..rundir import RunFolder
from ..specs.events import EndEvent
from ..specs.job import Data
from ..stages import Parts, check_arguments, rm, stage
from . import methods, packed
from .engines import enter, reads_weights, save_whole
from .loading import load_model, load_tokenizer, locate
from .peaks import Peak, Peaks
from .ranks import Group, check_world
from .samples import Prompt, prompts_of
from .settings import Rank, Settings, read_settings
from .voice import Voice

if TYPE_CHECKING:  # they import the training stack
    from .callbacks import Events, Surroundings
    from .control import Requests


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """How an attempt ended well."""

    status: Literal["finished", "stopped"]
    step: int


def run_session(run: RunFolder, rank: Rank, voice: Voice, *, peaks: Peaks, resume_from: str | None) -> Result:
    """Train as planned, from the beginning or from a checkpoint.

    Args:
        run: The run folder; the working directory is moved there.
        rank: Which of the ranks this is.
        voice: Where it tells what happens.
        peaks: Measures this rank's memory.
        resume_from: Name of a folder in ``checkpoints``, or ``None``.

    Raises:
        FtwizError: Something that the user can mend, in one line.
    """
    os.chdir(run.path)
    settings = read_settings(run)
    check_world(rank, settings.strategy)
    enter(settings.strategy)
    packed.check_installed(settings.strategy)
    methods.check_installed(settings.trainer["optim"])
    checkpoint = None if resume_from is None else _checkpoint(run, resume_from)
    rows = _rows(settings, voice)
    voice.say("importing the training stack")
    # Before the ranks join: afterwards save_pretrained would write on rank 0 only.
    where = locate(settings.model, voice.say)
    config = check_arguments(settings.stage, settings.trainer)
    group = Group(rank)
    for start in group.gather(peaks.begin(settings.strategy.device_kind)):
        voice.event(start)
    around = _around(run, settings, group, voice, prompts=_prompts(rows, settings, voice), peaks=peaks)
    stage = _Stage.set(around, settings, rows, config=config, where=where, resumed=checkpoint is not None)
    if checkpoint is not None:
        voice.say(f"resuming from {checkpoint.name}")
    output = stage.trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    return _finish(around, stage, output, settings.method)


def _around(
    run: RunFolder, settings: Settings, group: Group, voice: Voice, *, prompts: list[Prompt], peaks: Peaks
) -> "Surroundings":
    from .callbacks import Surroundings

    return Surroundings(
        run=run,
        strategy=settings.strategy,
        group=group,
        voice=voice,
        prompts=prompts,
        max_new_tokens=settings.run["sample_max_new_tokens"],
        save_total_limit=settings.run["save_total_limit"],
        peaks=peaks,
        saves=not settings.is_trial,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stage:
    """A trainer, and the two callbacks through which it is listened to and spoken to."""

    trainer: Any
    events: "Events"
    requests: "Requests"

    @classmethod
    def set(
        cls, around: "Surroundings", settings: Settings, rows: Rows, *, config: Any, where: str, resumed: bool
    ) -> "_Stage":
        """Load the model and build the trainer of the run's stage."""
        from .callbacks import Events
        from .control import Requests

        around.voice.say(f"loading {settings.model['name_or_path']}")
        tokenizer = load_tokenizer(settings.model, where)
        requests, events = Requests(around.run, around.group), Events(around, resumed=resumed)
        parts = Parts(
            config=config,
            model=_model(settings, where, around.group.rank, seed=config.seed),
            tokenizer=tokenizer,
            method=settings.method,
            train_rows=rows.train,
            eval_rows=rows.eval,
            callbacks=[requests, events],
            narrate=around.voice.say,
            source=settings.model,
            rollout=settings.rollout,
        )
        trainer = stage(settings.stage).trainer(parts)
        packed.settle(trainer, settings.strategy)
        methods.settle(trainer, settings.method, around.group, around.run.path)
        events.bind(trainer)
        return cls(trainer=trainer, events=events, requests=requests)


def _finish(around: "Surroundings", stage: _Stage, output: Any, method: Mapping[str, Any]) -> Result:
    """Save the model, and say how the attempt ended."""
    stopped = stage.requests.stopped
    if around.saves and not stopped:
        _save_model(around, stage.trainer, method)
    stage.events.tell_peaks("end", stage.trainer.state.global_step)
    highest = reduce(Peak.merged, around.group.gather(around.peaks.whole))
    return _end(around.voice, stage.trainer, output, highest, stopped=stopped)


def _checkpoint(run: RunFolder, name: str) -> Path:
    path = run.checkpoints / name
    if path.parent != run.checkpoints or (reason := verify(path)) is not None:
        why = "not a name" if path.parent != run.checkpoints else reason
        raise BadInput(f"{name}: not a whole checkpoint: {why}", hint="resume from another one")
    return path


def _rows(settings: Settings, voice: Voice) -> Rows:
    rows = load_rows(Data(**settings.data), stage=settings.stage)
    note = f"; {rows.note}" if rows.note else ""
    voice.say(f"read {len(rows.train)} rows to train on, {len(rows.eval)} held out{note}")
    return rows


def _model(settings: Settings, where: str, rank: Rank, *, seed: int) -> Any:
    strategy, gives_rewards = settings.strategy, settings.stage == rm.NAME
    if gives_rewards:  # its head is new: the same numbers on every rank, and every time
        from transformers import set_seed

        set_seed(seed)
    model = load_model(
        settings.model,
        where,
        gives_rewards=gives_rewards,
        reads_weights=reads_weights(strategy, rank),
        packed=packed.loading_arguments(settings.model, strategy),
    )
    if strategy.quantization != "none":
        packed.after_loading(model, strategy)
    return model


def _prompts(rows: Rows, settings: Settings, voice: Voice) -> list[Prompt]:
    wanted = settings.run["num_samples"]
    prompts = prompts_of(rows.eval, wanted)
    if wanted and not prompts:
        voice.say(
            "no samples: there are no held-out rows with an answer (data.eval_path, data.eval_fraction)"
        )
    return prompts


def _save_model(around: "Surroundings", trainer: Any, method: Mapping[str, Any]) -> None:
    """Write the model beside, then rename: ``model/`` is whole or absent."""
    run, group = around.run, around.group
    around.voice.say("saving the model")
    beside = run.path / ".model"
    save_whole(trainer, str(beside))
    methods.finish(trainer, method, group, run.path, saved=beside)
    group.wait()
    if group.rank.is_first:
        shutil.rmtree(run.final_model, ignore_errors=True)
        beside.rename(run.final_model)
    group.wait()


def _end(voice: Voice, trainer: Any, output: Any, highest: Peak, *, stopped: bool) -> Result:
    result = Result(status="stopped" if stopped else "finished", step=trainer.state.global_step)
    voice.event(
        EndEvent(
            t=time.time(),
            status=result.status,
            step=result.step,
            max_steps=trainer.state.max_steps,
            message="stopped on request, with a checkpoint" if stopped else None,
            device_peak_bytes=highest.allocated_bytes,
            reserved_peak_bytes=highest.reserved_bytes,
            host_peak_bytes=highest.host_bytes,
            metrics={name: float(value) for name, value in output.metrics.items()},
        )
    )
    return result
