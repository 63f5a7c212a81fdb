import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftwiz.engine.rundir import RunFolder
from ftwiz.engine.specs.events import DevicesEvent, EvalEvent, SampleEvent, StepEvent
from ftwiz.engine.telemetry import read_events
from ftwiz.tui.monitor.reader import Reader
from ftwiz.tui.monitor.reduce import History
from ftwiz.tui.monitor.view import Frame, next_command

RUNS = Path(__file__).parents[1] / "fixtures" / "runs"
FrameOf = Callable[[str], Frame]


def test_a_running_run_is_told_as_its_events_tell_it(frame_of: FrameOf) -> None:
    frame = frame_of("running")
    view = frame.view
    assert view.latest is not None
    assert (view.latest.step, view.latest.max_steps) == (113, 160)
    assert view.remaining_seconds == pytest.approx(47 * 0.24)
    assert frame.elapsed_seconds == 40.0
    assert [event.step for event in view.evals] == [0, 40, 80]
    assert view.exact_match == (0.0, 0.71)
    assert [event.step for event in view.checkpoints] == [40, 80]
    assert (frame.facts.backend, frame.facts.device_kind) == ("single", "cpu")
    assert view.devices is not None
    assert view.devices.host is not None
    assert frame.log[-1] == "Generating answers"


def test_the_first_answer_stays_and_the_newest_one_changes(frame_of: FrameOf) -> None:
    pair = frame_of("running").view.pairs[0]
    assert (pair.before.step, pair.before.matches) == (0, False)
    assert pair.now is not None
    assert (pair.now.step, pair.now.text, pair.now.matches) == (80, "enots", True)


def test_a_loss_that_is_no_number_is_told_and_not_drawn(frame_of: FrameOf) -> None:
    view = frame_of("nan").view
    assert view.broken_step == 61
    assert view.final_loss is not None
    assert math.isnan(view.final_loss)
    assert view.loss.points[-1].step == 60
    assert "is NaN at step 61" in [line.text for line in view.lines]
    assert view.num_alerts == 1


def test_a_run_that_failed_before_its_first_step_has_no_numbers(frame_of: FrameOf) -> None:
    frame = frame_of("failed")
    assert frame.view.latest is None
    assert frame.view.remaining_seconds is None
    assert frame.view.exact_match == (None, None)
    assert next_command(frame) == "ftwiz logs failed"


def test_the_torn_last_line_of_a_lost_run_is_passed_over(frame_of: FrameOf) -> None:
    frame = frame_of("lost")
    assert frame.view.latest is not None
    assert frame.view.latest.step == 50
    assert frame.elapsed_seconds == 30.0


def test_the_second_attempt_of_a_resumed_run_replaces_the_steps_after_the_checkpoint(
    frame_of: FrameOf,
) -> None:
    frame = frame_of("resumed")
    steps = [point.step for point in frame.view.loss.points]
    assert steps == list(range(1, 121))
    assert [event.step for event in frame.view.evals] == [0, 40, 80, 120]
    assert frame.view.end is not None
    assert frame.elapsed_seconds == 24.0 + 31.0


def test_a_new_attempt_forgets_how_the_last_one_ended(frame_of: FrameOf) -> None:
    events = read_events(RUNS / "nan" / "events.jsonl")
    start = next(event for event in events if event.kind == "state")
    view = History().feed([*events, start]).view()
    assert view.end is None
    assert view.broken_step is None


def test_an_evaluation_after_the_checkpoint_is_forgotten_when_the_run_goes_back() -> None:
    events = [
        StepEvent(t=1, step=1, max_steps=9),
        EvalEvent(t=1, step=1, exact_match=0.1),
        SampleEvent(t=1, step=1, index=0, prompt="p", completion="first"),
        StepEvent(t=2, step=2, max_steps=9),
        SampleEvent(t=2, step=2, index=0, prompt="p", completion="second"),
        EvalEvent(t=2, step=2, exact_match=0.9),
        StepEvent(t=3, step=2, max_steps=9),
    ]
    view = History().feed(events).view()
    assert [event.step for event in view.evals] == [1]
    assert view.exact_match == (0.1, None)
    assert view.pairs[0].now is None


def test_exact_match_is_counted_from_the_answers_when_no_evaluation_tells_it() -> None:
    answers = [(0, 0, False), (0, 1, False), (5, 0, True), (5, 1, False)]
    events = [
        SampleEvent(t=1, step=step, index=index, prompt="p", completion="c", matches=matches)
        for step, index, matches in answers
    ]
    assert History().feed(events).view().exact_match == (0.0, 0.5)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_reading_in_pieces_tells_the_same_as_reading_at_once(data: st.DataObject) -> None:
    events = read_events(RUNS / "resumed" / "events.jsonl")
    cut = data.draw(st.integers(0, len(events)))
    pieces = History().feed(events[:cut])
    pieces.view()
    assert pieces.feed(events[cut:]).view() == History().feed(events).view()


def test_a_reader_hands_out_what_was_written_since(recorded: Callable[[str], RunFolder]) -> None:
    run = recorded("running")
    reader = Reader(run, status=RunFolder.read_record)
    before = reader.read()
    with run.events_file.open("ab") as file:
        file.write(b'{"kind":"step","t":1750000041.0,"step":114,"max_steps":160,"loss":0.25}\n')
    with run.rank_log(0).open("ab") as file:
        file.write(b"10%|#\r20%|##\r\n{'loss': '0.5', 'epoch': '1'}\nnext\n")
    after = reader.read()
    reader.close()
    assert before.view.latest is not None
    assert after.view.latest is not None
    assert (before.view.latest.step, after.view.latest.step) == (113, 114)
    assert after.log[-2:] == ("20%|##", "next")
    assert after.view.devices == before.view.devices
    assert isinstance(after.view.devices, DevicesEvent)


def test_a_plan_of_another_version_does_not_keep_the_screen_from_opening(
    recorded: Callable[[str], RunFolder],
) -> None:
    run = recorded("running")
    for text in ("[]", '{"strategy": 3}', "{", '{"strategy": {"backend": ["x"], "num_processes": "two"}}'):
        run.plan_file.write_text(text)
        assert Reader(run, status=RunFolder.read_record).read().facts.backend is None
