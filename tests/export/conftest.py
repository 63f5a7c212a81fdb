"""Two runs to export from, trained once: one with an adapter, one of two ranks that split all weights."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from ftwiz import __version__
from ftwiz.engine.backends import backend
from ftwiz.engine.data import inspect
from ftwiz.engine.models import spec_from_config
from ftwiz.engine.rundir import RunFolder, create
from ftwiz.engine.specs.job import Job
from ftwiz.engine.specs.plan import Strategy
from ftwiz.engine.specs.run import RunRecord, RunState
from ftwiz.engine.stages import train_file

STEPS = 2
TRAIN = {"max_steps": STEPS, "save_steps": 1, "save_total_limit": 2, "max_length": 64, "learning_rate": 0.01}


@dataclass(frozen=True)
class Workshop:
    """Makes and trains runs in a folder, and runs commands on them."""

    home: Path
    model: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a fresh login has, without a network."""
        kept = {"PATH": os.environ["PATH"], "HOME": str(self.home), "FTWIZ_HOME": str(self.home)}
        return kept | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "LANG": "C.UTF-8"}

    def train(self, name: str, kind: str, **strategy: object) -> RunFolder:
        """Train two steps; the run's ranks are those of the strategy."""
        rows = self.home / "rows.jsonl"
        rows.write_text("".join(f'{{"question": "{n} + {n}?", "answer": "{n + n}"}}\n' for n in range(8)))
        planned = Strategy(
            **{"backend": "single", "device_kind": "cpu", "num_processes": 1, "micro_batch_size": 2}
            | {"gradient_accumulation_steps": 1, "gradient_checkpointing": False, "mixed_precision": "no"}
            | strategy
        )
        train = TRAIN | {"global_batch_size": planned.global_batch_size}
        body = {"model": {"name_or_path": str(self.model)}, "data": {"path": str(rows)}, "train": train}
        job = Job.model_validate(body | {"method": {"kind": kind}, "run": {"num_samples": 0}})
        spec = spec_from_config(json.loads((self.model / "config.json").read_text()), where="tiny")
        files = backend(planned.backend).files(planned, job, spec)
        files |= {"plan.json": json.dumps({"strategy": asdict(planned)})}
        files |= {"train.yaml": train_file(job, planned, inspect(job.data, stage=job.stage))}
        run = create(self.home / "runs", name, files=files)
        ranks = str(planned.num_processes)
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", ranks]
        command = [*(launcher if ranks != "1" else []), "-m", "ftwiz.engine.worker", str(run.path)]
        done = self.python(*command)
        assert done.returncode == 0, done.stderr + run.rank_log(0).read_text()
        record = RunRecord(
            id=run.id, name=name, state=RunState.FINISHED, created_at=0.0, host="", ftwiz_version=__version__
        )
        run.write_record(record)
        return run

    def python(self, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
        """Run Python to its end."""
        return subprocess.run(
            [sys.executable, *arguments],
            env=self.environment | env,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def export(self, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
        """Run ``ftwiz export``."""
        return self.python("-m", "ftwiz", "export", *arguments, **env)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Workshop:
    """A folder of runs, shared by all tests of a process."""
    return Workshop(tmp_path_factory.mktemp("export"), tiny_model)


@pytest.fixture(scope="session")
def lora_run(workshop: Workshop) -> RunFolder:
    """A finished run with an adapter."""
    return workshop.train("lora", "lora")


@pytest.fixture(scope="session")
def split_run(workshop: Workshop) -> RunFolder:
    """A finished run of two ranks: its model is whole, its checkpoints are in parts."""
    split = {"backend": "fsdp", "num_processes": 2, "micro_batch_size": 1, "state_dict": "sharded"}
    return workshop.train("split", "full", **split)
