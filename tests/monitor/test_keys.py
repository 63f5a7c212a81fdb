"""The keys of the monitor, pressed on the real app."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from textual.pilot import Pilot

from ftwiz.engine.errors import BadInput, Refused
from ftwiz.engine.rundir import RunFolder
from ftwiz.engine.specs.run import RunRecord
from ftwiz.tui.monitor.app import Monitor
from ftwiz.tui.monitor.dialogs import Help, StopDialog
from ftwiz.tui.monitor.reader import Reader
from ftwiz.tui.monitor.view import Compared, Frame
from ftwiz.tui.monitor.viewer import Others
from ftwiz.tui.widgets.theme import THEMES

FrameOf = Callable[[str], Frame]


def screen_text(app: Monitor) -> str:
    strips = app.screen._compositor.render_strips()  # noqa: SLF001 - there is no other way to the cells
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


async def opened(app: Monitor, pilot: Pilot[int], frame: Frame) -> None:
    app.show(frame)
    await pilot.pause()


@pytest.mark.parametrize("key", ["q", "ctrl+c", "ctrl+q"])
async def test_leaving_is_one_key_and_no_failure(frame_of: FrameOf, key: str) -> None:
    app = Monitor()
    async with app.run_test() as pilot:
        await opened(app, pilot, frame_of("running"))
        await pilot.press(key)
    assert app.return_code == 0


@pytest.mark.parametrize(
    ("keys", "asked"), [("ss", [False]), ("sn", [True]), ("sc", []), (["s", "escape"], [])]
)
async def test_stopping_asks_how(frame_of: FrameOf, keys: str | list[str], asked: list[bool]) -> None:
    stops: list[bool] = []
    app = Monitor(stop=stops.append)
    async with app.run_test() as pilot:
        await opened(app, pilot, frame_of("running"))
        await pilot.press("s")
        assert isinstance(app.screen, StopDialog)
        assert "steps after step 80 are lost" in screen_text(app)
        await pilot.press(*keys[1:])
        await pilot.pause()
        assert stops == asked
        assert not isinstance(app.screen, StopDialog)
        assert app.is_running


async def test_a_stop_that_is_refused_says_why_and_the_screen_stays(frame_of: FrameOf) -> None:
    def refuse(_now: bool) -> None:
        raise Refused("the run is [/] not alive\x1b[2J")

    app = Monitor(stop=refuse)
    async with app.run_test(notifications=True) as pilot:
        await opened(app, pilot, frame_of("running"))
        await pilot.press("s", "s")
        await pilot.pause()
        assert "the run is [/] not alive" in screen_text(app)
        assert "\x1b" not in screen_text(app)


@pytest.mark.parametrize(("name", "may_stop"), [("resumed", True), ("running", False)])
async def test_nothing_is_stopped_that_is_over_or_only_watched(
    frame_of: FrameOf, name: str, *, may_stop: bool
) -> None:
    stops: list[bool] = []
    app = Monitor(stop=stops.append if may_stop else None)
    async with app.run_test() as pilot:
        await opened(app, pilot, frame_of(name))
        await pilot.press("s", "s")
        assert not isinstance(app.screen, StopDialog)
    assert stops == []


async def test_a_paused_view_stands_still_and_says_so(frame_of: FrameOf) -> None:
    app = Monitor()
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(app, pilot, frame_of("running"))
        await pilot.press("p")
        app.post_message(Monitor.Fresh(frame_of("nan")))
        await pilot.pause()
        assert "view paused" in screen_text(app)
        assert "113/160" in screen_text(app)
        await pilot.press("p")
        app.post_message(Monitor.Fresh(frame_of("nan")))
        await pilot.pause()
        assert "61/160" in screen_text(app)


async def test_the_loss_axis_can_be_logarithmic(frame_of: FrameOf) -> None:
    app = Monitor()
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(app, pilot, frame_of("running"))
        await pilot.press("l")
        assert "log scale" in screen_text(app).splitlines()[2]
        await pilot.press("l")
        assert "log scale" not in screen_text(app).splitlines()[2]


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (60, 16)])
async def test_every_panel_can_have_the_whole_screen(frame_of: FrameOf, size: tuple[int, int]) -> None:
    titles = ["loss", "tokens/s", "devices", "samples", "events", "health", "ranks", "checkpoints", "memory"]
    app = Monitor()
    async with app.run_test(size=size) as pilot:
        await opened(app, pilot, frame_of("gpus"))
        overview = screen_text(app)
        for number, title in enumerate(titles, start=1):
            await pilot.press("tab")
            await pilot.pause()
            shown = screen_text(app)
            assert shown.splitlines()[2].strip().startswith(title), shown
            others = [other for other in titles if other != title]
            assert not any(
                line.strip().startswith(f"{other}  ") for other in others for line in shown.splitlines()
            )
            await pilot.press("escape", str(number))
            await pilot.pause()
            assert screen_text(app) == shown
        await pilot.press("tab")
        await pilot.pause()
        assert screen_text(app) == overview


async def test_help_lists_the_keys_and_closes(frame_of: FrameOf) -> None:
    app = Monitor()
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot, frame_of("running"))
        await pilot.press("question_mark")
        assert isinstance(app.screen, Help)
        assert "logarithmic loss axis" in screen_text(app)
        await pilot.press("q")
        await pilot.pause()
        assert not isinstance(app.screen, Help)
        assert app.is_running


@pytest.mark.parametrize("size", [(20, 5), (40, 10), (60, 16), (80, 24), (200, 60)])
@pytest.mark.parametrize("name", ["running", "gpus", "nan", "failed", "demo"])
async def test_the_state_is_seen_at_every_size(frame_of: FrameOf, name: str, size: tuple[int, int]) -> None:
    frame = frame_of(name)
    app = Monitor()
    async with app.run_test(size=size) as pilot:
        await opened(app, pilot, frame)
        assert frame.record.state.value.upper() in screen_text(app)


async def test_a_paused_view_follows_the_size_of_the_terminal(frame_of: FrameOf) -> None:
    app = Monitor()
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(app, pilot, frame_of("gpus"))
        await pilot.press("p")
        await pilot.resize_terminal(80, 24)
        await pilot.pause(0.3)
        small = screen_text(app)
    other = Monitor()
    async with other.run_test(size=(80, 24)) as pilot:
        await opened(other, pilot, frame_of("gpus"))
        await pilot.press("p")
        await pilot.pause(0.3)
        assert screen_text(other) == small


async def test_a_run_that_grows_is_followed(recorded: Callable[[str], RunFolder]) -> None:
    run = recorded("running")
    app = Monitor(Reader(run, status=RunFolder.read_record))
    async with app.run_test(size=(80, 24)) as pilot:
        for _ in range(40):
            await pilot.pause(0.05)
            if "113/160" in screen_text(app):
                break
        assert "113/160" in screen_text(app)
        with run.events_file.open("ab") as file:
            file.write(b'{"kind":"step","t":1750000041.0,"step":114,"max_steps":160,"loss":0.25}\n')
        for _ in range(60):
            await pilot.pause(0.05)
            if "114/160" in screen_text(app):
                break
        assert "114/160" in screen_text(app)


async def test_a_folder_that_cannot_be_read_any_more_ends_the_screen_with_a_failure(
    recorded: Callable[[str], RunFolder],
) -> None:
    def gone(run: RunFolder) -> RunRecord:
        raise BadInput(f"{run.path}: not a run folder (no run.json)")

    app = Monitor(Reader(recorded("running"), status=gone))
    async with app.run_test() as pilot:
        for _ in range(40):
            await pilot.pause(0.05)
            if app.return_code is not None:
                break
    assert app.return_code == 1
    assert isinstance(app.failure, BadInput)


async def test_until_done_leaves_when_the_run_is_over(frame_of: FrameOf) -> None:
    app = Monitor(until_done=True)
    async with app.run_test() as pilot:
        app.post_message(Monitor.Fresh(frame_of("running")))
        await pilot.pause()
        assert app.return_code is None
        app.post_message(Monitor.Fresh(frame_of("resumed")))
        await pilot.pause()
    assert app.return_code == 0


async def test_the_chart_is_zoomed_moved_and_brought_back(frame_of: FrameOf) -> None:
    app = Monitor()
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(app, pilot, frame_of("running"))
        whole = screen_text(app)
        await pilot.press("plus", "plus")
        assert "zoomed" in screen_text(app).splitlines()[2]
        assert "frozen" not in screen_text(app).splitlines()[2]
        await pilot.press("left", "left")
        assert "zoomed, frozen" in screen_text(app).splitlines()[2]
        await pilot.press("end", "minus", "minus", "minus")
        assert screen_text(app) == whole


async def test_smoothing_changes_the_line_and_not_the_band(frame_of: FrameOf) -> None:
    app = Monitor()
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(app, pilot, frame_of("running"))
        whole = screen_text(app)
        for words in ("smoothing x5", "smoothing x25", "not smoothed"):
            await pilot.press("e")
            assert words in screen_text(app)
        await pilot.press("e")
        assert screen_text(app) == whole


async def test_the_log_shows_only_what_is_asked_for(frame_of: FrameOf) -> None:
    frame = replace(frame_of("running"), log=("loading shard 1", "WARNING: [/] slow disk", "loading shard 2"))
    app = Monitor()
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(app, pilot, frame)
        await pilot.press("slash", *"warn", "enter")
        await pilot.pause()
        assert "WARNING: [/] slow disk" in screen_text(app)
        assert "loading shard" not in screen_text(app)
        await pilot.press("slash", "ctrl+u", "enter")
        await pilot.pause()
        assert "loading shard 2" in screen_text(app)


async def _exported(frame: Frame, folder: Path) -> None:
    app = Monitor(exports=folder)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot, frame)
        await pilot.press("x", "y")
        await pilot.pause()


def test_what_is_on_the_screen_is_exported(frame_of: FrameOf, tmp_path: Path) -> None:
    asyncio.run(_exported(frame_of("gpus"), tmp_path))
    kinds = {path.suffix: path for path in tmp_path.iterdir()}
    assert f'width="{80 * 9}" height="{24 * 18}"' in kinds[".svg"].read_text()
    assert kinds[".png"].read_bytes().startswith(b"\x89PNG")
    rows = kinds[".csv"].read_text().splitlines()
    assert rows[0] == "metric,step,low,high,mean,smooth"
    assert any(row.startswith("loss,90,") for row in rows)
    assert "step 90/160" in kinds[".txt"].read_text()


async def test_another_run_is_drawn_beside_this_one(frame_of: FrameOf) -> None:
    others = Others(
        listed=lambda: [("demo", "finished"), ("nan", "failed")],
        load=lambda name: Compared(id=name, loss=frame_of(name).view.loss),
    )
    app = Monitor(others=others)
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(app, pilot, frame_of("running"))
        await pilot.press("c", *"fail", "enter")
        await pilot.pause()
        assert screen_text(app).splitlines()[2].partition("eval")[2].count(" nan ") == 1
        await pilot.press("c")
        await pilot.pause()
        assert " nan " not in screen_text(app).splitlines()[2]


async def test_a_checkpoint_is_asked_for_and_a_refusal_is_said(frame_of: FrameOf) -> None:
    asked: list[str] = []
    app = Monitor(save=lambda: asked.append("save"))
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(app, pilot, frame_of("running"))
        await pilot.press("w")
        await pilot.pause(0.3)
        assert asked == ["save"]
        assert "a checkpoint is saved" in screen_text(app)
        await opened(app, pilot, replace(frame_of("running"), is_own=False))
        await pilot.press("w", "s")
        assert asked == ["save"]


async def test_every_command_is_found_by_its_name(frame_of: FrameOf) -> None:
    app = Monitor()
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot, frame_of("running"))
        await pilot.press("ctrl+p", *"logarithmic")
        assert "logarithmic loss axis" in screen_text(app)
        await pilot.press("enter")
        await pilot.pause()
        assert "log scale" in screen_text(app).splitlines()[2]
        await pilot.press("dollar_sign")
        await pilot.pause()
        assert "ftwiz watch running" in screen_text(app)


async def test_ascii_alone_draws_everything(frame_of: FrameOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTWIZ_ASCII", "1")
    app = Monitor()
    async with app.run_test(size=(120, 40)) as pilot:
        for name in ("running", "gpus", "demo"):
            await opened(app, pilot, frame_of(name))
            assert not [one for one in screen_text(app) if not one.isascii()]
        await pilot.press("question_mark")
        assert not {one for one in screen_text(app) if not one.isascii()}


@pytest.mark.parametrize("theme", ["dark", "light", "contrast"])
async def test_the_palette_is_chosen_by_the_environment_and_a_key(
    frame_of: FrameOf, monkeypatch: pytest.MonkeyPatch, theme: str
) -> None:
    monkeypatch.setenv("FTWIZ_THEME", theme)
    app = Monitor()
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot, frame_of("running"))
        first = app.theme
        assert first == THEMES[theme].name
        await pilot.press("t", "t", "t")
        assert app.theme == first
