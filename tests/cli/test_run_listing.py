"""runs, logs and stop on run folders that are there: what they print, and that it cannot hurt a terminal."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pexpect
import pytest

from ftwiz.cli.runs import harmless

Ftwiz = Callable[..., Any]


def test_runs_prints_a_line_a_run(run_ftwiz: Ftwiz, finished_run: Path) -> None:
    done = run_ftwiz("runs")
    assert done.returncode == 0
    head, line = done.stdout.splitlines()
    assert head.split() == ["RUN", "STATE", "STEP", "LOSS", "AGE", "DEVICES", "HOST"]
    assert line.split()[:4] == [finished_run.name, "finished", "8/8", "0.5000"]
    assert line.split()[-1] == "testhost"


def test_runs_as_json_is_the_records_with_their_progress(run_ftwiz: Ftwiz, finished_run: Path) -> None:
    (one,) = json.loads(run_ftwiz("runs", "--json").stdout)
    assert one["id"] == finished_run.name
    assert one["path"] == str(finished_run)
    assert one["progress"] == {"step": 8, "max_steps": 8, "loss": 0.5}


def test_no_runs_are_an_empty_list_and_a_hint(run_ftwiz: Ftwiz) -> None:
    done = run_ftwiz("runs")
    assert (done.returncode, done.stdout) == (0, "")
    assert "ftwiz run JOB.yaml" in done.stderr
    assert json.loads(run_ftwiz("runs", "--json").stdout) == []


def test_a_broken_record_stands_in_the_list(run_ftwiz: Ftwiz, finished_run: Path) -> None:
    (finished_run / "run.json").write_text("{")
    done = run_ftwiz("runs")
    assert done.returncode == 0
    assert done.stdout.splitlines()[1].split()[:2] == [finished_run.name, "unreadable"]


def test_logs_prints_the_newest_lines_of_a_rank(run_ftwiz: Ftwiz, finished_run: Path) -> None:
    (finished_run / "log" / "rank-1.log").write_text("".join(f"line {n}\n" for n in range(50_000)))
    assert run_ftwiz("logs").stdout == "training is over\n"
    assert run_ftwiz("logs", "--rank", "1", "--lines", "2").stdout == "line 49998\nline 49999\n"
    assert run_ftwiz("logs", "--rank", "1", "--lines", "40000").stdout.count("\n") == 40_000
    assert run_ftwiz("logs", finished_run, "-f", "--rank", "1").stdout.count("\n") == 100


def test_a_log_that_is_not_there_is_named_with_those_that_are(run_ftwiz: Ftwiz, finished_run: Path) -> None:
    done = run_ftwiz("logs", "--rank", "7")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: {finished_run.name} has no rank-7.log",
        "hint: logs of this run: rank-0",
    ]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"plain\ttext", "plain    text"),
        (b"\x1b[31mred\x1b[0m", "red"),
        (b"10%|#   |\r 50%|##  |\r100%|####|\r", "100%|####|"),
        (b"\x1b]52;c;ZXZpbA==\x07copy", "copy"),
        (b"\x1b]0;title\x1b\\after", "after"),
        (b"\x1bP+q\x1b\\dcs", "dcs"),
        ("\x9b2Jc1".encode(), "\ufffd2Jc1"),
        ("a\u202eb".encode(), "ab"),
        (b"nul\x00bell\x07", "nul\ufffdbell\ufffd"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_what_a_program_wrote_cannot_command_the_terminal(line: bytes, shown: str) -> None:
    assert harmless(line) == shown


@pytest.mark.parametrize("verb", ["logs", "stop", "resume"])
@pytest.mark.parametrize("name", ["../../etc", "/etc", "-rf", ".", "a/../b", "nobody"])
def test_a_name_of_no_run_is_bad_input(run_ftwiz: Ftwiz, finished_run: Path, verb: str, name: str) -> None:
    done = run_ftwiz(verb, "--", name)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) <= 2


def test_a_run_that_is_over_needs_no_stop_and_has_nothing_to_resume(
    run_ftwiz: Ftwiz, finished_run: Path
) -> None:
    stop = run_ftwiz("stop", finished_run.name)
    assert (stop.returncode, "over already" in stop.stderr) == (0, True)
    assert run_ftwiz("stop").returncode == 2
    resume = run_ftwiz("resume")
    assert resume.returncode == 3
    assert "finished" in resume.stderr


@pytest.mark.e2e
def test_code_that_comes_with_the_model_is_asked_for_on_a_terminal(home: Path, qa_rows: Path) -> None:
    job = home / "job.yaml"
    job.write_text(
        "version: 1\nmodel: {name_or_path: ftwiz:demo, trust_remote_code: true}\n"
        f"data: {{path: {qa_rows}}}\n"
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "FTWIZ_HOME": str(home), "TERM": "xterm"}
    terminal = pexpect.spawn(sys.executable, ["-m", "ftwiz", "run", str(job)], env=environment, timeout=30)
    terminal.expect("Run Python code that comes with 'ftwiz:demo'")
    terminal.sendline("n")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 130
    assert not (home / "runs").exists()


def test_run_wants_a_job_or_a_preset_and_not_both(run_ftwiz: Ftwiz) -> None:
    for arguments in ([], ["job.yaml", "--preset", "demo"]):
        done = run_ftwiz("run", *arguments)
        assert done.returncode == 2
        assert "job file or --preset" in done.stderr
    assert run_ftwiz("run", "job.yaml", "--detach", "--foreground").returncode == 2
