"""The smoke test for real: two lengths of a tiny model on the CPU, measured, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from ftwiz.engine.calibration import Calibration, read_calibrations
from ftwiz.engine.probe.trial import sweep, trial_folder

pytestmark = [pytest.mark.train, pytest.mark.timeout(280)]
Ftwiz = Callable[..., Any]
MIB = 1 << 20


def rows_of(home: Path) -> tuple[Calibration, ...]:
    return read_calibrations(home / "calibration.jsonl")


def leftovers(home: Path) -> list[str]:
    """Folders of trials, and processes that know of this home."""
    folders = [path.name for path in home.iterdir() if path.name.startswith(".ftwiz-check-")]
    return folders + [" ".join(one.info["cmdline"] or []) for one in processes(home)]


def processes(home: Path) -> list[psutil.Process]:
    found = []
    for one in psutil.process_iter(["cmdline"]):
        try:
            if one.environ().get("FTWIZ_HOME") == str(home) and one.status() != psutil.STATUS_ZOMBIE:
                found.append(one)
        except psutil.Error:
            continue
    return found


def test_two_lengths_are_run_and_measured_beside_the_estimate(
    run_ftwiz: Ftwiz, make_job: Callable[..., Path], home: Path
) -> None:
    done = run_ftwiz("check", make_job(length=256, micro=16, batch=16), "--smoke", "3", "--json", timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    smoke = json.loads(done.stdout)["smoke"]
    assert [trial["sequence_tokens"] for trial in smoke["trials"]] == [128, 256]
    assert [trial["state"] for trial in smoke["trials"]] == ["finished", "finished"]
    short, full = rows_of(home)
    assert (short.source, full.source) == ("probe", "probe")
    assert (short.tokens, full.tokens) == (16 * 128, 16 * 256)
    assert short.batch_tokens == short.tokens, "every row fills its length"
    assert short.key == full.key is not None
    assert short.num_steps == 3
    assert short.steps is not None
    assert full.steps is not None
    # Saved activations alone, in float32: at least the inputs of the nine matrix products of each layer.
    least = 2048 * 2 * (7 * 32 + 64) * 4
    grown = full.steps.host_bytes - short.steps.host_bytes  # type: ignore[operator]
    assert grown > least
    fit = smoke["fit"]["grown_bytes"]
    assert fit["bytes_per_token"] * 2048 == pytest.approx(grown)
    assert {one["tokens"] for one in smoke["compared"]} == {2048, 4096}
    assert leftovers(home) == []
    assert not (home / "runs").exists()


def test_two_ranks_are_tried_as_two_ranks(
    run_ftwiz: Ftwiz, make_job: Callable[..., Path], home: Path
) -> None:
    pins = ("--set", "plan.backend=ddp", "--set", "plan.num_processes=2")
    job = make_job(length=64, micro=2, batch=8)
    done = run_ftwiz("check", job, *pins, "--smoke", "2", timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ranks can meet here" in done.stdout
    for row in rows_of(home):
        assert len(row.ranks) == row.num_ranks == 2
        assert row.strategy["gradient_accumulation_steps"] == 2
    assert leftovers(home) == []


def test_a_trial_that_fails_is_diagnosed(run_ftwiz: Ftwiz, make_job: Callable[..., Path], home: Path) -> None:
    done = run_ftwiz(
        "check", make_job(), "--set", "train.extra={no_such_thing: 1}", "--smoke", "2", timeout=200
    )
    assert done.returncode == 1
    assert "smoke 64" in done.stdout
    assert "has no trainer argument 'no_such_thing'" in done.stdout
    assert "smoke 128" not in done.stdout, "what fails at half the length is not tried at the whole"
    assert ".ftwiz-check" not in done.stdout
    assert leftovers(home) == []


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[1]), int(sys.argv[1])))
from ftwiz.cli.group import run_group
sys.exit(run_group(sys.argv[2:]))
"""


def test_running_out_of_memory_is_said_as_that(make_job: Callable[..., Path], home: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "FTWIZ_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
    }
    job = make_job(length=256, micro=4096, batch=4096)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(1400 * MIB), "check", str(job), "--smoke", "2"],
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
        cwd=home,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "host_oom: the host ran out of memory" in done.stdout
    assert leftovers(home) == []
    (row,) = [row for row in rows_of(home) if row.outcome == "failed"]
    assert row.cause == "host_oom"


def test_a_trial_that_takes_too_long_is_ended(
    run_ftwiz: Ftwiz, make_job: Callable[..., Path], home: Path
) -> None:
    done = run_ftwiz("check", make_job(), "--smoke", "1000", "--limit", "3", timeout=120)
    assert done.returncode == 1
    assert "not done after" in done.stdout
    assert "--limit SECONDS" in done.stdout
    assert leftovers(home) == []


def start_check(job: Path, home: Path) -> "subprocess.Popen[bytes]":
    """Start a check with many steps, and return when a trial is under way."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "FTWIZ_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
    }
    check = subprocess.Popen(
        [sys.executable, "-m", "ftwiz", "check", str(job), "--smoke", "1000"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=home,
    )
    deadline = time.monotonic() + 90
    while not list(home.glob(".ftwiz-check-*/runs/*/log/rank-0.log")):
        assert check.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1)
    return check


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_check_leaves_nothing_behind(
    make_job: Callable[..., Path], home: Path, number: signal.Signals
) -> None:
    check = start_check(make_job(), home)
    check.send_signal(number)
    _, errors = check.communicate(timeout=60)
    assert check.returncode == 130
    assert b"Traceback" not in errors
    assert leftovers(home) == []


def test_a_killed_check_leaves_no_process_and_a_folder_that_the_next_one_removes(
    make_job: Callable[..., Path], home: Path
) -> None:
    check = start_check(make_job(), home)
    check.kill()
    check.communicate(timeout=20)
    deadline = time.monotonic() + 60
    while processes(home):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    (left,) = home.glob(".ftwiz-check-*")
    with trial_folder(home) as mine:
        assert not left.exists()
        sweep(home)
        assert mine.exists()
    assert leftovers(home) == []
