"""Every panel of every recorded run, at every size: within its cells, and nothing unclean."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftwiz.engine.specs.events import StepEvent
from ftwiz.engine.specs.run import RunState
from ftwiz.tui.monitor import panels, verdicts
from ftwiz.tui.monitor.devices import devices
from ftwiz.tui.monitor.health import checkpoints, health, memory, ranks
from ftwiz.tui.monitor.metrics import figures, metrics
from ftwiz.tui.monitor.reduce import History
from ftwiz.tui.monitor.result import result
from ftwiz.tui.monitor.samples import samples, wrapped
from ftwiz.tui.monitor.view import Frame, Predicted, Show
from ftwiz.tui.text import safe, width_of
from ftwiz.tui.widgets.lines import Row, row_width

FrameOf = Callable[[str], Frame]
PANELS = (
    panels.header,
    panels.loss,
    metrics,
    devices,
    health,
    ranks,
    checkpoints,
    memory,
    panels.events,
    panels.log,
    panels.keys,
    samples,
    result,
)
NAMES = ("running", "gpus", "nan", "failed", "lost", "resumed")


def text_of(rows: Sequence[Row]) -> str:
    return "\n".join("".join(text for text, _ in row) for row in rows)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(width=st.integers(30, 200), height=st.integers(1, 50), logarithmic=st.booleans())
def test_every_panel_keeps_within_its_cells(
    frame_of: FrameOf, name: str, width: int, height: int, *, logarithmic: bool
) -> None:
    frame = replace(
        frame_of(name), show=Show(logarithmic=logarithmic, paused=logarithmic, zoomed=logarithmic)
    )
    for panel in PANELS:
        rows = panel(frame, width, height)
        assert len(rows) <= max(height, 2), panel.__name__
        assert all(row_width(row) <= width for row in rows), panel.__name__
        assert all(safe(text) == text for row in rows for text, _ in row), panel.__name__


def test_the_state_is_told_in_words(frame_of: FrameOf) -> None:
    frame = frame_of("running")
    for state in RunState:
        shown = replace(frame, record=replace(frame.record, state=state))
        assert f" {state.value.upper()} " in text_of(panels.header(shown, 80, 2))


def test_right_and_wrong_are_told_by_marks(frame_of: FrameOf) -> None:
    table = text_of(samples(frame_of("running"), 100, 10))
    assert "exact match 0 % → 71 %" in table
    assert table.count("✗") == 7
    assert table.count("✓") == 5


def test_long_answers_get_more_lines_where_there_is_room(frame_of: FrameOf) -> None:
    frame = frame_of("running")
    pair = replace(frame.view.pairs[0], prompt="word " * 60)
    long = replace(frame, view=replace(frame.view, pairs=(pair,)))
    assert len(samples(long, 80, 3)) == 3
    assert len(samples(long, 80, 20)) == 2 + 6


def test_hidden_rows_are_counted(frame_of: FrameOf) -> None:
    assert "… 4 more, press 4" in text_of(samples(frame_of("running"), 80, 5))
    frame = frame_of("gpus")
    nodes = tuple(replace(frame.view.nodes[0], number=number) for number in range(9))
    many = replace(frame, view=replace(frame.view, nodes=nodes))
    assert "… 6 more nodes, press 3" in text_of(devices(many, 70, 4))


def test_devices_are_drawn_in_what_room_there_is(frame_of: FrameOf) -> None:
    frame = frame_of("gpus")
    assert "400" not in text_of(devices(frame, 44, 6))
    assert len(devices(frame, 118, 10)) == 6
    assert len(devices(frame, 80, 2)) == 2
    assert "node 0" in text_of(devices(frame, 80, 1))


def test_memory_is_split_by_what_the_plan_says_it_is_for(frame_of: FrameOf) -> None:
    frame = frame_of("gpus")
    predicted = Predicted(groups={"weights": 40 << 30, "optimizer": 20 << 30})
    planned = replace(frame, facts=replace(frame.facts, predicted=predicted))
    row = devices(planned, 118, 10)[1]
    styles = {style: len(text) for text, style in row if style in {"weights", "optimizer"}}
    assert styles["weights"] == pytest.approx(2 * styles["optimizer"], abs=1)
    mono = replace(planned, show=Show(has_colours=False))
    assert "███▒" in text_of(devices(mono, 118, 10))


def test_health_says_what_is_wrong_first(frame_of: FrameOf) -> None:
    assert verdicts.word(frame_of("running"))[0] == "HEALTHY"
    frame = frame_of("gpus")
    reading = replace(frame.view.nodes[0].sample.devices[2], temperature_celsius=91.0)
    sample = replace(frame.view.nodes[0].sample, devices=(*frame.view.nodes[0].sample.devices, reading))
    hot = replace(frame, view=replace(frame.view, nodes=(replace(frame.view.nodes[0], sample=sample),)))
    assert verdicts.word(hot)[0] == "CHECK"
    assert text_of(health(hot, 60, 10)).splitlines()[1] == "!!  device 2 has 91 °C, the others 70"
    assert text_of(health(hot, 60, 1)).startswith("!! device 2 has 91 °C")


def test_a_run_whose_steps_stop_coming_is_stalled(frame_of: FrameOf) -> None:
    frame = frame_of("running")
    assert not verdicts.is_stalled(replace(frame, now=frame.now + 30))
    late = replace(frame, now=frame.now + 300)
    assert verdicts.word(late)[0] == "BROKEN"
    assert "no step for 4:" in text_of(health(late, 60, 10)) or "no step for 5:" in text_of(
        health(late, 60, 10)
    )


def test_what_a_stage_logs_has_a_panel_of_its_own(frame_of: FrameOf) -> None:
    names = {"rewards/margins": 0.4, "rewards/accuracies": 0.8, "logps/chosen": -12.0}
    steps = [
        StepEvent(t=step, step=step, max_steps=40, loss=0.6, tokens_per_second=900.0, metrics=names)
        for step in range(1, 30)
    ]
    frame = replace(frame_of("running"), view=History().feed(steps).view())
    assert [figure.name for figure in figures(frame)[:3]] == [
        "tokens/s",
        "rewards/margins",
        "rewards/accuracies",
    ]
    assert "rewards/margins 0.400" in text_of(metrics(frame, 118, 6))
    assert "logps/chosen -12.0" in text_of(metrics(replace(frame, show=Show(zoomed=True)), 118, 30))


def test_a_failed_run_says_cause_advice_and_command(frame_of: FrameOf) -> None:
    shown = text_of(result(frame_of("nan"), 60, 20))
    for words in (
        "failed  after 26 s",
        "became NaN at step 61",
        "lower the learning rate",
        "train.learning_rate=2e-4",
    ):
        assert words in shown
    assert shown.index("became NaN") < shown.index("exact match")


def test_a_finished_run_says_what_came_of_it(frame_of: FrameOf) -> None:
    frame = replace(frame_of("resumed"), model="/runs/resumed/model")
    shown = text_of(result(frame, 60, 20))
    for words in ("finished  after 55 s", "3.200 → 0.3000", "0 % → 100 %", "/runs/resumed/model"):
        assert words in shown


def test_nothing_is_said_of_the_end_while_a_run_goes_on(frame_of: FrameOf) -> None:
    assert result(frame_of("running"), 60, 20) == []


def test_a_viewer_that_may_not_stop_offers_no_stop(frame_of: FrameOf) -> None:
    frame = frame_of("running")
    assert "stop" in text_of(panels.keys(frame, 80, 1))
    assert "stop" not in text_of(panels.keys(replace(frame, show=Show(readonly=True)), 80, 1))


@given(st.text(st.characters(categories=["L", "Zs"]), max_size=80), st.integers(2, 30), st.integers(1, 6))
def test_wrapping_keeps_every_word_that_has_room(text: str, width: int, num_lines: int) -> None:
    clean = safe(text).strip()
    lines = wrapped(clean, width, num_lines)
    assert 1 <= len(lines) <= num_lines
    assert all(width_of(line) <= width for line in lines)
    if not lines[-1].endswith("…"):
        assert "".join("".join(lines).split()) == "".join(clean.split())
