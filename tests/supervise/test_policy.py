"""When what is left of a run is ended, and what its ending is called."""

import dataclasses

import pytest

from ftwiz.engine.specs.events import EndEvent
from ftwiz.engine.specs.run import RunState
from ftwiz.engine.supervise.policy import TRANSITIONS, Facts, deadline, describe_exit, is_over, verdict

QUIET = Facts(now=100.0, grace_seconds=300.0, num_processes=3)


def end(status: str) -> EndEvent:
    return EndEvent(t=0.0, status=status, step=7, max_steps=9)  # type: ignore[arg-type]


def test_a_run_that_goes_on_is_left_alone() -> None:
    assert deadline(QUIET) is None
    assert not is_over(QUIET)


HISTORIES = {
    "a graceful stop gets the grace period": ({"stop_asked_at": 50.0}, 350.0, 355.0),
    "a stop now gets three seconds": ({"stop_asked_at": 50.0, "stop_now_at": 60.0}, 60.0, 63.0),
    "a run without launcher is ended at once": ({"launcher_exited_at": 90.0}, 90.0, 92.0),
    "ranks that save may outlive their launcher": (
        {"launcher_exited_at": 90.0, "stop_asked_at": 50.0},
        350.0,
        355.0,
    ),
    "a failed rank takes the others along in four seconds": ({"rank_failed_at": 80.0}, 82.5, 84.0),
    "a failed rank does not wait for the grace period": (
        {"rank_failed_at": 80.0, "stop_asked_at": 70.0},
        82.5,
        84.0,
    ),
    "after the end there is time to tidy up": ({"end": end("finished"), "ended_at": 80.0}, 110.0, 115.0),
    "after a failed end there is less": ({"end": end("failed"), "ended_at": 80.0}, 85.0, 87.0),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_deadlines(name: str) -> None:
    changes, terminate_at, kill_at = HISTORIES[name]
    found = deadline(dataclasses.replace(QUIET, **changes))
    assert found is not None
    assert (found.terminate_at, found.kill_at) == (terminate_at, kill_at)


VERDICTS = {
    "the end record wins over the exit code": (
        {"end": end("finished"), "launcher_code": -6},
        RunState.FINISHED,
        "finished at step 7 of 9",
    ),
    "and over a rank that died after it": (
        {"end": end("stopped"), "rank_failed_at": 1.0},
        RunState.STOPPED,
        "stopped at step 7 of 9",
    ),
    "exit code 0 is no success": (
        {"launcher_code": 0},
        RunState.FAILED,
        "training ended early: the launcher exited with code 0",
    ),
    "a rank that fails while it saves fails the run": (
        {"stop_asked_at": 1.0, "rank_failed_at": 2.0, "failed_rank": "rank 1 failed"},
        RunState.FAILED,
        "rank 1 failed",
    ),
    "a stop that was not heard": (
        {"stop_asked_at": 60.0},
        RunState.STOPPED,
        "stopped without saving: no checkpoint came within 40 s",
    ),
    "a stop at once": (
        {"stop_asked_at": 60.0, "stop_now_at": 60.0, "rank_failed_at": 61.0},
        RunState.STOPPED,
        "stopped at once, without saving",
    ),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_verdicts(name: str) -> None:
    changes, state, reason = VERDICTS[name]
    assert verdict(dataclasses.replace(QUIET, **changes)) == (state, reason)


def test_a_run_is_over_when_its_last_process_is_gone() -> None:
    exited = dataclasses.replace(QUIET, launcher_exited_at=99.0)
    assert not is_over(exited)
    assert is_over(dataclasses.replace(exited, num_processes=0))


def test_a_process_that_cannot_be_killed_is_not_waited_for_for_ever() -> None:
    stuck = dataclasses.replace(QUIET, stop_now_at=0.0, stop_asked_at=0.0, now=34.0)
    assert is_over(stuck)


def test_states_only_move_forward() -> None:
    order = list(RunState)
    assert all(order.index(before) < order.index(after) for (before, _), after in TRANSITIONS.items())


def test_exit_statuses_are_put_in_words() -> None:
    assert describe_exit(-9) == "was killed by signal 9 (SIGKILL)"
    assert describe_exit(-64) == "was killed by signal 64 (SIGRTMAX)"
    assert describe_exit(3) == "exited with code 3"
