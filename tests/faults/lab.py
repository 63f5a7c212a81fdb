"""Real runs of a tiny model on which faults are tried: how they are started, watched and cleared away."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pexpect

from ftwiz.engine import supervise
from ftwiz.engine.rundir import RunFolder, list_runs
from ftwiz.engine.specs.events import AlertEvent, CheckpointEvent, Event, StepEvent
from ftwiz.engine.specs.run import ProcessIdentity, RunRecord
from ftwiz.engine.supervise import process
from ftwiz.engine.supervise.launch import marker_of
from ftwiz.engine.telemetry import read_events

ENGINES: Mapping[str, tuple[str, ...]] = {
    "single": ("plan.backend=single",),
    "ddp": ("plan.backend=ddp", "plan.num_processes=2"),
    "zero-2": ("plan.backend=zero", "plan.num_processes=2", "plan.zero_stage=2"),
}
ENDLESS = ("train.max_steps=1000000", "train.save_steps=1000000")
START_SECONDS = 180.0


class Lost(Exception):  # noqa: N818 - what a trial says when something was lost
    """The run did not come through the fault as it must."""


def wait_for(what: Callable[[], Any], why: str, *, seconds: float = 60) -> Any:
    """Return the first true value of ``what()``.

    Raises:
        Lost: None came in time.
    """
    deadline = time.monotonic() + seconds
    while not (found := what()):
        if time.monotonic() > deadline:
            raise Lost(f"waited {seconds:.0f} s in vain: {why}")
        time.sleep(0.02)
    return found


@dataclass
class Lab:
    """A home of its own for the runs of one engine."""

    folder: Path
    model: Path
    engine: str
    terminals: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Write rows and job."""
        self.home = self.folder / "home"
        self.home.mkdir(parents=True)
        rows = self.folder / "rows.jsonl"
        pairs = ({"question": f"What is {n} plus {n}?", "answer": str(n + n)} for n in range(400))
        rows.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf8")
        self.job = self.folder / "tiny.yaml"
        self.job.write_text(
            f"version: 1\nmodel: {{name_or_path: {self.model}}}\ndata: {{path: {rows}}}\n"
            "method: {kind: full}\n"
            "train: {global_batch_size: 64, max_length: 64, learning_rate: 0.001}\n"
            "run: {grace_seconds: 120, num_samples: 0}\n",
            encoding="utf8",
        )

    @property
    def environment(self) -> dict[str, str]:
        """What a login has, and no network."""
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "FTWIZ_HOME": str(self.home),
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            **{name: os.environ[name] for name in ("PYTHONPATH", "FTWIZ_CORPUS") if name in os.environ},
        }

    def command(self, *words: str, settings: tuple[str, ...] = ()) -> list[str]:
        """Return a command line of ftwiz."""
        sets = [part for setting in settings for part in ("--set", setting)]
        return [sys.executable, "-m", "ftwiz", *words, *sets]

    def run_command(self, *settings: str, options: tuple[str, ...] = ()) -> list[str]:
        """Return ``ftwiz run`` of the job with the lab's engine."""
        every = (*ENGINES[self.engine], *settings)
        return self.command("run", str(self.job), *options, settings=every)

    def call(self, *words: str, seconds: float = 150) -> "subprocess.CompletedProcess[str]":
        """Run a command of ftwiz to its end."""
        return subprocess.run(
            self.command(*words),
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def front(self, command: list[str]) -> "subprocess.Popen[bytes]":
        """Start a command without a terminal; signals at their defaults."""
        out = (self.folder / "front.log").open("ab")
        with out:
            return subprocess.Popen(
                command,
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                restore_signals=True,
            )

    def terminal(self, command: list[str]) -> Any:
        """Start a command on a terminal of its own."""
        made = pexpect.spawn(
            command[0],
            command[1:],
            env=self.environment,
            cwd=str(self.folder),
            timeout=60,
            encoding="utf8",
        )
        self.terminals.append(made)
        return made

    @property
    def runs(self) -> list[RunFolder]:
        """Its runs, newest first."""
        return list_runs(self.home / "runs")

    def newest(self, number: int = 1, *, step: int = 3) -> "Seen":
        """Wait until there are so many runs and the newest has got to a step."""
        wait_for(lambda: len(self.runs) >= number, "no run folder", seconds=30)
        seen = Seen(self.runs[0])
        wait_for(lambda: seen.step >= step or seen.record.state.is_over, "no step", seconds=START_SECONDS)
        if seen.step < step:
            raise Lost(f"the run ended before step {step}: {seen.record.reason}")
        return seen

    def close(self) -> None:
        """End whatever still lives."""
        for terminal in self.terminals:
            terminal.close(force=True)
        for run in self.runs:
            record = run.read_record()
            if record.supervisor is not None:
                process.send(record.supervisor, signal.SIGKILL)
            process.kill_all(marker_of(record))


@dataclass
class Seen:
    """A run as its folder tells it."""

    run: RunFolder

    @property
    def events(self) -> list[Event]:
        """All that was written."""
        return read_events(self.run.events_file)

    @property
    def steps(self) -> list[StepEvent]:
        """Logged steps."""
        return [event for event in self.events if isinstance(event, StepEvent)]

    @property
    def step(self) -> int:
        """The newest step."""
        return max((event.step for event in self.steps), default=0)

    @property
    def record(self) -> RunRecord:
        """How it stands."""
        return supervise.status(self.run)

    @property
    def supervisor(self) -> ProcessIdentity:
        """Its supervisor."""
        found = self.run.read_record().supervisor
        assert found is not None
        return found

    @property
    def launcher(self) -> ProcessIdentity:
        """The launcher of its newest attempt."""
        found = self.run.read_record().attempts[-1].launcher
        assert found is not None
        return found

    def rank_pid(self, rank: int) -> int:
        """Pid of a rank of the newest attempt."""
        pids = [event.pid for event in self.events if event.kind == "rank" and event.rank == rank]
        return int(pids[-1])

    def alerts(self, code: str) -> list[AlertEvent]:
        """Alerts of one kind."""
        return [event for event in self.events if isinstance(event, AlertEvent) and event.code == code]

    def saved(self) -> list[CheckpointEvent]:
        """Checkpoints that it told of."""
        return [event for event in self.events if isinstance(event, CheckpointEvent)]

    def goes_on(self, *, steps: int = 5) -> dict[str, float]:
        """Make sure that it makes more steps; return the longest gap since, in usual steps.

        Raises:
            Lost: It makes none.
        """
        before, since = self.step, time.time()
        wait_for(lambda: self.step >= before + steps, "no further step", seconds=90)
        moments = [event.t for event in self.steps]
        gaps = [later - sooner for sooner, later in pairwise(moments)]
        recent = [gap for gap, later in zip(gaps, moments[1:], strict=False) if later >= since - 1]
        return {"longest gap in usual steps": round(max(recent) / median(gaps), 2)}

    def until_over(self, *, seconds: float = 150) -> RunRecord:
        """Wait for its end, and that nothing of it lives 15 s later."""
        wait_for(lambda: self.record.state.is_over, "the run does not end", seconds=seconds)
        record = self.record
        wait_for(lambda: not supervise.leftovers(record), "an orphan lives", seconds=15)
        return record
