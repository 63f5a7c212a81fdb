"""Sends only the cells that have changed: a slow SSH line carries a twentieth of what Textual would send.

Textual writes every changed strip from the left edge of its widget. Here a shadow of the terminal's screen is
kept, and what is already there is not written again. Textual is pinned exactly: ``_display`` and the two
updates are its own. ``FTWIZ_NO_CELLDIFF=1`` turns this off, and so does another version of Textual.
"""

import os
from collections.abc import Iterator
from functools import lru_cache

import textual
from rich.cells import get_character_cell_size
from rich.color import ColorSystem
from rich.console import Console, RenderableType
from rich.style import Style
from textual import events, on
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.app import App, ReturnType
from textual.screen import Screen
from textual.strip import Strip

from .pen import Cell, Look, Row, Spot, look_of, written

OFF = "FTWIZ_NO_CELLDIFF"
KNOWN_TEXTUAL = "8.2.8"
"""The version whose updates are read here; any other draws in its own way, whole."""


class Shadow:
    """What the terminal shows, as far as it is known."""

    def __init__(self) -> None:
        self._rows: dict[int, Row] = {}

    def forget(self) -> None:
        """Know nothing: everything will be written again."""
        self._rows.clear()

    def bring(self, update: LayoutUpdate | ChopsUpdate, console: Console) -> str:
        """Return the bytes that bring an update of Textual's onto the screen."""
        system = console._color_system or ColorSystem.TRUECOLOR  # noqa: SLF001 - as Strip.render does
        spots: list[Spot] = []
        is_simple = True
        for y, x, strip in _runs(update):
            row = self._rows.setdefault(y, [])
            row.extend([None] * (console.width - len(row)))
            at = x
            for cell in _cells(strip, system):
                if at + cell.size > len(row):
                    break
                if row[at] != cell:
                    old = row[at]
                    # Who writes over half of a wide character blanks the other half: order matters.
                    is_simple = is_simple and cell.size == 1 and (old is None or old.size == 1)
                    _put(row, at, cell)
                    spots.append(Spot(y, at, cell))
                at += cell.size
        return written(spots, self._rows, in_order=not is_simple)


class _Written(CompositorUpdate):
    """An update that was turned into bytes already."""

    def __init__(self, text: str) -> None:
        self._text = text

    def render_segments(self, console: Console) -> str:  # noqa: ARG002 - textual's signature
        """Return the bytes for the terminal."""
        return self._text


class LeanApp(App[ReturnType]):
    """An app that sends only the cells that have changed."""

    def __init__(self) -> None:
        super().__init__()
        is_known = textual.__version__ == KNOWN_TEXTUAL
        self._shadow = Shadow() if is_known and not os.environ.get(OFF) else None
        self._cursor_shown: object = None

    @on(events.Mount)
    def _forget_when_resumed(self) -> None:
        # Another program may have written on the screen meanwhile.
        self.app_resume_signal.subscribe(self, lambda _: self.forget_screen())

    @on(events.Resize)
    def _forget_when_resized(self) -> None:
        # A terminal that is resized moves its lines as it likes.
        self.forget_screen()

    def action_redraw(self) -> None:
        """Write the whole screen again."""
        self.forget_screen()
        self.refresh(layout=True)

    def forget_screen(self) -> None:
        """Take nothing of what was written for granted."""
        if self._shadow is not None:
            self._shadow.forget()

    def _display(self, screen: Screen[object], renderable: RenderableType | None) -> None:
        lean: RenderableType | CompositorUpdate | None = renderable
        if self._shadow is not None and isinstance(renderable, LayoutUpdate | ChopsUpdate):
            text = self._shadow.bring(renderable, self.console)
            if not text and self.cursor_position == self._cursor_shown and not self.is_headless:
                return  # no synchronized update around nothing
            self._cursor_shown = self.cursor_position
            lean = _Written(text)
        super()._display(screen, lean)  # type: ignore[arg-type]


def _runs(update: LayoutUpdate | ChopsUpdate) -> Iterator[tuple[int, int, Strip]]:
    """Yield what an update writes, as its own ``render_segments`` does."""
    if isinstance(update, LayoutUpdate):
        for y, line in enumerate(update.strips, update.region.y):
            x = update.region.x
            for part in line:
                yield y, x, part
                x += part.cell_length
        return
    for y, left, right in update.spans:
        for end, (x, strip) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
            if strip is None or x > right or end <= left:
                continue
            is_inside = left <= x < right and end <= right
            yield y, x, strip if is_inside else strip.crop(0, min(end, right) - x)


def _put(row: Row, x: int, cell: Cell) -> None:
    """Note a cell. Half a wide character is no character: the terminal blanks its other half."""
    old, after = row[x], x + cell.size
    if old is not None and not old.character and x > 0:
        row[x - 1] = None
    if after < len(row) and (next_cell := row[after]) is not None and not next_cell.character:
        row[after] = None
    row[x] = cell
    if cell.size > 1:
        row[x + 1] = Cell("", cell.look, 2)


def _cells(strip: Strip, system: ColorSystem) -> Iterator[Cell]:
    """Yield the cells of a strip; what combines stays with the character before it."""
    for segment in strip:
        if segment.control:
            continue
        look = _look(segment.style, system) if segment.style else Look()
        waiting, size = "", 0
        for character in segment.text:
            own = 1 if " " <= character <= "\u02ff" else get_character_cell_size(character)
            if own == 0 and waiting:
                waiting += character
                continue
            if size:
                yield Cell(waiting, look, size)
            waiting, size = character, own
        if size:
            yield Cell(waiting, look, size)


@lru_cache(maxsize=4096)
def _look(style: Style, system: ColorSystem) -> Look:
    """Return what Strip.render_style would switch on for a style and its link."""
    return look_of(Strip.render_style(style, "\0", system).partition("\0")[0])
