"""The dialogs of the monitor: how to stop, what the keys do, one of a list, and a line of text."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

from ..text import fit, safe, shorten
from ..widgets.lines import Lines, Row, cut

Choice = Literal["save", "now"]
Answer = Choice | str | int | None

KEYS: tuple[tuple[str, str, str], ...] = (
    ("q ctrl-c", "detach", "leave; training goes on"),
    ("s", "stop", "stop the run (asks how)"),
    ("w", "save_now", "save a checkpoint now"),
    ("p space", "pause", "hold the picture or go on"),
    ("1-9 tab", "", "one panel, whole screen"),
    ("esc 0", "overview", "back to the overview"),
    ("+ - wheel", "", "zoom the chart's steps"),
    ("← →", "", "move it (end: newest)"),
    ("l", "logarithmic", "logarithmic loss axis"),
    ("e", "smooth", "smooth more, or not"),
    ("c", "compare", "compare with a run"),
    ("/", "filter", "filter the log"),
    ("↑ ↓", "", "scroll the log"),
    ("$", "command", "show the commands"),
    ("y", "copy", "copy the screen"),
    ("x", "export", "export SVG, CSV, PNG"),
    ("t", "next_theme", "dark, light, contrast"),
    ("[ ]", "", "speed of a replay"),
    ("ctrl-p", "palette", "all commands, by name"),
    ("ctrl-l", "redraw", "draw the screen again"),
)
"""Key, action and what it does; without an action where a key needs to be pressed to mean something."""
PANELS = "1 loss  2 numbers  3 devices  4 samples  5 log  6 health  7 ranks  8 checkpoints  9 memory"
_ROWS = 14


class Dialog(ModalScreen[Answer]):
    """Rows in a frame over the screen; esc closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+c", "dismiss", priority=True),
    ]

    def __init__(self, rows: Sequence[Row]) -> None:
        super().__init__()
        self._rows = list(rows)

    def compose(self) -> ComposeResult:
        """Show the rows."""
        self.set_class(getattr(self.app, "is_ascii", False), "-ascii")
        yield Lines(self._rows)


class Told(Dialog):
    """Rows to read; any key closes them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark,enter,space,q", "dismiss"),
    ]


class Help(Told):
    """What the keys do, and what the chart's marks mean; for 80 columns and 24 rows."""

    def __init__(self) -> None:
        half = -(-len(KEYS) // 2)
        rows: list[Row] = [(("keys", "title"),)]
        for left, right in zip(KEYS[:half], [*KEYS[half:], None], strict=False):
            row = [(f"{left[0]:<10} ", "key"), (f"{left[2]:<27}", "text")]
            row += [(f"{right[0]:<7} ", "key"), (right[2], "text")] if right else []
            rows.append(cut(row, 68))
        rows += [
            (),
            ((PANELS[:46], "dim"),),
            ((PANELS[46:].strip(), "dim"),),
            (
                ("⣀⣀ ", "curve"),
                ("smoothed  ", "dim"),
                ("⣿⣿ ", "envelope"),
                ("lowest to highest  ", "dim"),
                ("o ", "mark"),
                ("held-out rows  ", "dim"),
                ("⣀⣀ ", "other"),
                ("compared", "dim"),
            ),
        ]
        super().__init__(rows)


class StopDialog(Dialog):
    """Asks how to stop: with a checkpoint, at once, or not at all."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s,enter", "choose('save')"),
        Binding("n", "choose('now')"),
        Binding("c,q", "dismiss"),
    ]

    def __init__(self, last_saved: str | None) -> None:
        lost = f"steps after {last_saved} are lost" if last_saved else "nothing was saved so far"
        super().__init__(
            [
                (("stop this run?", "title"),),
                (),
                (
                    ("s  ", "key"),
                    ("save a checkpoint and stop  ", "text"),
                    ("ftwiz resume goes on from it", "dim"),
                ),
                (("n  ", "key"), ("stop now                    ", "text"), (lost, "dim")),
                (("c  ", "key"), ("cancel: keep training", "text")),
            ]
        )

    def action_choose(self, choice: Choice) -> None:
        """Hand the choice back."""
        self.dismiss(choice)


class Ask(Dialog):
    """Asks for a line of text; enter takes it. No cursor that blinks: it would be sent all the time."""

    def __init__(self, title: str, text: str = "", *, width: int = 50) -> None:
        self._title, self.text, self._width = title, text, width
        super().__init__(self._drawn())

    def on_key(self, event: events.Key) -> None:
        """Take a character, or the whole line."""
        if event.key == "enter":
            event.stop()
            self.finish()
        elif event.key == "backspace":
            self.text = self.text[:-1]
        elif event.key == "ctrl+u":
            self.text = ""
        elif event.is_printable and event.character:
            self.text += event.character
        else:
            return
        event.stop()
        self.redraw()

    def finish(self) -> None:
        """Hand the text back."""
        self.dismiss(self.text)

    def redraw(self) -> None:
        """Show the text as it is now."""
        if self.is_mounted and (found := self.query(Lines)):
            found.first().show(self._drawn())

    def _drawn(self) -> list[Row]:
        return [
            ((self._title, "title"),),
            (),
            (("> ", "key"), (fit(f"{safe(self.text)}_", self._width), "text")),
        ]


class Choose(Ask):
    """One of a list: typing narrows it down, up and down move, enter takes."""

    def __init__(self, title: str, items: Sequence[tuple[str, str]], *, width: int = 64) -> None:
        self._items = items
        self._at = 0
        super().__init__(title, width=width)

    def on_key(self, event: events.Key) -> None:
        """Move; a character is taken by ``Ask``, whose handler textual calls too."""
        if event.key in {"up", "down"}:
            event.stop().prevent_default()
            most = max(0, len(self._found()) - 1)
            self._at = min(most, max(0, self._at + (1 if event.key == "down" else -1)))
            self.redraw()
            return
        self._at = 0 if event.is_printable else self._at

    def finish(self) -> None:
        """Hand back which one of all it is."""
        found = self._found()
        self.dismiss(found[self._at] if found else None)

    def _found(self) -> list[int]:
        words = self.text.casefold().split()
        return [
            number
            for number, (name, what) in enumerate(self._items)
            if all(word in f"{name} {what}".casefold() for word in words)
        ]

    def _drawn(self) -> list[Row]:
        rows = super()._drawn()
        found = self._found()
        first = max(0, min(self._at - _ROWS // 2, len(found) - _ROWS))
        for place, number in list(enumerate(found))[first : first + _ROWS]:
            name, what = self._items[number]
            is_here = place == self._at
            rows.append(
                (
                    ("▸ " if is_here else "  ", "key"),
                    (fit(safe(name), 26), "bright" if is_here else "text"),
                    (shorten(safe(what), self._width - 28), "dim"),
                )
            )
        rows += [()] * (3 + min(_ROWS, len(self._items)) - len(rows))
        return rows
