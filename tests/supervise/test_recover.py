"""After a failure the supervisor begins another attempt only where the job asks for it, and says each."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine import checkpoints, supervise
from ftwiz.engine.rundir import list_runs
from ftwiz.engine.specs.run import Diagnosis, RunState
from ftwiz.engine.supervise import stall
from ftwiz.engine.supervise.recover import MOST_ATTEMPTS
from ftwiz.engine.telemetry import read_events

pytestmark = pytest.mark.timeout(150)
Make = Callable[..., Any]
Wait = Callable[..., Any]
TAKEN = "RuntimeError: EADDRINUSE: address already in use"


def asks(run: Any, **options: str) -> Any:
    """Change what the job says of failures."""
    path = run.run.job_file
    job = json.loads(path.read_text())
    job["run"] |= options
    path.write_text(json.dumps(job))
    return run


def test_a_port_that_was_lost_to_another_program_is_tried_again(standin: Make) -> None:
    run = standin("--steps", "5", "--fail-with", TAKEN, "--fail-early", "--fail-times", "1").start()
    record = run.wait_until_over()
    assert record.state is RunState.FINISHED
    assert [attempt.recovers_from for attempt in record.attempts] == [None, "port_in_use"]
    assert run.states == ["launching", "launching", "running", "finished"]


def test_a_port_that_stays_taken_is_given_up_after_three_attempts(standin: Make) -> None:
    run = standin("--fail-with", TAKEN, "--fail-early").start()
    record = run.wait_until_over(seconds=60)
    assert record.state is RunState.FAILED
    assert len(record.attempts) == 1 + MOST_ATTEMPTS
    assert "no further one" in str(record.reason)
    assert run.processes == []


def test_a_failure_that_the_job_says_nothing_of_ends_the_run(standin: Make) -> None:
    run = standin("--fail-with", "RuntimeError: CUDA out of memory. Tried to allocate 2 GiB").start()
    record = run.wait_until_over()
    assert record.state is RunState.FAILED
    assert len(record.attempts) == 1
    assert record.diagnosis.command == f"ftwiz resume {run.run.id} --replan"


def test_a_run_that_asks_for_another_plan_and_has_none_says_why(standin: Make) -> None:
    run = asks(standin("--fail-with", "RuntimeError: CUDA out of memory."), on_oom="replan").start()
    record = run.wait_until_over()
    assert record.state is RunState.FAILED
    assert "no lighter plan could be made" in str(record.reason)


def test_a_rank_that_stands_still_is_started_again_from_the_newest_whole_checkpoint(
    standin: Make, wait_for: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(stall.LEAST_ENV, "1.5")
    run = asks(standin(), on_stall="restart")
    older = run.run.checkpoints / "checkpoint-2"
    older.mkdir()
    (older / "weights").write_text("2")
    checkpoints.write_manifest(older)
    (run.run.checkpoints / "checkpoint-9").mkdir()
    run.start().wait_for_step(3)
    for rank in (0, 1):
        os.kill(run.rank_pid(rank), signal.SIGSTOP)
    wait_for(lambda: len(run.record.attempts) == 2, seconds=30)
    wait_for(lambda: run.states.count("running") == 2)
    attempt = run.record.attempts[1]
    assert (attempt.recovers_from, attempt.resumed_from) == ("stall", "checkpoint-2")
    alerts = {event.code: event.message for event in reversed(run.events) if event.kind == "alert"}
    assert "rank 0" in alerts["stall"]
    assert "checkpoint-9 is passed over: no manifest.json" in alerts["checkpoint_skipped"]
    supervise.request_stop(run.run, now=True)
    assert run.wait_until_over().state is RunState.STOPPED


def test_a_run_that_stands_still_is_stopped_where_the_job_asks_for_it(
    standin: Make, wait_for: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(stall.LEAST_ENV, "1.5")
    run = asks(standin(grace_seconds=1), on_stall="stop").start()
    run.wait_for_step(3)
    for rank in (0, 1):
        os.kill(run.rank_pid(rank), signal.SIGSTOP)
    record = run.wait_until_over()
    assert record.state is RunState.STOPPED
    assert run.processes == []


BIGGER = ("hidden_size=32, intermediate_size=64", "hidden_size=128, intermediate_size=2048")
LIMIT_BYTES = 1_350_000_000


@pytest.mark.train
def test_out_of_memory_goes_on_with_a_lighter_plan_and_the_same_global_batch(home: Path) -> None:
    conftest = (Path(__file__).parents[1] / "conftest.py").read_text(encoding="utf8")
    code = re.search(r'TINY_MODEL = """(.*?)"""', conftest, re.DOTALL)[1].replace(*BIGGER)  # type: ignore[index]
    model, rows, job = home / "model", home / "rows.jsonl", home / "job.yaml"
    subprocess.run([sys.executable, "-c", code, str(model)], check=True, capture_output=True)
    pairs = ({"question": f"Tell me about {n}. " * 8, "answer": "well " * 40} for n in range(40))
    rows.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf8")
    job.write_text(
        f"version: 1\nmodel: {{name_or_path: {model}}}\ndata: {{path: {rows}}}\nmethod: {{kind: full}}\n"
        "train: {max_steps: 2, global_batch_size: 32, max_length: 256, learning_rate: 0.001}\n"
        "run: {num_samples: 0, on_oom: replan}\n"
    )
    command = ["prlimit", f"--data={LIMIT_BYTES}", sys.executable, "-m", "ftwiz", "run", str(job), "--json"]
    environ = os.environ | {"FTWIZ_HOME": str(home), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, env=environ, cwd=home, capture_output=True, text=True, timeout=140, check=False
    )
    (run,) = list_runs(home / "runs")
    record = run.read_record()
    assert done.returncode == 0, record
    asked, *others = [attempt.recovers_from for attempt in record.attempts]
    assert (asked, {*others}) == (None, {"device_oom"})
    assert len(others) <= MOST_ATTEMPTS
    assert "micro batch 32 -> " in str(record.attempts[1].change)
    plans = [json.loads(path.read_text())["strategy"] for path in (run.former_plan_file(1), run.plan_file)]
    batches = [plan["micro_batch_size"] * plan["gradient_accumulation_steps"] for plan in plans]
    assert batches == [32, 32]
    states = [event.reason for event in read_events(run.events_file) if event.kind == "state"]
    assert any("recovers from device_oom: micro batch 32 -> " in str(reason) for reason in states)


def test_out_of_memory_shows_the_estimate_beside_the_measured_peak_and_what_would_fit(standin: Make) -> None:
    from ftwiz.engine.supervise.recover import explain

    run = standin().run
    plan = json.loads(run.plan_file.read_text())
    plan |= {"predicted": {"process_bytes": 3 << 30}}
    plan["strategy"] |= {"device_kind": "cuda", "backend": "single", "gradient_accumulation_steps": 2}
    plan["strategy"] |= {"gradient_checkpointing": False, "mixed_precision": "bf16"}
    run.plan_file.write_text(json.dumps(plan))
    found = explain(
        run, Diagnosis(cause="device_oom", message="m", evidence="line"), peaks=[{"reserved_bytes": 5 << 30}]
    )
    assert found.evidence == "line; 3.00 GiB estimated, 5.00 GiB measured"
