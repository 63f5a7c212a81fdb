"""Real training under the command line: follow, leave, hang up, stop, resume, kill; nothing stays behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pexpect
import pytest

from ftwiz.engine import supervise
from ftwiz.engine.rundir import RunFolder, list_runs
from ftwiz.engine.specs.run import RunState
from ftwiz.engine.supervise import process
from ftwiz.engine.supervise.launch import marker_of
from ftwiz.engine.telemetry import read_events

pytestmark = [pytest.mark.train, pytest.mark.timeout(280)]
Ftwiz = Callable[..., Any]
STEPS = 10
ENDLESS = ("--set", "train.max_steps=1000000", "--set", "train.save_steps=1000000")
TWO_RANKS = ("--set", "plan.backend=ddp", "--set", "plan.num_processes=2")


@pytest.fixture
def job(tmp_path: Path, tiny_model: Path, qa_rows: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(
        f"version: 1\nmodel: {{name_or_path: {tiny_model}}}\ndata: {{path: {qa_rows}}}\n"
        f"method: {{kind: full}}\n"
        f"train: {{max_steps: {STEPS}, global_batch_size: 4, max_length: 64, learning_rate: 0.001}}\n"
        f"run: {{grace_seconds: 60, num_samples: 0}}\n"
    )
    return path


@pytest.fixture
def newest(home: Path) -> Iterator[Callable[[], RunFolder]]:
    """The newest run of ``home``; afterwards no process of any run lives, and what lives now is ended."""
    yield lambda: list_runs(home / "runs")[0]
    for run in list_runs(home / "runs"):
        record = run.read_record()
        if record.supervisor is not None:
            process.send(record.supervisor, signal.SIGKILL)
        process.kill_all(marker_of(record))


def environment(home: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "FTWIZ_HOME": str(home),
        "TERM": "xterm-256color",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }


def spawn(home: Path, *arguments: str | Path) -> Any:
    argv = ["-m", "ftwiz", *map(str, arguments)]
    return pexpect.spawn(sys.executable, argv, env=environment(home), timeout=90, encoding="utf8")


def losses(run: RunFolder) -> Mapping[int, float]:
    return {event.step: event.loss for event in read_events(run.events_file) if event.kind == "step"}


def wait_for(what: Callable[[], Any], seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


def assert_nothing_is_left(run: RunFolder) -> None:
    assert supervise.leftovers(run.read_record()) == []


def goes_on(run: RunFolder) -> bool:
    """Whether the run makes more steps from now on."""
    step = max(losses(run), default=0)
    wait_for(lambda: max(losses(run), default=0) > step + 5, 60)
    return supervise.status(run).state is RunState.RUNNING


def test_run_follows_to_the_end_and_says_what_came_of_it(
    run_ftwiz: Ftwiz, job: Path, newest: Callable[[], RunFolder]
) -> None:
    done = run_ftwiz("run", job, "--name", "first", "--json", timeout=120)
    run = newest()
    assert done.returncode == 0
    assert re.fullmatch(r"first-\d{8}-\d{6}", run.id)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["step"] for event in events if event["kind"] == "step"] == list(range(1, STEPS + 1))
    states = [event["state"] for event in events if event["kind"] == "state"]
    assert states == ["launching", "running", "finished"]
    assert "finished after" in done.stderr
    assert f"{STEPS} of {STEPS}" in done.stderr
    assert f"runs/{run.id}/model" in done.stderr
    assert (run.final_model / "model.safetensors").is_file()
    assert_nothing_is_left(run)
    secret_free = {path.name for path in run.log_folder.iterdir()}
    assert secret_free == {"launcher.log", "rank-0.log", "supervisor.log"}


def test_two_ranks_stopped_and_resumed_lose_nothing(
    run_ftwiz: Ftwiz, job: Path, newest: Callable[[], RunFolder]
) -> None:
    slow = ("--set", "train.global_batch_size=256", "--set", "train.max_steps=80")
    assert run_ftwiz("run", job, *TWO_RANKS, *slow, "--name", "whole", timeout=150).returncode == 0
    whole = losses(newest())
    assert len(whole) == 80
    detached = run_ftwiz("run", job, *TWO_RANKS, *slow, "--detach", "--name", "parts", timeout=60)
    run = newest()
    assert (detached.returncode, detached.stdout) == (0, f"{run.id}\n")
    assert f"ftwiz stop {run.id}" in detached.stderr
    wait_for(lambda: len(losses(run)) >= 3)
    second = run_ftwiz("resume", run.id)
    assert second.returncode == 3
    assert "supervisor pid" in second.stderr
    stopped = run_ftwiz("stop", timeout=90)
    assert stopped.returncode == 0
    record = supervise.status(run)
    assert record.state is RunState.STOPPED
    assert f"ftwiz resume {run.id}" in stopped.stderr
    assert_nothing_is_left(run)
    resumed = run_ftwiz("resume", timeout=120)
    assert resumed.returncode == 0
    assert f"goes on from {record.resumable_from}" in resumed.stderr
    assert losses(run) == whole
    assert_nothing_is_left(run)


@pytest.mark.e2e
def test_ctrl_c_leaves_the_training_alone_and_says_how_to_come_back(
    run_ftwiz: Ftwiz, home: Path, job: Path, newest: Callable[[], RunFolder]
) -> None:
    terminal = spawn(home, "run", job, *ENDLESS, "--no-tui")
    wait_for(lambda: list_runs(home / "runs") and len(losses(newest())) > 3)
    terminal.sendintr()
    terminal.expect("training goes on")
    terminal.expect("ftwiz watch tiny-")
    terminal.expect("ftwiz stop tiny-")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    run = newest()
    assert goes_on(run)
    assert run_ftwiz("stop", "--now").returncode == 0
    assert supervise.status(run).reason == "stopped at once, without saving"
    assert_nothing_is_left(run)


@pytest.mark.e2e
def test_the_training_outlives_its_terminal(home: Path, job: Path, newest: Callable[[], RunFolder]) -> None:
    terminal = spawn(home, "run", job, *ENDLESS)
    wait_for(lambda: list_runs(home / "runs") and len(losses(newest())) > 3)
    terminal.close(force=True)
    assert goes_on(newest())


def test_in_the_foreground_sigusr1_saves_and_exits_75_and_a_kill_leaves_no_orphan(
    home: Path, job: Path, newest: Callable[[], RunFolder]
) -> None:
    command = [sys.executable, "-m", "ftwiz", "run", str(job), *ENDLESS, "--foreground"]
    with subprocess.Popen(
        command, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as first:
        wait_for(lambda: list_runs(home / "runs") and len(losses(newest())) > 3)
        first.send_signal(signal.SIGUSR1)
        output, errors = first.communicate(timeout=90)
    assert first.returncode == 75, errors
    run = newest()
    assert supervise.status(run).resumable_from is not None
    assert output.count(b"\n") > 3
    steps = len(losses(run))
    again = [sys.executable, "-m", "ftwiz", "resume", "--foreground"]
    with subprocess.Popen(again, env=environment(home), stdout=subprocess.DEVNULL) as second:
        wait_for(lambda: len(losses(run)) > steps + 3)
        second.kill()
    wait_for(lambda: supervise.status(run).state.is_over)
    assert supervise.status(run).state is RunState.STOPPED
    assert_nothing_is_left(run)


def test_a_killed_rank_fails_the_run_and_is_named(
    home: Path, job: Path, newest: Callable[[], RunFolder]
) -> None:
    command = [sys.executable, "-m", "ftwiz", "run", str(job), *ENDLESS]
    with subprocess.Popen(
        command, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as front:
        wait_for(lambda: list_runs(home / "runs") and len(losses(newest())) > 3)
        run = newest()
        (pid,) = [event.pid for event in read_events(run.events_file) if event.kind == "rank"]
        os.kill(pid, signal.SIGKILL)
        output, _ = front.communicate(timeout=30)
    assert front.returncode == 1
    assert b"rank 0 was killed by signal 9 (SIGKILL)" in output
    assert_nothing_is_left(run)
