"""What a rank says of its memory: real allocations in real processes, and a real run."""

import json
import statistics
import time
from types import SimpleNamespace
from typing import Any

import pytest

from ftwiz.engine.specs.events import EndEvent, PeakEvent
from ftwiz.engine.telemetry import decode, encode
from ftwiz.engine.worker.peaks import Peak, Peaks, batch_tokens

MIB = 1 << 20
TABLE = SimpleNamespace(shape=(2, 64))
CHILD = """
import sys
from ftwiz.engine.worker.peaks import Peaks
MIB = 1 << 20
peaks = Peaks(3)
peaks.begin("cpu")
ballast = bytearray(200 * MIB)
first = peaks.take("first steps", 2)
del ballast
second = peaks.take("training", 9)
peaks.record()
end = peaks.end(9)
print(*[(event.host_bytes - peaks.baseline_host_bytes) // MIB for event in (first, second, end)])
"""


def event(moment: str, host_bytes: int, *, rank: int = 0) -> PeakEvent:
    return PeakEvent(t=1.0, rank=rank, moment=moment, step=1, host_bytes=host_bytes)


def test_a_phase_has_its_own_peak_and_the_whole_has_the_highest(lab: Any) -> None:
    done = lab.python("-c", CHILD, cwd=lab.folder)
    first, _, end = map(int, done.stdout.split())
    assert 195 <= first <= 215, done.stderr
    assert end == first


def test_what_was_freed_is_not_counted_again_where_the_kernel_lets_the_peak_be_reset(lab: Any) -> None:
    reset = "from pathlib import Path; Path('/proc/self/clear_refs').write_text('5')"
    if lab.python("-c", reset, cwd=lab.folder).returncode != 0:
        pytest.skip("this kernel does not let a process reset its peak")
    done = lab.python("-c", CHILD, cwd=lab.folder)
    first, second, _ = map(int, done.stdout.split())
    # The second phase began when the ballast was still there: only a third one would show it gone.
    assert second <= first


def test_a_peak_is_told_once_and_again_only_when_it_is_higher() -> None:
    peaks = Peaks(0)
    told = [event("save", 5), event("save", 5), event("save", 4), event("save", 6), event("load", 1)]
    assert [one.host_bytes for one in peaks.news(told)] == [5, 6, 1]
    assert peaks.news([event("save", 5, rank=1)])


def test_peaks_merge_to_the_larger_of_each_and_what_is_unknown_stays_so() -> None:
    merged = Peak(allocated_bytes=3, host_bytes=1).merged(Peak(allocated_bytes=2, reserved_bytes=4))
    assert merged == Peak(allocated_bytes=3, reserved_bytes=4, host_bytes=1)
    assert Peak(host_bytes=7).as_dict() == {"host_bytes": 7}


@pytest.mark.parametrize(
    ("inputs", "tokens"),
    [
        ({"input_ids": TABLE, "labels": TABLE}, 128),
        ({"chosen_input_ids": TABLE, "attention_mask": SimpleNamespace(shape=(9, 99))}, 128),
        ({"input_ids": "no tensor"}, None),
        ({}, None),
        (["no mapping"], None),
    ],
)
def test_the_size_of_a_batch_is_that_of_its_token_tables(inputs: Any, tokens: int | None) -> None:
    assert batch_tokens(inputs) == tokens


def test_a_device_without_counters_gives_none_and_not_zero() -> None:
    peaks = Peaks(0)
    peaks.begin("cpu")
    taken = peaks.take("load", 0)
    assert (taken.allocated_bytes, taken.reserved_bytes, taken.outside_bytes) == (None, None, None)
    assert taken.host_bytes is not None
    assert taken.host_bytes > 0


def test_the_event_survives_its_file_form() -> None:
    peaks = Peaks(1)
    written = peaks.begin("cpu")
    assert decode(encode(written)) == written


def test_taking_a_peak_costs_less_than_a_millisecond() -> None:
    peaks = Peaks(0)
    peaks.begin("cpu")
    seconds = []
    for step in range(20):
        began = time.perf_counter()
        peaks.take("training", step)
        seconds.append(time.perf_counter() - began)
    assert statistics.median(seconds) < 1e-3


@pytest.mark.train
def test_a_run_tells_the_peaks_of_every_rank_and_phase(lab: Any) -> None:
    run = lab.train("ddp", train={"max_steps": 5, "save_steps": 4})
    peaks = lab.events(run, PeakEvent)
    moments = ["start", "load", "first steps", "training", "evaluation", "save", "end"]
    for rank in (0, 1):
        mine = [one for one in peaks if one.rank == rank]
        assert set(moments) == {one.moment for one in mine}
        assert mine[0].moment == "start"
        assert mine[-1].moment == "end"
        assert mine[-1].host_bytes == max(one.host_bytes or 0 for one in mine)
        assert mine[-1].batch_tokens is not None
        assert 2 <= mine[-1].batch_tokens <= 2 * 64
        assert lab_peaks(run, rank)["host_bytes"] >= mine[-1].host_bytes
    (end,) = lab.events(run, EndEvent)
    assert end.host_peak_bytes == max(one.host_bytes for one in peaks if one.moment == "end")
    assert end.device_peak_bytes is None


@pytest.mark.train
def test_a_rank_that_fails_leaves_its_peaks_behind(lab: Any) -> None:
    run = lab.make(train={"extra": {"dataloader_num_workers": 1, "dataloader_prefetch_factor": -1}})
    assert lab.work(run).returncode == 1
    assert lab_peaks(run, 0)["host_bytes"] > 50 * MIB


def lab_peaks(run: Any, rank: int) -> dict[str, int]:
    peaks: dict[str, int] = json.loads(run.exit_file(rank).read_text())["peaks"]
    return peaks
