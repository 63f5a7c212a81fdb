"""What a viewer may do with the picture alone: zoom, smooth, compare, filter, copy, export.

Nothing of this reaches the run.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.screen import Screen

from ...engine.errors import FtwizError
from ..lean import LeanApp
from ..text import safe
from ..widgets.lines import Row
from ..widgets.theme import THEMES, theme_for
from . import export
from .dialogs import KEYS, Answer, Ask, Choose, Dialog, Help, Told
from .panels import window_of
from .samples import paragraph
from .view import Compared, Frame, Show

NUM_PANELS = 9
_SMOOTHINGS: tuple[float | None, ...] = (None, 5.0, 25.0, 0.0)
_FEWEST_STEPS = 16
_PANELS = ("loss", "metrics", "devices", "samples", "events", "health", "ranks", "checkpoints", "memory")


@dataclass(frozen=True, slots=True)
class Others:
    """Runs that can be drawn beside this one."""

    listed: Callable[[], Sequence[tuple[str, str]]]
    """Id and a word on each."""
    load: Callable[[str], Compared]


class Viewer(LeanApp[int]):
    """Keeps how the user wants to see a frame.

    Args:
        others: Runs to compare with; ``None`` where there are none.
        exports: Folder that exports are written to; the one that the program was started in when absent.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p,space", "pause"),
        Binding("l", "logarithmic"),
        Binding("e", "smooth"),
        Binding("plus,equals_sign", "zoom_chart(0.5)"),
        Binding("minus", "zoom_chart(2)"),
        Binding("left", "pan(-1)"),
        Binding("right", "pan(1)"),
        Binding("end,f", "live"),
        Binding("up,pageup", "scroll_log(5)"),
        Binding("down,pagedown", "scroll_log(-5)"),
        Binding("slash", "filter"),
        Binding("c", "compare"),
        Binding("x", "export"),
        Binding("y", "copy"),
        Binding("dollar_sign", "command"),
        Binding("t", "next_theme"),
        Binding("ctrl+p,colon", "palette", priority=True),
        Binding("ctrl+l", "redraw"),
        Binding("question_mark,h,f1", "help"),
        *(Binding(str(number), f"zoom({number})") for number in range(1, NUM_PANELS + 1)),
        Binding("tab", "zoom_next(1)", priority=True),
        Binding("shift+tab", "zoom_next(-1)", priority=True),
        Binding("escape,0", "zoom(0)"),
    ]

    def __init__(self, *, others: Others | None = None, exports: Path | None = None) -> None:
        super().__init__()
        for theme in THEMES.values():
            self.register_theme(theme)
        self.theme = theme_for(os.environ).name
        self.is_ascii = bool(os.environ.get("FTWIZ_ASCII"))
        self._others = others
        self._exports = exports
        self._frame: Frame | None = None
        self._shown = Show(has_colours=not (os.environ.get("NO_COLOR") or self.is_ascii))
        self._zoom = 0

    @property
    def frame(self) -> Frame | None:
        """What is to be drawn: the newest frame, shown as the user wants it."""
        if self._frame is None:
            return None
        shown = replace(self._shown, zoomed=self._zoom > 0, readonly=self._frame.show.readonly)
        return replace(self._frame, show=shown)

    def redraw_panels(self) -> None:
        """Draw the frame again; a screen says how."""
        raise NotImplementedError

    def show_as(self, **changes: object) -> None:
        """Show it otherwise from now on."""
        self._shown = replace(self._shown, **changes)  # type: ignore[arg-type]  # the fields of Show
        self.redraw_panels()

    def action_pause(self) -> None:
        """Hold the picture, or follow again."""
        self.show_as(paused=not self._shown.paused)

    def action_logarithmic(self) -> None:
        """Change the loss axis."""
        self.show_as(logarithmic=not self._shown.logarithmic)

    def action_smooth(self) -> None:
        """Smooth the loss more, then not at all, then as usual."""
        at = _SMOOTHINGS.index(self._shown.smoothing)
        self.show_as(smoothing=_SMOOTHINGS[(at + 1) % len(_SMOOTHINGS)])

    def action_zoom_chart(self, factor: float) -> None:
        """Show fewer steps of the loss, or more."""
        frame = self.frame
        if frame is None or frame.view.latest is None:
            return
        start, end = window_of(frame)
        steps = max(_FEWEST_STEPS, round((end - start) * factor))
        if steps >= frame.view.latest.step:
            self.show_as(num_steps=None, last_step=None)
        elif steps != self._shown.num_steps:
            self.show_as(num_steps=steps)

    def action_pan(self, direction: int) -> None:
        """Move along the steps; the newest ones stay in sight once they are reached."""
        frame, steps = self.frame, self._shown.num_steps
        if frame is None or frame.view.latest is None or steps is None:
            return
        newest = frame.view.latest.step
        end = (self._shown.last_step or newest) + direction * max(1, steps // 4)
        self.show_as(last_step=None if end >= newest else max(steps, end))

    def action_live(self) -> None:
        """Follow the newest steps, and the newest lines of the log."""
        self.show_as(last_step=None, scroll=0)

    def action_scroll_log(self, lines: int) -> None:
        """Look further back in the log, or less far."""
        most = len(self._frame.log) if self._frame else 0
        self.show_as(scroll=min(most, max(0, self._shown.scroll + lines)))

    def action_filter(self) -> None:
        """Ask for words that lines of the log must have."""

        def take(words: Answer) -> None:
            if isinstance(words, str):
                self.show_as(filter=words, scroll=0)

        self.push_screen(Ask("only log lines with these words (none: all)", self._shown.filter), take)

    def action_compare(self) -> None:
        """Ask for a run to draw beside this one; the same key again takes it away."""
        if self._shown.compared is not None:
            self.show_as(compared=None)
            return
        own = self._frame.record.id if self._frame else ""
        listed = [one for one in self._others.listed() if one[0] != own] if self._others else []
        if not listed:
            self.tell("there is no other run to compare with")
            return

        def take(number: Answer) -> None:
            if isinstance(number, int):
                self.compare_with(listed[number][0])

        self.push_screen(Choose("compare with", listed), take)

    def compare_with(self, run_id: str) -> None:
        """Draw another run's loss beside this one."""
        if self._others is None:
            return
        try:
            self.show_as(compared=self._others.load(run_id))
        except FtwizError as error:
            self.tell(error.message, is_wrong=True)

    def action_command(self) -> None:
        """Show the commands that started this run and that come back to it."""
        frame = self._frame
        if frame is None:
            return
        rows: list[Row] = [(("commands", "title"),), ()]
        width = min(100, self.size.width - 10)
        for label, command in commands(frame):
            lines = paragraph(safe(command), width - 10, "bright", most=6)
            rows += [((f"{label if not at else '':<10}", "dim"), *line) for at, line in enumerate(lines)]
        self.push_screen(Told(rows))

    def action_copy(self) -> None:
        """Copy the screen's text to the terminal's clipboard, and into a file where that does nothing."""
        text = "\n".join("".join(part.text for part in row).rstrip() for row in self.picture()) + "\n"
        self.copy_to_clipboard(text)
        path = self._write("txt", text)
        self.tell(f"copied; where the terminal allows no copying it is in {path}" if path else "copied")

    def action_export(self) -> None:
        """Write what is on the screen as SVG, CSV and, where Pillow is installed, PNG."""
        frame = self.frame
        if frame is None:
            return
        picture, background = self.picture(), self._background()
        width = self.size.width
        svg = self._write("svg", export.as_svg(picture, width=width, background=background))
        if svg is None:
            return
        written = [svg.name, Path(self._write("csv", export.as_csv(frame)) or svg).name]
        png = svg.with_suffix(".png")
        if export.write_png(picture, png, width=width, background=background):
            written.append(png.name)
        self.tell(f"written to {svg.parent}: {', '.join(written)}")

    def action_next_theme(self) -> None:
        """Dark, light, high contrast."""
        names = [theme.name for theme in THEMES.values()]
        self.theme = names[(names.index(self.theme) + 1) % len(names)] if self.theme in names else names[0]

    def action_palette(self) -> None:
        """All commands, by name."""
        if isinstance(self.screen, Dialog):
            return
        wanted = [(what, key, action) for key, action, what in KEYS if action and action != "palette"]

        async def take(number: Answer) -> None:
            if isinstance(number, int):
                await self.run_action({"overview": "zoom(0)"}.get(wanted[number][2], wanted[number][2]))

        self.push_screen(Choose("commands", [(action, what) for what, _, action in wanted]), take)

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(Help())

    def action_zoom(self, panel: int) -> None:
        """Show one panel on the whole screen; the same key again, or 0, shows all."""
        self._zoom = 0 if panel == self._zoom else panel
        screen = self.base_screen()
        screen.set_class(self._zoom > 0, "-zoomed")
        for number in range(1, NUM_PANELS + 1):
            screen.set_class(number == self._zoom, f"-zoom-{number}")
        self.redraw_panels()

    def action_zoom_next(self, direction: int) -> None:
        """Show the next panel on the whole screen; after the last one all."""
        if not isinstance(self.screen, Dialog):
            self.action_zoom((self._zoom + direction) % (NUM_PANELS + 1))

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Zoom the chart, or look back in the log."""
        self._wheel(event, 1)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Zoom the chart, or come back in the log."""
        self._wheel(event, -1)

    def on_click(self, event: events.Click) -> None:
        """Show the panel under the mouse on the whole screen, or all again."""
        name = event.widget.id if event.widget is not None else None
        name = {"log": "events", "result": "health"}.get(name or "", name)
        if name in _PANELS and not isinstance(self.screen, Dialog):
            self.action_zoom(_PANELS.index(name) + 1)

    def _wheel(self, event: events.MouseEvent, up: int) -> None:
        if isinstance(self.screen, Dialog) or event.widget is None:
            return
        if event.widget.id in {"log", "events"}:
            self.action_scroll_log(3 * up)
        elif event.widget.id == "loss":
            self.action_zoom_chart(0.5 if up > 0 else 2)

    def tell(self, text: str, *, is_wrong: bool = False) -> None:
        """Say something for a moment."""
        self.notify(safe(text), severity="error" if is_wrong else "information", markup=False)

    def base_screen(self) -> Screen[object]:
        """The screen under all dialogs."""
        return self.screen_stack[0]

    def picture(self) -> export.Picture:
        """Return what is on the screen, in parts of one style."""
        strips = self.screen._compositor.render_strips()  # noqa: SLF001 - there is no other way to the cells
        background = self._background()
        rows: list[list[export.Part]] = []
        for strip in strips:
            row: list[export.Part] = []
            column = 0
            for segment in strip:
                ink, paper = _colours(segment.style, background)
                bold = bool(segment.style and segment.style.bold)
                row.append(export.Part(column, segment.text, ink, paper, bold))
                column += segment.cell_length
            rows.append(row)
        return rows

    def _background(self) -> str:
        return self.current_theme.background or "#000000"

    def _write(self, suffix: str, text: str) -> Path | None:
        frame = self._frame
        name = f"{frame.record.id if frame else 'ftwiz'}-{time.strftime('%Y%m%d-%H%M%S')}.{suffix}"
        path = (self._exports or Path.cwd()) / safe(name).replace("/", "_")
        try:
            path.write_text(text, encoding="utf8", errors="replace")
        except OSError as error:
            self.tell(f"{path}: cannot be written: {error.strerror}", is_wrong=True)
            return None
        return path


def commands(frame: Frame) -> list[tuple[str, str]]:
    """Return the commands around a run, each with a word on what it does."""
    record = frame.record
    if not frame.is_own:
        return [("watch", f"ftwiz watch {frame.folder}")]
    known = [
        ("started by", frame.facts.command or f"{frame.folder}/launch.sh"),
        ("watch", f"ftwiz watch {record.id}"),
    ]
    if record.state.is_over:
        return [*known, ("resume", f"ftwiz resume {record.id}")]
    return [*known, ("stop", f"ftwiz stop {record.id}"), ("log", f"ftwiz logs {record.id} -f")]


def _colours(style: Style | None, background: str) -> tuple[str, str]:
    """Return ink and paper of a style."""
    ink, paper = "#d0d0d0", background
    if style is not None and style.color is not None and style.color.triplet is not None:
        ink = style.color.triplet.hex
    if style is not None and style.bgcolor is not None and style.bgcolor.triplet is not None:
        paper = style.bgcolor.triplet.hex
    return (paper, ink) if style is not None and style.reverse else (ink, paper)
