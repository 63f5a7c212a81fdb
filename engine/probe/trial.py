"""A trial run: the exact configuration of a job for a few steps, every sequence filled to its full length.

It goes the way of every run (prepare, write, supervise), in a folder of its own that is gone afterwards, as
are its processes, however it ends.
"""

import contextlib
import fcntl
import json
import os
import random
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import FrameType
from typing import Any

from .. import supervise
from ..calibration import Calibration
from ..errors import BadInput, FtwizError, Refused
from ..job import LoadedJob
from ..prepare import Prepared, prepare, write
from ..rundir import RunFolder
from ..specs.job import Data, Job, PlanPins
from ..specs.machine import Machine
from ..specs.plan import Strategy
from ..specs.run import Diagnosis, ProcessIdentity, RunState
from ..supervise import process
from ..supervise.launch import marker_of
from ..supervise.measured import calibration_of

PREFIX, LOCK = ".ftwiz-check-", "lock"
LEAST_LENGTH = 8
"""The shortest train.max_length of a job."""
ACCUMULATION = 2
"""Micro batches of a step, when the job has several: with two, gradients live through a forward pass."""
GRACE_SECONDS = 5.0
POLL_SECONDS = 0.1
END_SECONDS = 20.0
"""Told to stop at once, a supervisor needs 3 s, and more only when a process sits in a driver call."""
QUESTION = "Read this aloud."
_SYLLABLES = ("ba", "de", "fi", "go", "lu", "ma", "ne", "pi", "ro", "su", "ta", "ve", "zo", "ki")
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a trial ended."""

    state: RunState
    seconds: float
    row: Calibration | None
    """What was measured; also of a trial that failed, as far as it got."""
    diagnosis: Diagnosis | None = None
    """The supervisor's, without what names the folder that is gone."""
    timed_out: bool = False

    @property
    def is_well(self) -> bool:
        """Whether every step was made and measured."""
        return self.state is RunState.FINISHED and self.row is not None and self.row.steps is not None


def trial_lengths(max_length: int) -> tuple[int, int]:
    """Return the two lengths of a smoke test, the shorter first: it fails sooner, and what fails there fails.

    Raises:
        BadInput: The job's sequences are too short to be halved.
    """
    half = max(LEAST_LENGTH, max_length // 2)
    if half == max_length:
        raise BadInput(
            f"train.max_length {max_length} is too short for a second, shorter length",
            hint=f"set train.max_length above {LEAST_LENGTH}",
        )
    return half, max_length


@contextlib.contextmanager
def trial_folder(beside: Path) -> Iterator[Path]:
    """Give a new private folder for trials, on the disk of the runs, and remove it with all that is in it.

    SIGTERM and SIGHUP end the work like Ctrl-C meanwhile. Main thread only.

    Raises:
        Refused: It cannot be made.
    """
    place = next(path for path in (beside, *beside.absolute().parents) if path.is_dir())
    try:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place)).resolve()
    except OSError as error:
        raise Refused(
            f"{place}: cannot be written: {error.strerror}", hint="choose another place: FTWIZ_HOME=FOLDER"
        ) from error
    lock: int | None = None
    with _ends_like_interrupt():
        try:
            lock = _lock(folder / LOCK)
            sweep(place)
            yield folder
        finally:
            with _undisturbed():
                shutil.rmtree(folder, ignore_errors=True)
                if lock is not None:
                    os.close(lock)


def sweep(place: Path) -> None:
    """Remove the folders of checks that were killed: their locks are held by nobody."""
    for folder in place.glob(f"{PREFIX}*"):
        if not (folder / LOCK).is_file():
            continue
        lock = _lock(folder / LOCK)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock, or ``None`` where another process does, or nobody can."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def plan_trial(
    loaded: LoadedJob, strategy: Strategy, machine: Machine, *, length: int, num_steps: int, folder: Path
) -> Prepared:
    """Return the prepared trial of a job at one sequence length; its rows are written into ``folder``.

    Args:
        loaded: The job.
        strategy: How it would be run: pinned here, so that the trial is exactly that.
        machine: What it will run on.
        length: Tokens of every sequence.
        num_steps: Optimizer steps.
        folder: The trial's own.

    Raises:
        FtwizError: As ``prepare``.
    """
    accumulation = min(ACCUMULATION, strategy.gradient_accumulation_steps)
    batch = strategy.num_processes * strategy.micro_batch_size * accumulation
    source = prepare(loaded, machine).data
    at_once = strategy.num_processes * strategy.micro_batch_size
    train, held_out = folder / f"train-{length}.jsonl", folder / f"held-out-{length}.jsonl"
    _write_rows(train, source.shape, length, batch)
    if source.num_eval_rows != 0:
        _write_rows(held_out, source.shape, length, at_once)
    job = loaded.job
    sections = {
        "data": Data(
            path=str(train),
            format=source.shape,
            eval_path=str(held_out) if held_out.exists() else None,
        ).model_dump(),
        "train": job.train.model_dump()
        | {
            "max_length": length,
            "max_steps": num_steps,
            "global_batch_size": batch,
            "logging_steps": 1,
            "eval_steps": None,
            "save_steps": None,
        },
        "plan": _pins(job.plan, strategy),
        "run": job.run.model_dump() | {"name": f"check-{length}", "grace_seconds": GRACE_SECONDS},
    }
    trial = Job.model_validate(job.model_dump() | sections)
    prepared = prepare(replace(loaded, job=trial, name=f"check-{length}"), machine)
    wanted = replace(strategy, gradient_accumulation_steps=accumulation)
    if prepared.plan.strategy != wanted:
        raise Refused("the trial would not be run as the job: the plan of its shorter form is another one")
    plan: dict[str, Any] = json.loads(prepared.files["plan.json"])
    files = {**prepared.files, "plan.json": json.dumps({**plan, "trial": True}, indent=2) + "\n"}
    return replace(prepared, files=files)


