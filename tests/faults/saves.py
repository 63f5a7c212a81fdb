"""Kills during saves, damaged checkpoints and full disks: many short real trainings out of one loaded stack.

A process that has imported the training stack forks a child for each trial, which is the real worker;
importing it anew would take most of the time of eighty trials.
"""

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Self

from ftwiz.engine import checkpoints
from ftwiz.engine.backends import backend
from ftwiz.engine.data import inspect
from ftwiz.engine.rundir import RunFolder, create
from ftwiz.engine.specs.events import CheckpointEvent, StepEvent
from ftwiz.engine.specs.job import Job
from ftwiz.engine.specs.plan import Strategy
from ftwiz.engine.stages import train_file
from ftwiz.engine.telemetry import read_events

STRATEGY = Strategy(
    backend="single",
    device_kind="cpu",
    num_processes=1,
    micro_batch_size=4,
    gradient_accumulation_steps=1,
    gradient_checkpointing=False,
    mixed_precision="no",
)
Point = dict[str, Any]


class SaveLab:
    """Makes run folders and works them in forked children of this process."""

    def __init__(self, folder: Path, model: Path, chance: random.Random) -> None:
        self.folder, self.model, self.chance = folder, model, chance
        self._number = 0
        rows = folder / "rows.jsonl"
        pairs = ({"question": f"What is {n} plus {n}?", "answer": str(n + n)} for n in range(40))
        rows.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf8")
        self._rows = rows

    def __enter__(self) -> Self:
        os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "ACCELERATE_USE_CPU": "true"}
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def make(self, *, max_steps: int, save_steps: int) -> RunFolder:
        """Return a run folder as the planner leaves it."""
        self._number += 1
        train = {
            "max_steps": max_steps,
            "save_steps": save_steps,
            "save_total_limit": 3,
            "global_batch_size": 4,
            "max_length": 64,
            "learning_rate": 1e-3,
        }
        job = Job.model_validate(
            {
                "model": {"name_or_path": str(self.model)},
                "data": {"path": str(self._rows)},
                "method": {"kind": "full"},
                "train": train,
                "run": {"num_samples": 0},
            }
        )
        files = {
            "train.yaml": train_file(job, STRATEGY, inspect(job.data)),
            "plan.json": json.dumps({"strategy": asdict(STRATEGY)}),
            **backend("single").files(STRATEGY, job, None),
        }
        return create(self.folder, f"run-{self._number}", files=files)

    def fork(self, run: RunFolder, *, resume_from: str | None = None, largest_file: int | None = None) -> int:
        """Start the worker in a child; return its pid."""
        import datasets  # noqa: F401 - loaded once, for every child
        import torch
        import trl  # noqa: F401

        pid = os.fork()
        if pid:
            return pid
        try:
            os.setsid()
            torch.set_num_threads(1)
            from ftwiz.engine.worker import __main__ as worker
            from ftwiz.engine.worker.settings import Rank
            from ftwiz.engine.worker.streams import redirect

            redirect(run.rank_log(0))
            if largest_file is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
            os.environ["TQDM_DISABLE"] = "1"
            worker._train(  # noqa: SLF001 - what a rank does after its output is redirected
                run, Rank(rank=0, local_rank=0, world_size=1), resume_from
            )
        finally:
            os._exit(70)

    def trained(self) -> RunFolder:
        """Return a run that has ended at step 8 with a checkpoint there and one at step 4."""
        run = self.make(max_steps=8, save_steps=4)
        assert self.wait(self.fork(run)) == 0, run.rank_log(0).read_text()
        return run

    def copy(self, run: RunFolder) -> RunFolder:
        """Return a copy of a run."""
        copy = RunFolder(self.folder / f"copy-{time.monotonic_ns()}")
        shutil.copytree(run.path, copy.path)
        return copy

    def wait(self, pid: int, *, seconds: float = 120) -> int:
        """Return the exit code of a child; negative is a signal."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return -signal.SIGKILL

    def resumes(self, run: RunFolder) -> str | None:
        """Resume from the newest whole checkpoint for one more step; return what went wrong."""
        found = checkpoints.look(run.checkpoints)
        if found.newest is None:
            return "no whole checkpoint"
        run.events_file.unlink(missing_ok=True)
        pid = self.fork(run, resume_from=found.newest.name)
        wanted = checkpoints.step_of(found.newest) or 0
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            steps = [event.step for event in read_events(run.events_file) if isinstance(event, StepEvent)]
            done, _ = os.waitpid(pid, os.WNOHANG)
            if steps or done:
                break
            time.sleep(0.01)
        if not done:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        if not steps:
            return (
                f"no step after {found.newest.name}: {run.rank_log(0).read_text()[-300:] if done else 'late'}"
            )
        return None if steps[0] == wanted + 1 else f"went on at step {steps[0]} from {found.newest.name}"


def kill_points(lab: SaveLab, points: int) -> Iterator[Point]:
    """F16: SIGKILL at a random moment while every step saves; the newest told of is whole and resumed."""
    for _ in range(points):
        began = time.monotonic()
        run = lab.make(max_steps=100_000, save_steps=1)
        pid = lab.fork(run)
        _until(partial(_has_begun_second, run), 60)
        time.sleep(lab.chance.uniform(0, 0.4))
        os.kill(pid, signal.SIGKILL)
        lab.wait(pid)
        told = [event.step for event in read_events(run.events_file) if isinstance(event, CheckpointEvent)]
        found = checkpoints.look(run.checkpoints)
        step = checkpoints.step_of(found.newest) if found.newest else None
        note = f"told of {told[-1:]}, whole is {step}" if told and (step or 0) < told[-1] else ""
        note = note or lab.resumes(run) or ""
        half = {"half checkpoints passed over": float(len(found.skipped))}
        yield {"ok": not note, "note": note, "seconds": round(time.monotonic() - began, 1), "figures": half}
        shutil.rmtree(run.path, ignore_errors=True)


def mutations(lab: SaveLab, points: int) -> Iterator[Point]:
    """F17: the newest of two checkpoints is damaged in 19 ways; the older one is taken and resumed."""
    run = lab.trained()
    for number, (name, damage) in enumerate(MUTATIONS.items()):
        began = time.monotonic()
        copy = lab.copy(run)
        damage(copy.checkpoints / "checkpoint-8")
        found = checkpoints.look(copy.checkpoints)
        is_older = found.newest is not None and found.newest.name == "checkpoint-4"
        note = "" if is_older else f"{name}: takes {found.newest}"
        if number < points:
            note = note or lab.resumes(copy) or ""
        seconds = round(time.monotonic() - began, 1)
        yield {"ok": not note, "note": f"{name}: {note}" if note else "", "seconds": seconds, "figures": {}}
        shutil.rmtree(copy.path, ignore_errors=True)


def full_disks(lab: SaveLab, points: int) -> Iterator[Point]:
    """F20: no file may grow beyond a limit somewhere in a checkpoint; the newest whole one is resumed."""
    for _ in range(max(1, points // 5)):
        began = time.monotonic()
        run = lab.make(max_steps=12, save_steps=4)
        pid = lab.fork(run)
        _until(partial(checkpoints.newest_whole, run.checkpoints), 60)
        limit = lab.chance.randrange(2000, 180_000)
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, limit))
        code = lab.wait(pid)
        note = "it ended before the limit" if code == 0 else lab.resumes(run) or ""
        figures = {"exit code": float(code)}
        yield {
            "ok": not note,
            "note": note,
            "seconds": round(time.monotonic() - began, 1),
            "figures": figures,
        }
        shutil.rmtree(run.path, ignore_errors=True)


def _has_begun_second(run: RunFolder) -> bool:
    return len(list(run.checkpoints.glob("checkpoint-*"))) > 1


def _until(what: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not what() and time.monotonic() < deadline:
        time.sleep(0.002)


def _cut(name: str, size: int) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, size)


def _gone(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _text(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None  # type: ignore[func-returns-value]


def _flipped(folder: Path) -> None:
    weights = folder / "model.safetensors"
    body = bytearray(weights.read_bytes())
    for position in range(len(body) // 2, len(body) // 2 + 64):
        body[position] ^= 0xFF
    weights.write_bytes(body)


def _half_zero(folder: Path) -> None:
    weights = folder / "model.safetensors"
    body = weights.read_bytes()
    weights.write_bytes(body[: len(body) // 2] + bytes(len(body) - len(body) // 2))


def _state(**changes: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "trainer_state.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def _emptied(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def _stray(folder: Path) -> None:
    _emptied(folder)
    folder.rename(folder.with_name("checkpoint-999999"))


def _marked(folder: Path) -> None:
    (folder / "checkpoint-is-incomplete.txt").touch()
    (folder / checkpoints.MANIFEST).unlink()


MUTATIONS: Mapping[str, Callable[[Path], None]] = {
    "an empty folder": _emptied,
    "no trainer_state.json": _gone("trainer_state.json"),
    "an empty trainer_state.json": _cut("trainer_state.json", 0),
    "half a trainer_state.json": _cut("trainer_state.json", 100),
    "half a model": _cut("model.safetensors", 5000),
    "an empty model": _cut("model.safetensors", 0),
    "no model": _gone("model.safetensors"),
    "half an optimizer": _cut("optimizer.pt", 5000),
    "an empty optimizer": _cut("optimizer.pt", 0),
    "no optimizer": _gone("optimizer.pt"),
    "no scheduler": _gone("scheduler.pt"),
    "no random state": _gone("rng_state.pth"),
    "the marker of an unfinished one": _marked,
    "a stray empty checkpoint-999999": _stray,
    "200,000 brackets in trainer_state.json": _text("trainer_state.json", "[" * 200_000),
    "an unknown key in trainer_state.json": _state(surprise=1),
    "64 flipped bytes in the weights": _flipped,
    "the second half of the weights zeroed": _half_zero,
    "global_step 999999999": _state(global_step=999_999_999),
}
"""The nineteen ways of the reliability report, section 2.2."""

SAVES: Mapping[str, Callable[[SaveLab, int], Iterator[Point]]] = {
    "killed at a random point of saving": kill_points,
    "newest checkpoint damaged, 19 ways": mutations,
    "disk full at a random point of saving": full_disks,
}
