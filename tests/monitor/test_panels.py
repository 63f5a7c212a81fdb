"""Every panel of every recorded run, at every size: within its cells, and nothing unclean."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftwiz.engine.specs.run import RunState
from ftwiz.tui.monitor import panels
from ftwiz.tui.monitor.result import result
from ftwiz.tui.monitor.samples import samples, wrapped
from ftwiz.tui.monitor.view import Frame
from ftwiz.tui.text import safe, width_of
from ftwiz.tui.widgets.lines import Row, row_width

FrameOf = Callable[[str], Frame]
PANELS = (
    panels.header,
    panels.loss,
    panels.speed,
    panels.devices,
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
    frame = replace(frame_of(name), logarithmic=logarithmic, paused=logarithmic)
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
    assert "… 7 more lines, press 3" in text_of(panels.devices(frame_of("gpus"), 44, 2))


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
    assert "stop" not in text_of(panels.keys(replace(frame, readonly=True), 80, 1))


@given(st.text(st.characters(categories=["L", "Zs"]), max_size=80), st.integers(2, 30), st.integers(1, 6))
def test_wrapping_keeps_every_word_that_has_room(text: str, width: int, num_lines: int) -> None:
    clean = safe(text).strip()
    lines = wrapped(clean, width, num_lines)
    assert 1 <= len(lines) <= num_lines
    assert all(width_of(line) <= width for line in lines)
    if not lines[-1].endswith("…"):
        assert "".join("".join(lines).split()) == "".join(clean.split())
