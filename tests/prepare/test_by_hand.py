"""Files of ``ftwiz plan --write``, started by hand: every launcher, two nodes on loopback, SLURM's queue."""

import json
import os
import socket
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftwiz.engine.rundir import RunFolder
from ftwiz.engine.specs.events import StepEvent
from ftwiz.engine.telemetry import read_events

pytestmark = [pytest.mark.train, pytest.mark.timeout(200)]

ROOT = Path(__file__).resolve().parents[2]
STEPS = 3
SBATCH = """
import os, re, subprocess, sys, time
from pathlib import Path

script = Path(sys.argv[1]).read_text()
options = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", script, re.M))
slurm = {"SLURM_SUBMIT_DIR": os.getcwd(), "SLURM_JOB_ID": os.environ["JOB_ID"]}
slurm |= {"SLURM_JOB_NODELIST": "n[0-1]", "SLURM_JOB_NUM_NODES": options["nodes"]}
events = Path("events.jsonl")
sign, seconds = re.fullmatch(r"B:(USR1)@([0-9]+)", options["signal"]).groups()
bash = subprocess.Popen(["bash", "-c", script], env=os.environ | slurm)
while bash.poll() is None:
    time.sleep(0.02)
    if os.environ.get("TIME_IS_UP") and events.is_file() and '"kind":"step"' in events.read_text():
        subprocess.run(["kill", f"-{sign}", str(bash.pid)], check=True)
        break
sys.exit(bash.wait())
"""
SRUN = """
import os, subprocess, sys
command = [word for word in sys.argv[1:] if word != "--kill-on-bad-exit=1"]
nodes = range(int(os.environ["SLURM_JOB_NUM_NODES"]))
ours = [{"SLURM_NODEID": str(node), "SLURM_PROCID": str(node)} for node in nodes]
tasks = [subprocess.Popen(command, env=os.environ | variables) for variables in ours]
sys.exit(max(abs(task.wait()) for task in tasks))
"""
SCONTROL = """
import sys
from pathlib import Path
if sys.argv[1:3] == ["show", "hostnames"]:
    assert sys.argv[3] == "n[0-1]", sys.argv
    print("127.0.0.1", "127.0.0.2", sep=chr(10))
else:
    Path("requeued").write_text(" ".join(sys.argv[1:]))
"""


