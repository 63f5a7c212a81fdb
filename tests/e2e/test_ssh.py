"""ftwiz over a real SSH login, in a real terminal."""

from collections.abc import Callable
from typing import Any

import pytest

from ftwiz import __version__

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def test_a_login_finds_ftwiz(ssh_server: Any, open_terminal: Callable[..., Any]) -> None:
    terminal = open_terminal(ssh_server.login(), columns=80, rows=24)
    terminal.wait_for(r"box\$")
    terminal.run("ftwiz --version; echo code=$?")
    screen = terminal.wait_for(r"code=\d")
    assert f"ftwiz {__version__}" in screen
    assert "code=0" in screen


def test_help_fits_the_smallest_terminal(ssh_server: Any, open_terminal: Callable[..., Any]) -> None:
    terminal = open_terminal(ssh_server.login(), columns=80, rows=24)
    terminal.wait_for(r"box\$")
    terminal.run("clear; ftwiz --help | awk 'length > 80' | wc -l; ftwiz --help | wc -l")
    screen = terminal.wait_for(r"(?m)^\d+\n\d+$")
    too_wide, lines = (int(line) for line in screen.splitlines()[-30:] if line.strip().isdigit())
    assert too_wide == 0
    assert lines <= 24
