"""A run that stands still is told, with the rank that is behind; a long step that ends is no harm."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from ftwiz.engine import supervise
from ftwiz.engine.specs.run import RunState
from ftwiz.engine.supervise import process
from ftwiz.engine.supervise.stall import Stall, who_is_behind

pytestmark = pytest.mark.timeout(120)
Make = Callable[..., Any]
Wait = Callable[..., Any]


def fed(gaps: list[float]) -> tuple[Stall, float]:
    stall, now = Stall(), 100.0
    stall.step(now)
    for gap in gaps:
        now += gap
        stall.step(now)
    return stall, now


def test_patience_is_a_minute_or_ten_usual_steps() -> None:
    assert fed([1.0] * 5)[0].patience_seconds() == 60
    assert fed([30.0] * 5)[0].patience_seconds() == 300


def test_a_standstill_is_told_once_and_again_after_it_was_over() -> None:
    stall, now = fed([1.0] * 5)
    assert not stall.is_new(now + 59)
    assert stall.is_new(now + 61)
    assert not stall.is_new(now + 200)
    stall.step(now + 201)
    assert stall.is_new(now + 262)


def test_an_evaluation_is_a_sign_of_life_and_no_usual_gap() -> None:
    stall, now = fed([1.0] * 5)
    stall.sign(now + 50)
    assert not stall.is_new(now + 100)
    stall.step(now + 105)
    assert stall.patience_seconds() == 60


def test_nothing_is_told_before_the_first_step() -> None:
    stall = Stall()
    stall.sign(0.0)
    assert not stall.is_new(1e6)


def test_a_stopped_rank_is_named(standin: Make, wait_for: Wait) -> None:
    run = standin().start()
    run.wait_for_step(3)
    pid = run.rank_pid(1)
    os.kill(pid, signal.SIGSTOP)
    try:
        ranks = {rank: process.identify(run.rank_pid(rank)) for rank in (0, 1)}
        wait_for(lambda: who_is_behind(ranks))
        assert who_is_behind(ranks) == f"rank 1 (pid {pid}) is stopped by a signal"
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: who_is_behind(ranks) is None)
    supervise.request_stop(run.run, now=True)
    assert run.wait_until_over().state is RunState.STOPPED
