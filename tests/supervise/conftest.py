"""Runs that are launched for real with a stand-in for the ranks, and that nothing of is left afterwards."""

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine import supervise
from ftwiz.engine.rundir import RunFolder, create
from ftwiz.engine.specs.events import Event
from ftwiz.engine.specs.run import ProcessIdentity, RunRecord, RunState
from ftwiz.engine.supervise import process
from ftwiz.engine.supervise.launch import marker_of
from ftwiz.engine.telemetry import read_events

STANDIN = Path(__file__).with_name("standin.py")


def _wait_for(what: Callable[[], Any], *, seconds: float = 30) -> Any:
    """Return the first true value of ``what()``."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


@dataclass
class Standin:
    """A run whose launcher is ``standin.py``."""

    run: RunFolder
    _started: list[ProcessIdentity] = field(default_factory=list)

    def start(self, **options: bool) -> "Standin":
        """Start the run."""
        supervise.start(self.run, **options)
        return self

    @property
    def record(self) -> RunRecord:
        """How it stands now."""
        return supervise.status(self.run)

    @property
    def events(self) -> list[Event]:
        """What it has written so far."""
        return read_events(self.run.events_file)

    @property
    def states(self) -> list[str]:
        """The states it went through."""
        return [event.state for event in self.events if event.kind == "state"]

    @property
    def processes(self) -> list[ProcessIdentity]:
        """Its living processes."""
        return supervise.leftovers(self.run.read_record())

    @property
    def supervisor(self) -> ProcessIdentity:
        """Its supervisor."""
        found = self.run.read_record().supervisor
        assert found is not None
        return found

    @property
    def launcher(self) -> ProcessIdentity:
        """Its launcher."""
        found = self.run.read_record().attempts[-1].launcher
        assert found is not None
        return found

    def rank_pid(self, rank: int) -> int:
        """The pid of a rank, as it told."""
        return _wait_for(
            lambda: next((e.pid for e in self.events if e.kind == "rank" and e.rank == rank), None)
        )

    def wait_for_step(self, step: int) -> None:
        """Wait until the run has got so far."""
        _wait_for(lambda: any(event.kind == "step" and event.step >= step for event in self.events))

    def wait_until_over(self, *, seconds: float = 30) -> RunRecord:
        """Wait for the end."""
        _wait_for(lambda: self.record.state.is_over, seconds=seconds)
        return self.record


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., Any]:
    """``wait_for(what, seconds=30)``: the first true value of ``what()``."""
    return _wait_for


@pytest.fixture
def standin(tmp_path: Path) -> Iterator[Callable[..., Standin]]:
    """``standin("--ignore-term", grace_seconds=1)``: a run in state created."""
    made: list[Standin] = []

    def make(*flags: str, grace_seconds: float = 20, ranks: int = 2) -> Standin:
        job = {
            "version": 1,
            "model": {"name_or_path": "ftwiz:demo"},
            "data": {"path": str(STANDIN)},
            "run": {"grace_seconds": grace_seconds},
        }
        launch = [sys.executable, str(STANDIN), "--ranks", str(ranks), *flags]
        plan = {"launch": launch, "strategy": {"num_processes": ranks, "micro_batch_size": 4}}
        files = {"job.yaml": json.dumps(job), "plan.json": json.dumps(plan)}
        run = create(tmp_path / "runs", "standin", files=files)
        run.write_record(
            RunRecord(
                id=run.id,
                name="standin",
                state=RunState.CREATED,
                created_at=time.time(),
                host=socket.gethostname(),
                ftwiz_version="0",
            )
        )
        made.append(Standin(run))
        return made[-1]

    yield make
    for one in made:
        record = one.run.read_record()
        if record.supervisor is not None:
            process.send(record.supervisor, signal.SIGKILL)
        process.kill_all(marker_of(record))
        with contextlib.suppress(ChildProcessError):
            if record.supervisor is not None:
                os.waitpid(record.supervisor.pid, 0)
