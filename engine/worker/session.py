"""One attempt of one rank, from the planned files to the trained model."""

import os
import shutil
import time
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Literal

from ..checkpoints import verify
from ..data import Rows, load_rows
from ..errors import BadInput
from ..rundir import RunFolder
from ..specs.events import EndEvent
from ..specs.job import Data
from ..stages import stage
from . import packed
from .engines import enter, reads_weights, save_whole
from .loading import load_model, load_tokenizer, locate
from .peaks import Peak, Peaks
from .ranks import Group, check_world
from .samples import Prompt, prompts_of
from .settings import Rank, Settings, read_settings
from .voice import Voice


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
    checkpoint = None if resume_from is None else _checkpoint(run, resume_from)
    rows = _rows(settings, voice)
    voice.say("importing the training stack")
    # Before the ranks join: afterwards save_pretrained would write on rank 0 only.
    where = locate(settings.model, voice.say)
    config = stage(settings.stage).check_arguments(settings.trainer)
    from .callbacks import Events, Surroundings
    from .control import Requests

    group, saves = Group(rank), not settings.is_trial
    voice.say(f"loading {settings.model['name_or_path']}")
    for start in group.gather(peaks.begin(settings.strategy.device_kind)):
        voice.event(start)
    tokenizer = load_tokenizer(settings.model, where)
    model = _model(settings, where, rank)
    around = Surroundings(
        run=run,
        strategy=settings.strategy,
        group=group,
        voice=voice,
        prompts=_prompts(rows, settings, voice),
        max_new_tokens=settings.run["sample_max_new_tokens"],
        save_total_limit=settings.run["save_total_limit"],
        resumed=checkpoint is not None,
        peaks=peaks,
        saves=saves,
    )
    requests, events = Requests(run, group), Events(around)
    trainer = stage(settings.stage).trainer(
        config=config,
        model=model,
        tokenizer=tokenizer,
        method=settings.method,
        train_rows=rows.train,
        eval_rows=rows.eval,
        callbacks=[requests, events],
        narrate=voice.say,
    )
    packed.settle(trainer, settings.strategy)
    events.bind(trainer)
    if checkpoint is not None:
        voice.say(f"resuming from {checkpoint.name}")
    output = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    if saves and not requests.stopped:
        _save_model(run, trainer, group, voice)
    events.tell_peaks("end", trainer.state.global_step)
    highest = reduce(Peak.merged, group.gather(peaks.whole))
    return _end(voice, trainer, output, highest, stopped=requests.stopped)


def _checkpoint(run: RunFolder, name: str) -> Path:
    path = run.checkpoints / name
    if path.parent != run.checkpoints or (reason := verify(path)) is not None:
        why = "not a name" if path.parent != run.checkpoints else reason
        raise BadInput(f"{name}: not a whole checkpoint: {why}", hint="resume from another one")
    return path


def _rows(settings: Settings, voice: Voice) -> Rows:
    rows = load_rows(Data(**settings.data))
    note = f"; {rows.note}" if rows.note else ""
    voice.say(f"read {len(rows.train)} rows to train on, {len(rows.eval)} held out{note}")
    return rows


def _model(settings: Settings, where: str, rank: Rank) -> Any:
    strategy = settings.strategy
    model = load_model(
        settings.model,
        where,
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


def _save_model(run: RunFolder, trainer: Any, group: Group, voice: Voice) -> None:
    """Write the model beside, then rename: ``model/`` is whole or absent."""
    voice.say("saving the model")
    beside = run.path / ".model"
    save_whole(trainer, str(beside))
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