def run_trial(prepared: Prepared, folder: Path, *, seconds: float) -> Outcome:
    """Run a trial to its end, or end it when its time is up. No process of it is left when this returns.

    Raises:
        Refused: It could not be started.
    """
    began = time.monotonic()
    run = write(prepared, folder / "runs")
    ours = _children()
    try:
        supervise.start(run, foreground=True)
        while not supervise.status(run).state.is_over and time.monotonic() - began < seconds:
            time.sleep(POLL_SECONDS)
        timed_out = not supervise.status(run).state.is_over
    finally:
        with _undisturbed():
            _end(run, ours)
    record = supervise.status(run)
    return Outcome(
        state=record.state,
        seconds=time.monotonic() - began,
        row=_row(run),
        diagnosis=_told_apart(run, record.diagnosis),
        timed_out=timed_out,
    )


def _pins(pins: PlanPins, strategy: Strategy) -> dict[str, Any]:
    """Pin what the planner has chosen, by the names that job and strategy share.

    A choice that is the strategy's default is not pinned: it may belong to an engine that is not used.
    """
    usual = {field.name: field.default for field in fields(Strategy)}
    chosen = {
        name: getattr(strategy, name)
        for name in PlanPins.model_fields
        if name in usual and getattr(strategy, name) != usual[name]
    }
    return pins.model_dump() | chosen | {"device": strategy.device_kind}


def _write_rows(path: Path, shape: str, length: int, num_rows: int) -> None:
    """Write rows that have more tokens than fit: every word is one token or more, and the rest is cut."""
    draw = random.Random(length)  # noqa: S311 - filler text; the same every time
    with path.open("w", encoding="utf8") as file:
        for _ in range(num_rows):
            words = ("".join(draw.choices(_SYLLABLES, k=draw.randint(1, 3))) for _ in range(length))
            file.write(json.dumps(_row_of(shape, " ".join(words))) + "\n")


def _row_of(shape: str, text: str) -> Mapping[str, object]:
    if shape == "text":
        return {"text": text}
    if shape == "prompt_completion":
        return {"prompt": QUESTION, "completion": text}
    question = {"role": "user", "content": QUESTION}
    return {"messages": [question, {"role": "assistant", "content": text}]}


def _row(run: RunFolder) -> Calibration | None:
    try:
        return calibration_of(run, supervise.status(run))
    except FtwizError:
        return None


def _told_apart(run: RunFolder, diagnosis: Diagnosis | None) -> Diagnosis | None:
    """Leave out of a diagnosis what cannot be followed when the folder is gone."""
    if diagnosis is None:
        return None
    gone = (str(run.path), run.id)

    def kept(text: str | None) -> str | None:
        return None if text and any(word in text for word in gone) else text

    return replace(diagnosis, advice=kept(diagnosis.advice), command=kept(diagnosis.command))


def _end(run: RunFolder, ours: frozenset[ProcessIdentity]) -> None:
    """End whatever of a trial lives: as the supervisor ends runs, and by force what is left after that."""
    record = run.read_record()
    if record.supervisor is not None and process.alive(record.supervisor):
        with contextlib.suppress(FtwizError):
            supervise.request_stop(run, now=True)
        deadline = time.monotonic() + END_SECONDS
        while process.alive(record.supervisor) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
    for left in _children() - ours:  # a supervisor that was being started, or hangs
        process.send(left, signal.SIGKILL)
    process.kill_all(marker_of(record))
    if record.supervisor is not None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(record.supervisor.pid, os.WNOHANG)


def _children() -> frozenset[ProcessIdentity]:
    mine = os.getpid()
    pids = [pid for pid, seen in process.table().items() if seen.parent == mine]
    return frozenset(identity for pid in pids if (identity := process.identify(pid)) is not None)


@contextlib.contextmanager
def _ends_like_interrupt() -> Iterator[None]:
    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    assert threading.current_thread() is threading.main_thread()
    heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # nohup
    before = {number: signal.signal(number, interrupt) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold back further signals while it is tidied up: they come when it is done."""
    held = (signal.SIGINT, *_SIGNALS)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
