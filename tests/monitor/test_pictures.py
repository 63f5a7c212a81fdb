"""The screens as pictures. After a wanted change: pytest tests/monitor/test_pictures.py --snapshot-update."""

from collections.abc import Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from ftwiz.tui.monitor.app import Monitor
from ftwiz.tui.monitor.view import Frame

SIZES = [(60, 16), (80, 24), (120, 40)]


def showing(frame: Frame, *keys: str) -> Callable[[Pilot[int]], Any]:
    async def show(pilot: Pilot[int]) -> None:
        app = pilot.app
        assert isinstance(app, Monitor)
        app.show(frame)
        await pilot.press(*keys)
        for _ in range(5):  # the panels' sizes settle in two rounds of layout
            await pilot.pause(0.02)

    return show


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("name", ["running", "gpus", "nan", "demo"])
def test_overview(
    snap_compare: Callable[..., bool], frame_of: Callable[[str], Frame], name: str, size: tuple[int, int]
) -> None:
    assert snap_compare(Monitor(), terminal_size=size, run_before=showing(frame_of(name)))


@pytest.mark.parametrize(
    ("name", "keys"), [("failed", "0"), ("running", "4"), ("running", "s"), ("running", "?"), ("gpus", "2")]
)
def test_other_screens(
    snap_compare: Callable[..., bool], frame_of: Callable[[str], Frame], name: str, keys: str
) -> None:
    app = Monitor(stop=lambda _now: None)
    assert snap_compare(app, terminal_size=(80, 24), run_before=showing(frame_of(name), *keys))


def test_without_colour(
    snap_compare: Callable[..., bool], frame_of: Callable[[str], Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert snap_compare(Monitor(), terminal_size=(80, 24), run_before=showing(frame_of("nan")))
