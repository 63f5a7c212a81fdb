"""The monitor's screen: it draws frames, and all it can do to a run is to ask it to save or to end."""

import os
import sys
import termios
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message

from ...engine.errors import FtwizError
from ..text import safe
from ..widgets.lines import Panel
from . import panels
from .devices import devices
from .dialogs import Answer, StopDialog
from .health import checkpoints, health, memory, ranks
from .layout import MEDIUM, TALL, WIDE, heights
from .metrics import metrics
from .reader import ReaderThread, Source
from .result import result
from .samples import samples
from .view import Frame
from .viewer import Others, Viewer

_TERMINAL_CHECK_SECONDS = 2.0


@runtime_checkable
class Timed(Protocol):
    """A source whose time can run faster or slower."""

    def change_speed(self, factor: float) -> None:
        """Multiply the speed."""


class Monitor(Viewer):
    """Shows one run.

    Args:
        reader: Where frames come from; a test without one calls ``show``.
        stop: Asks the run to stop; ``True`` for at once. ``None`` for a viewer that may not.
        save: Asks the run for a checkpoint. ``None`` for a viewer that may not.
        until_done: Leave when the run is over.
        others: Runs to compare with.
        exports: Folder that exports are written to.
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
        Binding("w", "save_now"),
        Binding("left_square_bracket", "speed(0.5)"),
        Binding("right_square_bracket", "speed(2)"),
    ]

    class Fresh(Message):
        """The reader has a new frame, or could not read on."""

        def __init__(self, news: Frame | Exception) -> None:
            super().__init__()
            self.news = news

    def __init__(
        self,
        reader: Source | None = None,
        *,
        stop: Callable[[bool], None] | None = None,
        save: Callable[[], None] | None = None,
        until_done: bool = False,
        others: Others | None = None,
        exports: Path | None = None,
    ) -> None:
        super().__init__(others=others, exports=exports)
        self._stop = stop
        self._save = save
        self._until_done = until_done
        self._drawn = True
        self._reader = reader
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
                    yield Panel(health, id="health")
                    yield Panel(result, id="result")
            yield Panel(metrics, id="metrics")
            yield Panel(devices, id="devices")
            yield Panel(samples, id="samples")
            with Horizontal(id="bottom"):
                yield Panel(panels.events, id="events")
                yield Panel(panels.log, id="log")
            yield Panel(ranks, id="ranks")
            yield Panel(checkpoints, id="checkpoints")
            yield Panel(memory, id="memory")
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
        self.redraw_panels()

    def on_resize(self) -> None:
        """Lay out anew at once, also while the view is paused."""
        self.call_after_refresh(self.redraw_panels)

    def on_monitor_fresh(self, message: Fresh) -> None:
        """Draw what the reader found."""
        self._drawn = True
        if isinstance(message.news, Exception):
            self.failure = message.news
            self.exit(return_code=1)
            return
        if not self._shown.paused:
            self.show(message.news)
        if self._until_done and message.news.record.state.is_over:
            self.exit(0)

    def action_detach(self) -> None:
        """Leave; the run does not notice."""
        self.exit(0)

    def action_stop(self) -> None:
        """Ask how to stop, then ask the run to."""
        frame = self._frame
        if frame is None or not self._may_change(frame) or self._stop is None:
            return
        saved = frame.view.checkpoints
        self.push_screen(StopDialog(f"step {saved[-1].step:,}" if saved else None), self._stop_as_chosen)

    def action_save_now(self) -> None:
        """Ask the run for a checkpoint after its next step."""
        frame = self._frame
        if frame is None or not self._may_change(frame) or self._save is None:
            return
        try:
            self._save()
        except FtwizError as error:
            self.tell(error.message, is_wrong=True)
            return
        self.tell("a checkpoint is saved after the next step")

    def action_speed(self, factor: float) -> None:
        """Replay faster or slower."""
        if isinstance(self._reader, Timed):
            self._reader.change_speed(factor)

    def redraw_panels(self) -> None:
        """Draw every panel that is in sight."""
        frame = self.frame
        if frame is None:
            return
        screen = self.base_screen()
        screen.set_class(frame.record.state.is_over, "-over")
        screen.set_class(self.is_ascii, "-ascii")
        self._fit_heights(frame)
        for panel in self._panels():
            panel.update(frame)

    def _fit_heights(self, frame: Frame) -> None:
        """Give panels the rows that they fill; the style sheet sets them when one is zoomed."""
        screen = self.base_screen()
        wanted = heights(frame, self.size.width, self.size.height)
        rows = {"metrics": wanted.metrics, "devices": wanted.devices, "samples": wanted.samples}
        rows["bottom"] = wanted.bottom
        for name, height in rows.items():
            styles = screen.query_one(f"#{name}").styles
            styles.height = None if self._zoom else height
            styles.display = None if self._zoom or height else "none"
        beside = self._zoom or wanted.result is None
        screen.query_one("#result").styles.height = None if self._zoom else "1fr" if beside else wanted.result

    def _panels(self) -> Iterable[Panel[Frame]]:
        return self.base_screen().query(Panel)

    def _may_change(self, frame: Frame) -> bool:
        return frame.is_own and not frame.show.readonly and not frame.record.state.is_over

    def _stop_as_chosen(self, choice: Answer) -> None:
        if choice not in {"save", "now"} or self._stop is None:
            return
        try:
            self._stop(choice == "now")
        except FtwizError as error:
            self.notify(safe(error.message), severity="error", markup=False)

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
