"""Run folders without a supervisor, ranks started as the launchers start them, and what they left behind."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import pytest

from ftwiz.engine.data import inspect
from ftwiz.engine.rundir import RunFolder, create
from ftwiz.engine.specs.events import Event
from ftwiz.engine.specs.job import Job
from ftwiz.engine.specs.plan import Strategy
from ftwiz.engine.stages import train_file
from ftwiz.engine.telemetry import read_events

E = TypeVar("E", bound=Event)
MakeRun = Callable[..., RunFolder]
Work = Callable[..., "subprocess.CompletedProcess[str]"]

SINGLE = Strategy(
    backend="single",
    device_kind="cpu",
    num_processes=1,
    micro_batch_size=4,
    gradient_accumulation_steps=1,
    gradient_checkpointing=False,
    mixed_precision="no",
)
DDP = Strategy(
    backend="ddp",
    device_kind="cpu",
    num_processes=2,
    micro_batch_size=2,
    gradient_accumulation_steps=1,
    gradient_checkpointing=False,
    mixed_precision="no",
)


def events_of(run: RunFolder, kind: type[E]) -> list[E]:
    """Return the events of one kind that a run has left."""
    return [event for event in read_events(run.events_file) if isinstance(event, kind)]


@pytest.fixture
def make_run(tmp_path: Path, qa_rows: Path, tiny_model: Path) -> MakeRun:
    """``make_run(strategy, train={...}, method={...}, ...)``: a run folder as the planner leaves it."""

    def make(strategy: Strategy = SINGLE, **sections: dict[str, Any]) -> RunFolder:
        batch = strategy.global_batch_size
        job = Job.model_validate(
            {
                "model": {"name_or_path": str(tiny_model)} | sections.get("model", {}),
                "data": {"path": str(qa_rows), "eval_fraction": 0.2} | sections.get("data", {}),
                "method": {"kind": "full"} | sections.get("method", {}),
                "train": {"max_steps": 6, "global_batch_size": batch, "learning_rate": 1e-3, "max_length": 64}
                | sections.get("train", {}),
                "run": {"num_samples": 0} | sections.get("run", {}),
            }
        )
        files = {
            "train.yaml": train_file(job, strategy, inspect(job.data)),
            "plan.json": json.dumps({"strategy": asdict(strategy)}),
        }
        return create(tmp_path / "runs", "test", files=files)

    return make


@pytest.fixture
def work(tmp_path: Path) -> Work:
    """``work(run, ranks=2, resume_from="checkpoint-4")``: run the worker to its end."""

    def start(run: RunFolder, *, ranks: int = 1, resume_from: str | None = None, **env: str) -> Any:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        resume = [] if resume_from is None else ["--resume-from", resume_from]
        return subprocess.run(
            [
                sys.executable,
                *(launcher if ranks > 1 else []),
                "-m",
                "ftwiz.engine.worker",
                str(run.path),
                *resume,
            ],
            env=environment(tmp_path) | env,
            cwd=run.path,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return start


def environment(home: Path) -> dict[str, str]:
    """Return what a rank needs of the environment, and nothing of the caller's."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "FTWIZ_HOME": str(home),
        "HF_HOME": str(home / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "LANG": "C.UTF-8",
    }
