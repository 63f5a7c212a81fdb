"""Writing changed cells only leaves the same screen as writing everything, with far fewer bytes."""

import inspect
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.geometry import Region
from textual.strip import Strip
from textual.widgets import Static

from ftwiz.tui.lean import LeanApp, Shadow
from ftwiz.tui.monitor.app import Monitor
from ftwiz.tui.monitor.view import Frame

WIDTH, HEIGHT = 24, 5
STYLES = (
    None,
    Style(bold=True),
    Style(color="red"),
    Style(bgcolor="blue", italic=True),
    Style(color="#123456"),
)


def console() -> Console:
    return Console(
        width=WIDTH, height=HEIGHT, file=io.StringIO(), color_system="truecolor", force_terminal=True
    )


def shown(screen: pyte.Screen) -> list[list[tuple[Any, ...]]]:
    return [[tuple(screen.buffer[y][x]) for x in range(WIDTH)] for y in range(HEIGHT)]


def write(screen: pyte.Screen, text: str) -> None:
    pyte.Stream(screen).feed(text)


segments = st.lists(
    st.tuples(st.text(st.sampled_from("ab .│█⣿é"), max_size=12), st.sampled_from(STYLES)), max_size=4
)
frames = st.lists(st.tuples(st.integers(0, HEIGHT - 1), st.integers(0, WIDTH - 1), segments), max_size=6)


@settings(max_examples=150, deadline=None)
@given(st.lists(frames, min_size=1, max_size=5))
def test_the_screen_is_the_same_cell_by_cell_whatever_was_written_before(story: list[Any]) -> None:
    whole, lean = pyte.Screen(WIDTH, HEIGHT), pyte.Screen(WIDTH, HEIGHT)
    shadow, out = Shadow(), console()
    for frame in story:
        for y, x, parts in frame:
            strip = Strip([Segment(text, style) for text, style in parts]).crop(0, WIDTH - x)
            update = LayoutUpdate([[strip]], Region(x, y, strip.cell_length, 1))
            write(whole, update.render_segments(out))
            write(lean, shadow.bring(update, out))
    assert shown(lean) == shown(whole)


def send(shadow: Shadow, text: str, style: Style | None = None) -> str:
    strip = Strip([Segment(text, style)])
    update = LayoutUpdate([[strip]], Region(0, 0, strip.cell_length, 1))
    return shadow.bring(update, console())


def test_an_unchanged_screen_costs_nothing_and_a_changed_digit_a_few_bytes() -> None:
    shadow, green = Shadow(), Style(color="green")
    assert "loss 1.234" in send(shadow, "loss 1.234", green)
    assert send(shadow, "loss 1.234", green) == ""
    assert send(shadow, "loss 1.239", green) == "\x1b[1;10H\x1b[32m9\x1b[0m"
    shadow.forget()
    assert "loss 1.239" in send(shadow, "loss 1.239", green)


def test_wide_characters_are_written_whole_and_what_they_covered_again() -> None:
    shadow, screen = Shadow(), pyte.Screen(WIDTH, HEIGHT)
    for text in ("字好abc", "a字bc ", "好好好 ", "abcdefg", "x好y字z"):
        write(screen, send(shadow, text))
        assert screen.display[0].startswith(text)


def test_a_link_stays_a_link() -> None:
    sent = send(Shadow(), "here", Style(link="https://example.org", bold=True))
    assert sent.startswith("\x1b[1;1H\x1b]8;id=")
    assert sent.endswith(";https://example.org\x1b\\\x1b[1mhere\x1b]8;;\x1b\\\x1b[0m")


class Counter(LeanApp[None]):
    """One changing line."""

    BINDINGS = [("ctrl+l", "redraw")]  # noqa: RUF012 - textual declares it so

    def compose(self) -> Any:
        """Show it."""
        yield Static("value 0", id="value")


@pytest.mark.parametrize("off", [False, True])
async def test_an_app_runs_with_it_and_without(monkeypatch: pytest.MonkeyPatch, *, off: bool) -> None:
    monkeypatch.setenv("FTWIZ_NO_CELLDIFF", "1" if off else "")
    app = Counter()
    async with app.run_test(size=(WIDTH, HEIGHT)) as pilot:
        app.query_one("#value", Static).update("value 1")
        await pilot.press("ctrl+l")
        await pilot.resize_terminal(30, 6)
        assert str(app.query_one("#value", Static).render()) == "value 1"


class Both(Monitor):
    """The monitor, on two terminals: one is sent what Textual sends, one only what changed."""

    CSS_PATH = [Path(inspect.getfile(Monitor)).parent / name for name in Monitor.CSS_PATH]  # noqa: RUF012 - textual's

    def __init__(self) -> None:
        super().__init__()
        self.whole, self.lean = pyte.Screen(120, 40), pyte.Screen(120, 40)
        self._second = Shadow()
        self._to = Console(
            width=120,
            height=40,
            file=io.StringIO(),
            color_system="256",
            force_terminal=True,
            legacy_windows=False,
        )

    def _display(self, screen: Any, renderable: Any) -> None:
        if isinstance(renderable, LayoutUpdate | ChopsUpdate):
            write(self.whole, renderable.render_segments(self._to))
            write(self.lean, self._second.bring(renderable, self._to))
        super()._display(screen, renderable)

    def differing(self) -> list[tuple[int, int]]:
        """Cells whose character, colour or attribute is another."""
        return [
            (x, y) for y in range(40) for x in range(120) if self.whole.buffer[y][x] != self.lean.buffer[y][x]
        ]


async def test_no_cell_of_the_monitor_differs_from_stock_rendering(frame_of: Callable[[str], Frame]) -> None:
    app = Both()
    async with app.run_test(size=(120, 40)) as pilot:
        for name in ("gpus", "nan"):
            app.show(frame_of(name))
            await pilot.pause()
            for key in ("l", "plus", "3", "0", "question_mark", "escape", "ctrl+p", "escape", "t"):
                await pilot.press(key)
                await pilot.pause()
                assert app.differing() == []
    assert any("loss" in line for line in app.whole.display)
