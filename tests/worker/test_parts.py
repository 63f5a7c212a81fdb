"""The worker's small parts, without training."""

from dataclasses import replace

import pytest

from ftwiz.engine.errors import BadInput, Refused
from ftwiz.engine.specs.events import RankEvent
from ftwiz.engine.specs.plan import Strategy
from ftwiz.engine.worker.exits import MAX_ERROR_CHARACTERS, describe
from ftwiz.engine.worker.ranks import check_ranks, check_world
from ftwiz.engine.worker.samples import prompts_of
from ftwiz.engine.worker.settings import Rank, rank_of
from ftwiz.engine.worker.stopwatch import Stopwatch

STRATEGY = Strategy(
    backend="ddp",
    device_kind="cuda",
    num_processes=2,
    micro_batch_size=1,
    gradient_accumulation_steps=1,
    gradient_checkpointing=False,
    mixed_precision="bf16",
)
RANK = RankEvent(
    t=0.0,
    rank=0,
    local_rank=0,
    world_size=2,
    host="h",
    pid=1,
    device="cuda:0",
    engine="DistributedDataParallel",
    num_parameters=1,
    num_trainable_parameters=1,
)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_a_lap_is_the_time_that_was_not_paused() -> None:
    clock = Clock()
    watch = Stopwatch(clock)
    assert not watch.started
    watch.start()
    clock.now += 2
    watch.pause()
    clock.now += 50
    watch.pause()  # already resting
    clock.now += 50
    watch.go_on()
    clock.now += 1
    assert watch.lap_seconds() == 3
    clock.now += 4
    watch.go_on()  # already running
    assert watch.lap_seconds() == 4


def test_a_lap_that_ends_in_a_pause_does_not_carry_it_into_the_next() -> None:
    clock = Clock()
    watch = Stopwatch(clock)
    watch.start()
    clock.now += 1
    watch.pause()
    clock.now += 10
    assert watch.lap_seconds() == 1
    clock.now += 2
    assert watch.lap_seconds() == 2


def test_the_last_answer_of_a_row_is_the_reference_and_all_before_it_the_prompt() -> None:
    def say(role: str, content: str) -> dict[str, str]:
        return {"role": role, "content": content}

    chat = [say("user", "a"), say("assistant", "b"), say("user", "c"), say("assistant", "d")]
    rows = [
        {"messages": chat},
        {"text": "no prompt in here"},
        {"messages": [say("user", "unanswered")]},
        {"prompt": chat[:1], "completion": chat[1:2]},
        {"prompt": chat[:1], "completion": chat[1:2]},
    ]
    first, second = prompts_of(rows, 2)
    assert (first.text, first.reference, len(first.messages)) == ("c", "d", 3)
    assert (second.text, second.reference, len(second.messages)) == ("a", "b", 1)
    assert prompts_of(rows, 0) == []


def test_a_process_without_a_launcher_is_the_only_rank() -> None:
    assert rank_of({}) == Rank(rank=0, local_rank=0, world_size=1)
    launched = rank_of({"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"})
    assert launched == Rank(rank=3, local_rank=1, world_size=4)
    assert not launched.is_first


def test_ranks_as_planned_pass() -> None:
    check_world(Rank(rank=0, local_rank=0, world_size=2), STRATEGY)
    check_ranks([RANK, replace(RANK, rank=1, device="cuda:1")], STRATEGY)
    alone = replace(STRATEGY, backend="single", num_processes=1)
    check_ranks([replace(RANK, world_size=1, engine="LlamaForCausalLM")], alone)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"world_size": 1}, "it is one of 1 ranks, not of 2"),
        ({"device": "cpu"}, "it is on cpu, not on cuda"),
        ({"engine": "LlamaForCausalLM"}, "its model is a LlamaForCausalLM, and the backend is ddp"),
    ],
)
def test_a_rank_that_became_something_else_is_named(change: dict[str, object], reason: str) -> None:
    with pytest.raises(Refused) as caught:
        check_ranks([RANK, replace(RANK, rank=1, **change)], STRATEGY)
    assert caught.value.message == f"rank 1 is not what was planned: {reason}"


def test_errors_become_one_line_and_a_stable_code() -> None:
    class OutOfMemoryError(RuntimeError):
        pass

    assert describe(BadInput("a: wrong", hint="mend it")) == ("badinput", "a: wrong (mend it)")
    assert describe(KeyboardInterrupt()) == ("interrupted", "interrupted")
    assert describe(OutOfMemoryError("CUDA out of memory.\nTried")) == (
        "device_oom",
        "OutOfMemoryError: CUDA out of memory. Tried",
    )
    code, line = describe(ValueError("long\n" * 1000))
    assert code == "failed"
    assert "\n" not in line
    assert len(line) == MAX_ERROR_CHARACTERS
