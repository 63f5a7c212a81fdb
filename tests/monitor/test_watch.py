"""``ftwiz watch`` as a user runs it, without a terminal."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ftwiz.engine.rundir import RunFolder

Recorded = Callable[[str], RunFolder]


def watch(*arguments: str | Path, home: Path, text_in: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ftwiz", "watch", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        input=text_in,
        check=False,
        env=os.environ | {"FTWIZ_HOME": str(home), "TZ": "UTC"},
    )


def test_without_a_terminal_it_writes_plain_lines_to_the_end(recorded: Recorded, tmp_path: Path) -> None:
    recorded("demo")
    done = watch("demo", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "exact match   0 % -> 100 %" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_a_run_is_found_by_the_beginning_of_its_id_by_its_folder_or_as_the_newest(
    recorded: Recorded, tmp_path: Path
) -> None:
    run = recorded("resumed")
    for arguments in (["resu"], [str(run.path)], []):
        done = watch(*arguments, "--once", "--json", home=tmp_path)
        assert json.loads(done.stdout)["id"] == "resumed"


def test_once_tells_how_it_stands_without_the_history(recorded: Recorded, tmp_path: Path) -> None:
    recorded("resumed")
    done = watch("--once", home=tmp_path)
    assert "state         finished after 55 s" in done.stdout
    assert "tokens/s" not in done.stdout


def test_json_is_one_object_and_with_follow_one_a_line(recorded: Recorded, tmp_path: Path) -> None:
    recorded("nan")
    assert json.loads(watch("--json", home=tmp_path).stdout)["state"] == "failed"
    lines = watch("--json", "--follow", home=tmp_path).stdout.splitlines()
    assert json.loads(lines[-1]) == {
        "kind": "state",
        "t": 1750000026.0,
        "state": "failed",
        "attempt": 1,
        "reason": "the loss is NaN",
    }


@pytest.mark.parametrize(("name", "code"), [("resumed", 0), ("nan", 1), ("failed", 1)])
@pytest.mark.parametrize("form", [["--plain"], ["--json"], ["--once"], ["--json", "--follow"]])
def test_until_done_leaves_with_the_exit_code_of_the_run(
    recorded: Recorded, tmp_path: Path, name: str, code: int, form: list[str]
) -> None:
    recorded(name)
    assert watch(*form, home=tmp_path).returncode == 0
    assert watch(*form, "--until-done", home=tmp_path).returncode == code


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "no run 'nowhere'"),
        (["../../etc"], ""),
        (["a b"], "is not a run id"),
        (["--follow"], "--follow goes with --json"),
        (["--json", "--once", "--follow"], "--follow goes with --json"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = watch(*arguments, home=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_reader_that_goes_away_is_no_failure_worth_a_traceback(recorded: Recorded, tmp_path: Path) -> None:
    run = recorded("demo")
    command = f"{sys.executable} -m ftwiz watch {run.path} --plain | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("run     demo")
    assert done.stderr == ""


@pytest.mark.parametrize(("options", "code"), [((), 0), (("--until-done",), 130)])
def test_interrupting_leaves_and_says_how_to_come_back(
    recorded: Recorded, options: tuple[str, ...], code: int
) -> None:
    run = recorded("demo")
    record = run.record_file.read_text().replace('"finished"', '"created"')  # alive without a supervisor
    run.record_file.write_text(record)
    watching = subprocess.Popen(
        [sys.executable, "-m", "ftwiz", "watch", str(run.path), "--plain", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout is not None
    while "saving the model" not in watching.stdout.readline():
        pass
    time.sleep(0.5)
    watching.send_signal(signal.SIGINT)
    _, errors = watching.communicate(timeout=20)
    assert watching.returncode == code
    assert "back to it: ftwiz watch demo" in errors
    assert "Traceback" not in errors
