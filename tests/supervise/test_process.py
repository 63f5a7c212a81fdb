"""A process is known by pid, start and boot; a run's processes are found wherever they hide."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ftwiz.engine.supervise import process

Wait = Callable[..., Any]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    yield child
    child.kill()
    child.wait()


def test_this_process_is_alive() -> None:
    identity = process.identify(os.getpid())
    assert identity is not None
    assert process.alive(identity)


def test_a_pid_that_nobody_has_is_nobody() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert process.identify(child.pid) is None


def test_a_zombie_is_not_alive(wait_for: Wait) -> None:
    child = subprocess.Popen(["true"])
    wait_for(lambda: (seen := process.look(child.pid)) is not None and seen.is_dead)
    assert process.identify(child.pid) is None
    child.wait()


@pytest.mark.parametrize("change", [{"start_ticks": 1}, {"boot_id": "another boot"}])
def test_another_program_under_a_reused_pid_is_never_signalled(
    sleeper: subprocess.Popen[bytes], change: dict[str, Any]
) -> None:
    identity = process.identify(sleeper.pid)
    assert identity is not None
    former = dataclasses.replace(identity, **change)
    assert not process.alive(former)
    assert not process.send(former, signal.SIGKILL)
    time.sleep(0.1)
    assert sleeper.poll() is None
    assert process.send(identity, signal.SIGKILL)
    assert sleeper.wait(timeout=5) == -signal.SIGKILL


def test_a_name_with_parentheses_and_spaces_does_not_confuse_the_table(wait_for: Wait) -> None:
    code = "import ctypes, time; ctypes.CDLL(None).prctl(15, b') Z 1 (x'); print(flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    seen = process.look(child.pid)
    child.kill()
    child.communicate()
    assert seen is not None
    assert (seen.parent, seen.is_dead) == (os.getpid(), False)


def test_the_mark_finds_what_left_the_tree_and_the_tree_finds_what_lost_the_mark(wait_for: Wait) -> None:
    mark = f"test-{os.getpid()}"
    # A shell that carries the mark; a child without it; and a grandchild that was reparented and has it.
    script = "env -i sleep 61 & (setsid sleep 62 &) ; wait"
    root = subprocess.Popen(["sh", "-c", script], env=os.environ | {process.MARKER: mark})
    found = wait_for(lambda: len(members := process.members(mark, root=root.pid)) == 3 and members)
    assert root.pid in {identity.pid for identity in found}
    assert process.kill_all(mark, root=root.pid) == []
    root.wait()
    assert process.members(mark) == []


def test_a_mark_that_begins_alike_is_another_run(wait_for: Wait) -> None:
    child = subprocess.Popen(["sleep", "60"], env={process.MARKER: "run@12"})
    try:
        # The kernel shows an environment a moment after the program has begun.
        wait_for(lambda: process.marked("run@12", [child.pid]) == {child.pid})
        assert process.marked("run@1", [child.pid]) == set()
    finally:
        child.kill()
        child.wait()


def test_what_is_born_while_all_are_killed_is_killed_too() -> None:
    mark = f"forking-{os.getpid()}"
    script = "while true; do (setsid sleep 60 &); sleep 0.01; done"
    root = subprocess.Popen(["sh", "-c", script], env=os.environ | {process.MARKER: mark})
    time.sleep(0.3)
    assert process.kill_all(mark, root=root.pid) == []
    root.wait()
    assert process.members(mark) == []
