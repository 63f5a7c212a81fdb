"""A widget that shows rows of styled text and sends only the rows that changed.

A row is a tuple of spans, a span is a text and the name of a style. Nothing is parsed: no markup, no
escape sequence. Whatever the text is and wherever it comes from, controls are taken out here.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, Generic, TypeVar

from rich.segment import Segment
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widget import Widget

from ..text import safe, shorten, width_of
from .plain_glyphs import as_ascii

Noun = TypeVar("Noun")
Span = tuple[str, str]
Row = tuple[Span, ...]
STYLES = (
    "text",
    "bright",
    "dim",
    "faint",
    "title",
    "accent",
    "good",
    "warning",
    "error",
    "curve",
    "envelope",
    "other",
    "mark",
    "weights",
    "gradients",
    "optimizer",
    "activations",
    "overhead",
    "key",
    "badge-accent",
    "badge-good",
    "badge-warning",
    "badge-error",
)


def row_width(row: Iterable[Span]) -> int:
    """Return the cells that the spans take together."""
    return sum(width_of(text) for text, _ in row)


def cut(row: Iterable[Span], width: int) -> Row:
    """Return the row in at most ``width`` cells, cut with an ellipsis."""
    kept: list[Span] = []
    left = width
    for text, style in row:
        if left <= 0:
            break
        short = shorten(text, left)
        kept.append((short, style))
        left -= width_of(short)
    return tuple(kept)


def heading(spans: Iterable[Span], width: int) -> Row:
    """Return a title row: the spans, then a rule to the right edge."""
    title = cut(spans, width)
    rest = width - row_width(title) - 1
    return (*title, (" " + "─" * rest, "faint")) if rest > 0 else title


def beside(left: Sequence[Row], right: Sequence[Row], *, width: int) -> list[Row]:
    """Return two blocks side by side; the left one is ``width`` cells wide."""
    rows: list[Row] = []
    for number in range(max(len(left), len(right))):
        first = cut(left[number], width) if number < len(left) else ()
        second = right[number] if number < len(right) else ()
        rows.append((*first, (" " * (width - row_width(first)), "text"), *second))
    return rows


class Lines(Widget):
    """Shows rows; the last shown rows stay until the next ``show``."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"lines--{style}" for style in STYLES}

    def __init__(self, rows: Sequence[Row] = (), *, id: str | None = None) -> None:  # noqa: A002 - textual's name
        super().__init__(id=id)
        self._rows: list[Row] = list(rows)

    def show(self, rows: Sequence[Row]) -> None:
        """Show these rows instead; only rows that differ are drawn again."""
        old, self._rows = self._rows, list(rows)
        if len(old) != len(self._rows) and self.styles.is_auto_height:
            self.refresh(layout=True)
            return
        changed = [
            Region(0, y, self.size.width, 1)
            for y in range(max(len(old), len(self._rows)))
            if old[y : y + 1] != self._rows[y : y + 1]
        ]
        if changed:
            self.refresh(*changed)

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows as they are shown."""
        return tuple(self._rows)

    def get_content_width(self, container: Size, viewport: Size) -> int:  # noqa: ARG002 - textual's signature
        """Return the width of the widest row."""
        return max((row_width(row) for row in self._rows), default=0)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:  # noqa: ARG002
        """Return the number of rows."""
        return len(self._rows)

    def render_line(self, y: int) -> Strip:
        """Return one row as textual wants it."""
        base = self.rich_style
        width = self.content_size.width
        row = self._rows[y] if y < len(self._rows) else ()
        plain = as_ascii if getattr(self.app, "is_ascii", False) else str
        segments = [
            Segment(plain(safe(text)), base + self.get_component_rich_style(f"lines--{style}", partial=True))
            for text, style in row
            if text
        ]
        return Strip(segments).adjust_cell_length(width, base)


class Panel(Lines, Generic[Noun]):
    """Rows drawn from a noun by a pure function of the noun and the panel's width and height."""

    def __init__(self, draw: Callable[[Noun, int, int], Sequence[Row]], *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self._draw = draw
        self._noun: Noun | None = None

    def update(self, noun: Noun) -> None:
        """Show another noun."""
        self._noun = noun
        self._redraw()

    def on_resize(self) -> None:
        """Draw again for the new size."""
        self._redraw()

    def _redraw(self) -> None:
        width, height = self.content_size
        if self._noun is not None and width and height:
            self.show(self._draw(self._noun, width, height))