@dataclass(frozen=True)
class Desk:
    """Where plans are written and started by hand."""

    folder: Path
    model: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a login shell has, and no more."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "FTWIZ_HOME": str(self.folder),
            "PYTHONPATH": str(ROOT),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "LANG": "C.UTF-8",
        }

    def write(self, name: str, *options: str, machine: str = "2cpu+8GB", **train: Any) -> Path:
        """Plan a job of two ranks on the CPU and write its files."""
        rows = [{"question": f"What is {n} plus {n}?", "answer": str(n + n)} for n in range(24)]
        (self.folder / "rows.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows), encoding="utf8"
        )
        body = {
            "model": {"name_or_path": str(self.model)},
            "data": {"path": "rows.jsonl"},
            "method": {"kind": "full"},
            "train": {"max_steps": STEPS, "global_batch_size": 4, "max_length": 64, "learning_rate": 1e-3}
            | train,
            "plan": {
                "device": "cpu",
                "backend": "zero",
                "zero_stage": 2,
                "num_processes": 2,
                "micro_batch_size": 1,
            },
            "run": {"num_samples": 0},
        }
        (self.folder / "job.yaml").write_text(yaml.safe_dump(body), encoding="utf8")
        command = [sys.executable, "-m", "ftwiz", "plan", "job.yaml", "--machine", machine, "--write", name]
        done = subprocess.run(
            [*command, *options],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return self.folder / name

    def start(self, written: Path, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
        """Start launch.sh as a person would, from anywhere."""
        return subprocess.Popen(
            [written / "launch.sh", *arguments],
            cwd="/",
            env=self.environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def losses(written: Path) -> list[float | None]:
    """Return the loss of every step of a run."""
    events = read_events(RunFolder(written).events_file)
    return [event.loss for event in events if isinstance(event, StepEvent)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def ended(started: "subprocess.Popen[str]") -> None:
    output = started.communicate(timeout=120)[0]
    assert started.returncode == 0, output


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Desk:
    pytest.importorskip("deepspeed", reason="deepspeed is not installed")
    return Desk(tmp_path_factory.mktemp("desk"), tiny_model)


@pytest.fixture(scope="module")
def by_accelerate(desk: Desk) -> list[float | None]:
    """Losses of two ranks on one node, started by accelerate's launcher."""
    written = desk.write("accelerate")
    ended(desk.start(written))
    found = losses(written)
    assert len(found) == STEPS
    return found


@pytest.mark.parametrize("launcher", ["torchrun", "deepspeed"])
def test_every_launcher_trains_the_same(launcher: str, desk: Desk, by_accelerate: list[float | None]) -> None:
    written = desk.write(launcher)
    ended(desk.start(written, "--launcher", launcher))
    assert losses(written) == pytest.approx(by_accelerate, abs=1e-6)


def test_two_nodes_train_what_two_ranks_of_one_node_train(
    desk: Desk, by_accelerate: list[float | None]
) -> None:
    written = desk.write("nodes", machine="2 nodes x 2cpu+8GB")
    port = free_port()
    second = desk.start(written, NODE_RANK="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    first = desk.start(written, "--node-rank", "0", "--master", f"127.0.0.1:{port}")
    ended(first)
    ended(second)
    assert losses(written) == pytest.approx(by_accelerate, abs=1e-6)
    plan = json.loads((written / "plan.json").read_text(encoding="utf8"))
    assert (plan["strategy"]["num_processes"], plan["strategy"]["num_nodes"]) == (2, 2)


def test_a_batch_job_saves_before_its_limit_and_goes_on_when_it_is_queued_again(desk: Desk) -> None:
    steps = 60
    options = (
        "--slurm",
        "--sbatch",
        "partition=cpu",
        "--set",
        "plan.backend=ddp",
        "--set",
        "plan.zero_stage=auto",
    )
    written = desk.write("queue", *options, machine="2 nodes x 2cpu+8GB", max_steps=steps)
    tools = fake_slurm(desk.folder)
    environment = desk.environment | {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "JOB_ID": str(free_port() % 9000),
    }

    def submit(**variables: str) -> int:
        done = subprocess.run(
            ["sbatch", "job.sbatch"], cwd=written, env=environment | variables, timeout=150, check=False
        )
        return done.returncode

    assert submit(TIME_IS_UP="yes") == 75
    assert (written / "requeued").read_text(encoding="utf8") == f"requeue {environment['JOB_ID']}"
    first = len(losses(written))
    assert 0 < first < steps
    assert submit() == 0
    numbers = [event.step for event in read_events(written / "events.jsonl") if isinstance(event, StepEvent)]
    assert numbers == [*range(1, steps + 1)]
    assert (written / "model" / "config.json").is_file()


def fake_slurm(folder: Path) -> Path:
    """Executables that do on this machine what SLURM's do on two nodes."""
    tools = folder / "slurm"
    tools.mkdir()
    for name, code in {"sbatch": SBATCH, "srun": SRUN, "scontrol": SCONTROL}.items():
        path = tools / name
        path.write_text(f"#!{sys.executable}\n{code}", encoding="utf8")
        path.chmod(stat.S_IRWXU)
    return tools


def test_a_script_that_is_told_too_little_says_what_is_missing(desk: Desk) -> None:
    written = desk.write("asked", machine="2 nodes x 2cpu+8GB")
    wrong = {
        "which node is this": (),
        "where is node 0": ("--node-rank", "1"),
        "--node-rank 2: 0 to 1": ("--node-rank", "2", "--master", "a"),
        "no launcher 'ray'": ("--node-rank", "0", "--master", "a", "--launcher", "ray"),
    }
    for words, arguments in wrong.items():
        started = desk.start(written, *arguments)
        output = started.communicate(timeout=20)[0]
        assert (started.returncode, output.count("\n")) == (2, 1)
        assert words in output
