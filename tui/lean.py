"""Sends only the cells that have changed: a slow SSH line carries a twentieth of what Textual would send.

Textual writes every changed strip from the left edge of its widget. Here a shadow of the terminal's screen is
kept, and what is already there is not written again. Textual is pinned exactly: ``_display`` and the two
updates are its own. ``FTWIZ_NO_CELLDIFF=1`` turns this off.
"""

import os
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from rich.cells import get_character_cell_size
from rich.color import ColorSystem
from rich.console import Console, RenderableType
from rich.style import Style
from textual import events, on
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.app import App, ReturnType
from textual.screen import Screen
from textual.strip import Strip

OFF = "FTWIZ_NO_CELLDIFF"
SHORT_GAP = 4
"""Cells that are cheaper to write again than to jump over: a jump takes four bytes or more."""


class Cell(NamedTuple):
    """One position of the screen, or two for a wide character: its second half has no character."""

    character: str
    on: str
    """What switches its style on."""
    size: int = 1


class Shadow:
    """What the terminal shows, as far as it is known."""

    def __init__(self) -> None:
        self._rows: dict[int, list[Cell | None]] = {}

    def forget(self) -> None:
        """Know nothing: everything will be written again."""
        self._rows.clear()

    def write(self, runs: Iterator[tuple[int, int, Strip]], console: Console) -> str:
        """Return the bytes that bring strips, each at a row and column, onto the screen."""
        pen = _Pen()
        system = console._color_system or ColorSystem.TRUECOLOR  # noqa: SLF001 - as Strip.render does
        for y, x, strip in runs:
            row = self._rows.setdefault(y, [])
            row.extend([None] * (console.width - len(row)))
            pen.enter(y, row)
            at = x
            for cell in _cells(strip, system):
                if at + cell.size > len(row):
                    break
                if row[at] != cell:
                    _put(row, at, cell)
                    pen.put(at, cell)
                at += cell.size
        return pen.text()


class _Pen:
    """Writes cells one after the other with as few bytes as it can."""

    def __init__(self) -> None:
        self._out: list[str] = []
        self._row: list[Cell | None] = []
        self._y = -1
        self._x: int | None = None
        """Where the cursor is; not known in a new row, and at the right edge, where terminals differ."""
        self._on = ""

    def enter(self, y: int, row: list[Cell | None]) -> None:
        """Go on in a row."""
        if y != self._y:
            self._y, self._row, self._x = y, row, None

    def put(self, x: int, cell: Cell) -> None:
        """Write a cell of the row."""
        if self._x != x:
            self._move(x)
        self._switch(cell.on)
        self._out.append(cell.character)
        after = x + cell.size
        self._x = after if after < len(self._row) else None

    def text(self) -> str:
        """Return what was written, with the style switched off."""
        self._switch("")
        return "".join(self._out)

    def _move(self, x: int) -> None:
        if self._x is None or x < self._x:
            self._out.append(f"\x1b[{self._y + 1};{x + 1}H")
            return
        distance = x - self._x
        between = self._row[self._x : x]
        if distance <= SHORT_GAP and all(cell and cell.character and cell.on == self._on for cell in between):
            self._out.extend(cell.character for cell in between if cell)
        else:
            self._out.append(f"\x1b[{distance if distance > 1 else ''}C")

    def _switch(self, on: str) -> None:
        if on == self._on:
            return
        if self._on.startswith("\x1b]8"):
            self._out.append("\x1b]8;;\x1b\\")
        if self._on:
            self._out.append("\x1b[0m")
        self._out.append(on)
        self._on = on


class CellUpdate(CompositorUpdate):
    """An update of Textual's, written cell by cell."""

    def __init__(self, update: LayoutUpdate | ChopsUpdate, shadow: Shadow) -> None:
        self._update = update
        self._shadow = shadow

    def render_segments(self, console: Console) -> str:
        """Return the bytes for the terminal."""
        return self._shadow.write(_runs(self._update), console)


class LeanApp(App[ReturnType]):
    """An app that sends only the cells that have changed."""

    def __init__(self) -> None:
        super().__init__()
        self._shadow = None if os.environ.get(OFF) else Shadow()

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
            lean = CellUpdate(renderable, self._shadow)
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


def _put(row: list[Cell | None], x: int, cell: Cell) -> None:
    """Note a cell. Half a wide character is no character: the terminal blanks its other half."""
    old, after = row[x], x + cell.size
    if old is not None and not old.character and x > 0:
        row[x - 1] = None
    if after < len(row) and (next_cell := row[after]) is not None and not next_cell.character:
        row[after] = None
    row[x] = cell
    if cell.size > 1:
        row[x + 1] = Cell("", cell.on)


def _cells(strip: Strip, system: ColorSystem) -> Iterator[Cell]:
    """Yield the cells of a strip; what combines stays with the character before it."""
    for segment in strip:
        if segment.control:
            continue
        on = _style_on(segment.style, system) if segment.style else ""
        waiting, size = "", 0
        for character in segment.text:
            own = 1 if " " <= character <= "\u02ff" else get_character_cell_size(character)
            if own == 0 and waiting:
                waiting += character
                continue
            if size:
                yield Cell(waiting, on, size)
            waiting, size = character, own
        if size:
            yield Cell(waiting, on, size)


@lru_cache(maxsize=4096)
def _style_on(style: Style, system: ColorSystem) -> str:
    """Return what switches a style and its link on, as Strip.render_style would."""
    return Strip.render_style(style, "\0", system).partition("\0")[0]
