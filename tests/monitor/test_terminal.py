"""The screen in a real pseudo terminal: leaving, crashing, and a terminal that goes away."""

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ftwiz.engine.rundir import RunFolder

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

SHOW = """
import signal, sys
from pathlib import Path
from ftwiz.engine.rundir import RunFolder
from ftwiz.tui import monitor
from ftwiz.tui.monitor import panels
if "crash" in sys.argv:
    panels.keys.__code__ = (lambda frame, width, height: 1 // 0).__code__
if "nohup" in sys.argv:
    from signal import signal as real
    signal.signal = lambda number, what: real(number, signal.SIG_IGN if number == signal.SIGHUP else what)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
sys.exit(monitor.run_monitor(RunFolder(Path(sys.argv[1]))))
"""


class Watching:
    """A monitor in a pseudo terminal of 80 by 24."""

    def __init__(self, folder: Path, *how: str) -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            time.sleep(0.05)
            os.execve(  # noqa: S606 - a real terminal is the point
                sys.executable,
                [sys.executable, "-c", SHOW, str(folder), *how],
                os.environ | {"TERM": "xterm-256color"},
            )
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.seen = b""

    def until(self, words: bytes, seconds: float = 20) -> None:
        """Read until these words came."""
        end = time.monotonic() + seconds
        while words not in self.seen and time.monotonic() < end:
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self.master, 1 << 16)
                except OSError:
                    break
        assert words in self.seen, self.seen[-2000:]

    def exit_code(self, seconds: float = 15) -> int:
        """Wait for the end."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.05)
        raise AssertionError("it did not end")

    def close(self) -> None:
        """Leave nothing behind."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


@pytest.fixture
def watching(recorded: Callable[[str], RunFolder]) -> Iterator[Callable[..., Watching]]:
    started: list[Watching] = []

    def start(name: str, *how: str) -> Watching:
        started.append(Watching(recorded(name).path, *how))
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_leaving_restores_the_terminal_and_gives_the_exit_code_of_the_run(
    watching: Callable[..., Watching],
) -> None:
    screen = watching("nan")
    screen.until(b"FAILED")
    os.write(screen.master, b"q")
    screen.until(b"\x1b[?1049l")
    assert screen.exit_code() == 1


def test_a_screen_that_crashes_ends_with_a_failure(watching: Callable[..., Watching]) -> None:
    screen = watching("resumed", "crash")
    screen.until(b"ZeroDivisionError")
    assert b"\x1b[?1049l" in screen.seen
    assert screen.exit_code() == 1


def test_a_screen_whose_terminal_hangs_up_ends(watching: Callable[..., Watching]) -> None:
    screen = watching("resumed")
    screen.until(b"FINISHED")
    os.close(screen.master)
    assert screen.exit_code() != 0


def test_a_screen_ends_with_its_terminal_also_when_hang_ups_are_ignored(
    watching: Callable[..., Watching],
) -> None:
    screen = watching("resumed", "nohup")
    screen.until(b"FINISHED")
    os.close(screen.master)
    assert screen.exit_code() != 0
