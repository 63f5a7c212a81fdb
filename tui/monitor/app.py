"""The monitor's screen: it draws frames, and all it can do to a run is to ask for its end."""

import os
import sys
import termios
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.screen import Screen

from ...engine.errors import FtwizError
from ..lean import LeanApp
from ..text import safe
from ..widgets.lines import Panel
from ..widgets.theme import THEME
from . import panels
from .dialogs import Choice, Dialog, Help, StopDialog
from .reader import Reader, ReaderThread
from .result import num_result_rows, result
from .samples import samples
from .view import Frame

NUM_PANELS = 5
WIDE = 100
MEDIUM, TALL = 20, 32
_TERMINAL_CHECK_SECONDS = 2.0


class Monitor(LeanApp[int]):
    """Shows one run.

    Args:
        reader: Where frames come from; a test without one calls ``show``.
        stop: Asks the run to stop; ``True`` for at once. ``None`` for a viewer that may not.
        until_done: Leave when the run is over.
    """

    CSS_PATH = [  # noqa: RUF012 - textual declares it as an instance variable
        "../widgets/lines.tcss",
        "monitor.tcss",
    ]
    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-low"), (MEDIUM, "-medium"), (TALL, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,ctrl+c,ctrl+q", "detach", priority=False),
        Binding("s", "stop"),
        Binding("p", "pause"),
        Binding("l", "logarithmic"),
        *(Binding(str(number), f"zoom({number})") for number in range(1, NUM_PANELS + 1)),
        Binding("tab", "zoom_next", priority=True),
        Binding("ctrl+l", "redraw"),
        Binding("escape,0", "zoom(0)"),
        Binding("question_mark,h,f1", "help"),
    ]

    class Fresh(Message):
        """The reader has a new frame, or could not read on."""

        def __init__(self, news: Frame | Exception) -> None:
            super().__init__()
            self.news = news

    def __init__(
        self,
        reader: Reader | None = None,
        *,
        stop: Callable[[bool], None] | None = None,
        until_done: bool = False,
    ) -> None:
        super().__init__()
        self.register_theme(THEME)
        self.theme = THEME.name
        self._stop = stop
        self._until_done = until_done
        self._frame: Frame | None = None
        self._paused = False
        self._logarithmic = False
        self._zoom = 0
        self._drawn = True
        self._thread: ReaderThread | None = None
        if reader is not None:
            self._thread = ReaderThread(reader, ready=lambda: self._drawn, deliver=self._deliver)
        self.failure: Exception | None = None

    def compose(self) -> ComposeResult:
        """Lay the panels out; the style sheet decides where they stand."""
        yield Panel(panels.header, id="header")
        with Vertical(id="body"):
            with Horizontal(id="top"):
                yield Panel(panels.loss, id="loss")
                with Vertical(id="side"):
                    yield Panel(panels.speed, id="speed")
                    yield Panel(panels.devices, id="devices")
                    yield Panel(result, id="result")
            yield Panel(samples, id="samples")
            with Horizontal(id="bottom"):
                yield Panel(panels.events, id="events")
                yield Panel(panels.log, id="log")
        yield Panel(panels.keys, id="keys")

    def on_mount(self) -> None:
        """Start reading."""
        if self._thread is not None:
            self._thread.start()
            self.set_interval(_TERMINAL_CHECK_SECONDS, self._leave_a_dead_terminal)

    def on_unmount(self) -> None:
        """Stop reading."""
        if self._thread is not None:
            self._thread.stop()

    def show(self, frame: Frame) -> None:
        """Draw a frame."""
        self._frame = frame
        self._redraw()

    def on_resize(self) -> None:
        """Lay out anew at once, also while the view is paused."""
        self.call_after_refresh(self._redraw)

    def on_monitor_fresh(self, message: Fresh) -> None:
        """Draw what the reader found."""
        self._drawn = True
        if isinstance(message.news, Exception):
            self.failure = message.news
            self.exit(return_code=1)
            return
        if not self._paused:
            self.show(message.news)
        if self._until_done and message.news.record.state.is_over:
            self.exit(0)

    def action_detach(self) -> None:
        """Leave; the run does not notice."""
        self.exit(0)

    def action_stop(self) -> None:
        """Ask how to stop, then ask the run to."""
        frame = self._frame
        if frame is None or frame.readonly or frame.record.state.is_over or self._stop is None:
            return
        saved = frame.view.checkpoints
        self.push_screen(StopDialog(f"step {saved[-1].step:,}" if saved else None), self._stop_as_chosen)

    def action_pause(self) -> None:
        """Hold the picture, or follow again."""
        self._paused = not self._paused
        self._redraw()

    def action_logarithmic(self) -> None:
        """Change the loss axis."""
        self._logarithmic = not self._logarithmic
        self._redraw()

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(Help())

    def action_zoom(self, panel: int) -> None:
        """Show one panel on the whole screen; the same key again, or 0, shows all."""
        self._zoom = 0 if panel == self._zoom else panel
        screen = self._base_screen()
        screen.set_class(self._zoom > 0, "-zoomed")
        for number in range(1, NUM_PANELS + 1):
            screen.set_class(number == self._zoom, f"-zoom-{number}")
        self._redraw()

    def action_zoom_next(self) -> None:
        """Show the next panel on the whole screen; after the last one all."""
        if not isinstance(self.screen, Dialog):
            self.action_zoom((self._zoom + 1) % (NUM_PANELS + 1))

    def _stop_as_chosen(self, choice: Choice | None) -> None:
        if choice is None or self._stop is None:
            return
        try:
            self._stop(choice == "now")
        except FtwizError as error:
            self.notify(safe(error.message), severity="error", markup=False)

    def _redraw(self) -> None:
        if self._frame is None:
            return
        frame = replace(
            self._frame, paused=self._paused, logarithmic=self._logarithmic, zoomed=self._zoom > 0
        )
        screen = self._base_screen()
        screen.set_class(frame.record.state.is_over, "-over")
        self._fit_heights(screen, frame)
        for panel in self._panels(screen):
            panel.update(frame)

    def _fit_heights(self, screen: Screen[object], frame: Frame) -> None:
        """Give panels the rows that they fill; the style sheet bounds them, and sets them when zoomed."""
        narrow = self.size.width < WIDE or self.size.height < MEDIUM
        sample = frame.view.devices
        each = len(sample.devices) if sample else 0
        wanted: dict[str, int | str] = {
            "#samples": 2 + max(1, len(frame.view.pairs)),
            "#devices": max(1, each) if narrow else 4 + 2 * each,
            "#result": num_result_rows(frame, self.size.width - 2) if narrow else "1fr",
        }
        for panel, height in wanted.items():
            screen.query_one(panel).styles.height = None if self._zoom else height

    def _panels(self, screen: Screen[object]) -> Iterable[Panel[Frame]]:
        return screen.query(Panel)

    def _base_screen(self) -> Screen[object]:
        return self.screen_stack[0]

    def _deliver(self, news: Frame | Exception) -> None:
        self._drawn = False
        self.post_message(self.Fresh(news))

    def _leave_a_dead_terminal(self) -> None:
        """End when the terminal is gone and no hang-up told so (its signal ignored, as under nohup)."""
        if not self.is_headless and _terminal_is_gone():
            os._exit(1)  # nobody is there to restore a screen for, and writing to it would block


def _terminal_is_gone() -> bool:
    try:
        termios.tcgetattr(sys.__stdin__.fileno())  # type: ignore[union-attr]
    except (termios.error, OSError, ValueError):
        return True
    return False
