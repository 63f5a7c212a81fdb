"""A laboratory for the worker: run folders without a supervisor, ranks, and a look at what they left."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from ftwiz.engine.backends import backend as engine_of
from ftwiz.engine.data import inspect
from ftwiz.engine.models import spec_from_config
from ftwiz.engine.rundir import RunFolder, create
from ftwiz.engine.specs.events import Event, StepEvent
from ftwiz.engine.specs.job import Job
from ftwiz.engine.specs.model import ModelSpec
from ftwiz.engine.specs.plan import Strategy
from ftwiz.engine.stages import train_file
from ftwiz.engine.telemetry import read_events
from ftwiz.engine.worker.settings import read_settings

E = TypeVar("E", bound=Event)

SAME_WEIGHTS = """
import sys, torch
from pathlib import Path
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM

def load(folder):
    is_adapter = (Path(folder) / "adapter_config.json").is_file()
    kind = AutoPeftModelForCausalLM if is_adapter else AutoModelForCausalLM
    model, *report = (kind.from_pretrained(folder),) if is_adapter else kind.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(any(keys) for facts in report for keys in facts.values()), report
    return dict(model.named_parameters())

one, other = map(load, sys.argv[1:])
assert one.keys() == other.keys(), one.keys() ^ other.keys()
for name, weight in one.items():
    torch.testing.assert_close(weight, other[name], rtol=1e-3, atol=2e-5, msg=lambda text: name + ": " + text)
