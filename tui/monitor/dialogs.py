"""The two dialogs of the monitor: how to stop, and what the keys do."""

from typing import ClassVar, Literal

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

from ..widgets.lines import Lines, Row

Choice = Literal["save", "now"]

_HELP: tuple[tuple[str, str], ...] = (
    ("q  ctrl-c", "detach: leave the screen, training goes on"),
    ("s", "stop the run (asks how)"),
    ("p", "pause the view; training goes on"),
    ("l", "logarithmic loss axis"),
    ("1", "loss"),
    ("2", "speed, learning rate, gradient norm"),
    ("3", "devices"),
    ("4", "samples, with room for long answers"),
    ("5", "events and the log of rank 0"),
    ("tab", "the next panel on the whole screen"),
    ("esc", "back to the overview"),
)


class Dialog(ModalScreen[Choice | None]):
    """Rows in a frame over the screen; esc closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,ctrl+c", "dismiss", priority=True),
    ]

    def __init__(self, rows: list[Row]) -> None:
        super().__init__()
        self._rows = rows

    def compose(self) -> ComposeResult:
        """Show the rows."""
        yield Lines(self._rows)


class Help(Dialog):
    """What the keys do."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("question_mark,enter,space", "dismiss")]

    def __init__(self) -> None:
        legend: list[Row] = [
            (),
            (
                ("⣀⣀ ", "curve"),
                ("smoothed loss  ", "dim"),
                ("⣿⣿ ", "envelope"),
                ("lowest to highest  ", "dim"),
            ),
            (("o  ", "mark"), ("evaluation on held-out rows", "dim")),
        ]
        keys: list[Row] = [((f"{key:<12}", "key"), (what, "text")) for key, what in _HELP]
        super().__init__([(("keys", "title"),), (), *keys, *legend])


class StopDialog(Dialog):
    """Asks how to stop: with a checkpoint, at once, or not at all."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s,enter", "choose('save')"),
        Binding("n", "choose('now')"),
        Binding("c", "dismiss"),
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
