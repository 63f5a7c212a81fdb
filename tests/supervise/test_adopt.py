"""A supervisor that is killed: training goes on, the next command takes the run over and learns its end."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from ftwiz.engine import supervise
from ftwiz.engine.errors import ExitCode
from ftwiz.engine.specs.run import RunState

pytestmark = pytest.mark.timeout(120)
Make = Callable[..., Any]
Wait = Callable[..., Any]


def kill_supervisor(run: Any, wait_for: Wait) -> int:
    wait_for(lambda: run.record.state is RunState.RUNNING)
    pid = int(run.supervisor.pid)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: run.record.state is RunState.LOST)
    return pid


def test_training_goes_on_and_the_next_look_takes_the_run_over_within_two_seconds(
    standin: Make, wait_for: Wait
) -> None:
    run = standin().start()
    run.wait_for_step(3)
    before = kill_supervisor(run, wait_for)
    began = time.monotonic()
    record = supervise.tend(run.run)
    taken = time.monotonic() - began
    assert taken < (2 if os.getloadavg()[0] < 2 * (os.cpu_count() or 1) else 10)  # 0.4 s on a quiet machine
    assert record.state is RunState.RUNNING
    assert record.supervisor is not None
    assert record.supervisor.pid != before
    assert f"(pid {before}) was gone" in str(record.reason)
    step = max(event.step for event in run.events if event.kind == "step")
    run.wait_for_step(step + 5)
    assert len(record.attempts) == 1
    supervise.request_stop(run.run)
    record = run.wait_until_over()
    assert record.state is RunState.STOPPED
    assert supervise.exit_code(record) == ExitCode.RESUMABLE
    assert run.processes == []


def test_the_true_ending_is_learnt_though_nobody_saw_it(standin: Make, wait_for: Wait) -> None:
    run = standin("--steps", "40").start()
    run.wait_for_step(3)
    kill_supervisor(run, wait_for)
    wait_for(lambda: not run.processes)
    assert run.record.state is RunState.LOST
    supervise.tend(run.run)
    record = run.wait_until_over()
    assert (record.state, record.reason) == (RunState.FINISHED, "finished at step 40 of 40")
    assert record.attempts[0].exit_code is None
    assert supervise.exit_code(record) == ExitCode.OK


def test_a_rank_that_dies_after_the_take_over_fails_the_run_and_is_named(
    standin: Make, wait_for: Wait
) -> None:
    run = standin().start()
    run.wait_for_step(3)
    kill_supervisor(run, wait_for)
    supervise.tend(run.run)
    os.kill(run.rank_pid(1), signal.SIGKILL)
    record = run.wait_until_over()
    assert record.state is RunState.FAILED
    assert "rank 1" in str(record.reason)
    assert run.processes == []


def test_what_an_earlier_attempt_said_is_no_evidence_of_this_one(standin: Make, wait_for: Wait) -> None:
    run = standin().start()
    run.wait_for_step(3)
    supervise.request_stop(run.run)
    run.wait_until_over()
    supervise.resume(run.run)
    wait_for(lambda: run.states.count("running") == 2)
    kill_supervisor(run, wait_for)
    record = supervise.tend(run.run)
    assert record.state is RunState.RUNNING, "the first attempt's end is not this one's"
    supervise.request_stop(run.run, now=True)
    assert run.wait_until_over().state is RunState.STOPPED


def test_two_commands_at_once_start_one_supervisor(standin: Make, wait_for: Wait) -> None:
    run = standin().start()
    run.wait_for_step(3)
    kill_supervisor(run, wait_for)
    first = supervise.tend(run.run)
    second = supervise.tend(run.run)
    assert first.supervisor == second.supervisor
    supervise.request_stop(run.run, now=True)
    run.wait_until_over()


def test_a_run_of_another_boot_stays_lost(standin: Make) -> None:
    import dataclasses

    run = standin("--steps", "2").start()
    record = run.wait_until_over()
    former = dataclasses.replace(run.supervisor, boot_id="another boot")
    run.run.write_record(dataclasses.replace(record, state=RunState.RUNNING, supervisor=former))
    assert supervise.tend(run.run).state is RunState.LOST