"""

SINGLE = Strategy(
    backend="single",
    device_kind="cpu",
    num_processes=1,
    micro_batch_size=4,
    gradient_accumulation_steps=1,
    gradient_checkpointing=False,
    mixed_precision="no",
)
DDP = replace(SINGLE, backend="ddp", num_processes=2, micro_batch_size=2)
STRATEGIES = {
    "single": SINGLE,
    "ddp": DDP,
    "zero": replace(DDP, backend="zero", zero_stage=2),
    "fsdp": replace(DDP, backend="fsdp"),
}


@dataclass(frozen=True)
class Lab:
    """Makes runs, works them and reads them."""

    folder: Path
    rows: Path
    model: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a rank needs, nothing of the caller's, and no network."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "FTWIZ_HOME": str(self.folder),
            "HF_HOME": str(self.folder / "huggingface"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "LANG": "C.UTF-8",
        }

    @property
    def spec(self) -> ModelSpec:
        """The model's shape, as the planner reads it."""
        config = json.loads((self.model / "config.json").read_text(encoding="utf8"))
        return spec_from_config(config, where=str(self.model))

    def make(
        self, backend: str = "single", *, strategy: dict[str, Any] | None = None, **sections: Any
    ) -> RunFolder:
        """Return a run folder as the planner leaves it; ``train={...}`` and so on change the job."""
        planned = replace(STRATEGIES[backend], **(strategy or {}))
        train = {
            "max_steps": 6,
            "global_batch_size": planned.global_batch_size,
            "learning_rate": 1e-3,
            "max_length": 64,
        }
        job = Job.model_validate(
            {
                "stage": sections.get("stage", "sft"),
                "model": {"name_or_path": str(self.model)} | sections.get("model", {}),
                "data": {"path": str(self.rows), "eval_fraction": 0.2} | sections.get("data", {}),
                "method": {"kind": "full"} | sections.get("method", {}),
                "train": train | sections.get("train", {}),
                "run": {"num_samples": 0} | sections.get("run", {}),
                "preference": sections.get("preference", {}),
                "rollout": sections.get("rollout", {}),
            }
        )
        files = {
            "train.yaml": train_file(job, planned, inspect(job.data, stage=job.stage)),
            "plan.json": json.dumps({"strategy": asdict(planned)}),
            **engine_of(planned.backend).files(planned, job, self.spec),
        }
        return create(self.folder / "runs", "test", files=files)

    def work(
        self, run: RunFolder, *, ranks: int = 1, resume_from: str | None = None, **env: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run the worker to its end, on as many ranks as wanted."""
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        resume = [] if resume_from is None else ["--resume-from", resume_from]
        worker = ["-m", "ftwiz.engine.worker", str(run.path), *resume]
        return self.python(*(launcher if ranks > 1 else []), *worker, cwd=run.path, **env)

    def launch(self, run: RunFolder, backend: str, launcher: str) -> "subprocess.CompletedProcess[str]":
        """Start the ranks by the command that the engine gives for a launcher."""
        strategy, engine = read_settings(run).strategy, engine_of(backend)
        torchrun, *others = engine.by_hand_commands(strategy, sys.executable)
        accelerate = engine.launch_command(strategy, sys.executable)
        command = {"accelerate": accelerate, "torchrun": torchrun, "deepspeed": (others or [[]])[0]}[launcher]
        return self.python(*command[1:], cwd=run.path)

    def losses(self, run: RunFolder) -> list[float]:
        """Return the loss of every step."""
        return [event.loss for event in self.events(run, StepEvent) if event.loss is not None]

    def python(self, *arguments: str, cwd: Path, **env: str) -> "subprocess.CompletedProcess[str]":
        """Run Python to its end in that environment."""
        return subprocess.run(
            [sys.executable, *arguments],
            env=self.environment | env,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def train(self, backend: str = "single", **sections: Any) -> RunFolder:
        """Make a run, work it, and make sure that it went well."""
        run = self.make(backend, **sections)
        done = self.work(run, ranks=STRATEGIES[backend].num_processes)
        assert done.returncode == 0, done.stderr + run.rank_log(0).read_text()
        return run

    def events(self, run: RunFolder, kind: type[E]) -> list[E]:
        """Return the events of one kind."""
        return [event for event in read_events(run.events_file) if isinstance(event, kind)]

    def exit_record(self, run: RunFolder, rank: int = 0) -> dict[str, Any]:
        """Return a rank's exit record, without what differs from run to run."""
        record: dict[str, Any] = json.loads(run.exit_file(rank).read_text())
        assert record.pop("t") > 0
        assert record.pop("pid") > 0
        assert record.pop("peaks")["host_bytes"] > 0
        return record


@pytest.fixture
def lab(tmp_path: Path, qa_rows: Path, tiny_model: Path) -> Lab:
    """A laboratory with forty question/answer rows and the tiny model."""
    return Lab(tmp_path, qa_rows, tiny_model)


@pytest.fixture(scope="session")
def lab_of(tiny_model: Path) -> Callable[[Path], Lab]:
    """``lab_of(folder)``: a laboratory there, with the rows of ``qa_rows``, for what many tests share."""

    def make(folder: Path) -> Lab:
        rows = folder / "rows.jsonl"
        pairs = ({"question": f"What is {n} plus {n}?", "answer": str(n + n)} for n in range(40))
        rows.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf8")
        return Lab(folder, rows, tiny_model)

    return make


@dataclass(frozen=True)
class Whole:
    """What one rank makes of the same rows, for engines that share the work to be held against."""

    losses: list[float]
    model: Path


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, lab_of: Callable[[Path], Lab]) -> dict[str, Whole]:
    """Six steps of one rank, by method."""
    lab = lab_of(tmp_path_factory.mktemp("whole"))
    runs = {kind: lab.train(method={"kind": kind}) for kind in ("full", "lora")}
    return {kind: Whole(lab.losses(run), run.final_model) for kind, run in runs.items()}


@pytest.fixture(scope="session")
def same_weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, Path], None]:
    """``same_weights(a, b)``: load both as a user would, and hold every weight against its twin."""
    folder = tmp_path_factory.mktemp("same")

    def check(one: Path, other: Path) -> None:
        lab = Lab(folder, folder, folder)
        done = lab.python("-c", SAME_WEIGHTS, str(one), str(other), cwd=folder)
        assert done.returncode == 0, done.stderr

    return check
