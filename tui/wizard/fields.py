"""The fields of the wizard's form: a line of text that completes paths, and a choice on one line."""

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.suggester import Suggester
from textual.widget import Widget
from textual.widgets import Input

Complete = Callable[[str], Sequence[str]]


class _First(Suggester):
    """Shows the first completion behind the cursor."""

    def __init__(self, complete: Complete) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._complete = complete

    async def get_suggestion(self, value: str) -> str | None:
        """Return the whole value that would be taken."""
        return next(iter(self._complete(value)), None)


class TextField(Input):
    """A line of text. Tab takes the completion that is shown; with none it goes on to the next field."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("tab", "take", show=False)]

    def __init__(self, value: str, *, id: str, complete: Complete | None = None) -> None:  # noqa: A002 - Textual's name
        suggester = None if complete is None else _First(complete)
        super().__init__(value, id=id, compact=True, select_on_focus=True, suggester=suggester)
        self._complete = complete
        self.cursor_blink = False

    def action_take(self) -> None:
        """Take the completion, or go on."""
        taken = None if self._complete is None else next(iter(self._complete(self.value)), None)
        if self.value and taken is not None and taken != self.value:
            self.value = taken
            self.cursor_position = len(taken)
        else:
            self.screen.focus_next()


class Choice(Widget, can_focus=True):
    """One of a few words on one line; arrow keys and space change it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,space", "move(1)", show=False),
        Binding("left", "move(-1)", show=False),
        Binding("enter", "accept", show=False),
    ]
    value: reactive[str] = reactive("", init=False)

    class Changed(Message):
        """Another word was chosen."""

        def __init__(self, choice: "Choice") -> None:
            super().__init__()
            self.choice = choice

        @property
        def control(self) -> "Choice":
            """The widget."""
            return self.choice

    class Accepted(Message):
        """Enter was pressed."""

    def __init__(self, options: Sequence[str], value: str, *, id: str) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._options = tuple(options)
        self.set_reactive(Choice.value, value)

    def render(self) -> Content:
        """Draw the options; the chosen one is told by its mark too, not by colour alone."""
        parts: list[Content | tuple[str, str]] = []
        if sum(len(option) + 3 for option in self._options) > max(1, self.size.width):
            place = f"{self._options.index(self.value) + 1} of {len(self._options)}"
            style = "reverse bold" if self.has_focus else "$bright bold"
            return Content.assemble((f"◂ {self.value} ▸", style), (f"  {place}", "$dim"))
        for option in self._options:
            chosen = option == self.value
            style = ("reverse bold" if self.has_focus else "$bright bold") if chosen else "$dim"
            parts += [(f"{'●' if chosen else '○'} {option}", style), (" ", "")]
        return Content.assemble(*parts)

    def offer(self, value: str) -> None:
        """Make sure that a word is among the options."""
        if value not in self._options:
            self._options = (*self._options, value)

    def watch_value(self) -> None:
        """Tell the form."""
        self.post_message(self.Changed(self))

    def action_move(self, by: int) -> None:
        """Choose a neighbour."""
        position = self._options.index(self.value) + by
        self.value = self._options[position % len(self._options)]

    def action_accept(self) -> None:
        """Go on with what is chosen."""
        self.post_message(self.Accepted())
