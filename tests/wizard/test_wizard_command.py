"""``ftwiz`` without a command."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.timeout(60)


def test_without_a_terminal_it_says_what_to_do_instead(run_ftwiz: Run) -> None:
    done = run_ftwiz()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: the wizard needs a terminal\nhint: ftwiz run JOB.yaml\n"


def test_lines_can_come_through_a_pipe_when_plain_is_asked_for(run_ftwiz: Run, home: Path) -> None:
    done = run_ftwiz("--plain", text="\n\n\n\n\n\nmine.yaml\nno\n", cwd=home)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.endswith("wrote mine.yaml\nstart it with: ftwiz run mine.yaml\n")
    assert run_ftwiz("run", "mine.yaml", "--dry-run", cwd=home).returncode == 0


def test_a_pipe_that_ends_early_writes_nothing(run_ftwiz: Run, home: Path) -> None:
    done = run_ftwiz("--plain", text="\n", cwd=home)
    assert done.returncode == 0
    assert done.stderr.endswith("left; nothing was written\n")
    assert not list(home.glob("*.yaml"))


def test_a_preset_that_is_not_there_is_named(run_ftwiz: Run) -> None:
    done = run_ftwiz("--plain", "--preset", "dmeo")
    assert done.returncode == 2
    assert "no preset 'dmeo'" in done.stderr


def test_the_screen_loads_no_training_stack() -> None:
    code = (
        "import sys, ftwiz.tui.wizard.app, ftwiz.engine.hardware, ftwiz.cli.wizard;"
        "print(sorted({'torch', 'transformers', 'numpy', 'datasets', 'questionary'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "[]\n"
