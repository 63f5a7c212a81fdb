"""What ``ftwiz --help`` prints is a file, for speed; here it is kept true."""

import subprocess
import sys
from pathlib import Path

import pytest

import ftwiz.cli
from ftwiz.cli.group import VERBS, group, help_text, run_group

HELP_FILE = Path(ftwiz.cli.__file__).parent / "help.txt"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ftwiz", *arguments], capture_output=True, text=True, timeout=30, check=False
    )


def test_the_help_file_is_what_the_commands_say() -> None:
    assert help_text() == HELP_FILE.read_text(encoding="utf8"), "regenerate with: make help-file"


def test_help_comes_from_the_file_and_goes_to_stdout() -> None:
    for flag in ("--help", "-h"):
        done = run(flag)
        assert (done.returncode, done.stdout, done.stderr) == (0, HELP_FILE.read_text(encoding="utf8"), "")


def test_version_is_one_line() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"ftwiz {ftwiz.__version__}\n")


def test_every_verb_loads_and_its_help_works() -> None:
    with group.make_context("ftwiz", [], resilient_parsing=True) as context:
        for name in VERBS:
            command = group.get_command(context, name)
            assert command is not None
            assert command.help, f"{name} says nothing about itself"
            assert command.name == name


def test_a_misspelt_command_names_the_nearest_and_exits_2() -> None:
    done = run("wach")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "error: no command 'wach'; did you mean 'watch'?",
        "hint: ftwiz --help",
    ]


def test_a_misspelt_option_is_one_line_and_exits_2() -> None:
    done = run("plan", "--shwo")
    assert done.returncode == 2
    assert done.stderr.startswith("error: No such option '--shwo'")
    assert len(done.stderr.splitlines()) == 2


def test_control_characters_in_a_message_do_not_reach_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_group(["plan", "no\x1b]52;c;eA\x07such.yaml"]) == 2
    assert "\x1b" not in capsys.readouterr().err
