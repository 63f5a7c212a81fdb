"""Lists to choose from: strategies, models and presets, each with what it costs on this machine."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from ...engine.job import load_preset, preset_names
from ...engine.models import catalogue
from ...engine.specs.job import DEMO_MODEL
from ...engine.specs.machine import Machine
from ..text import count, fit, safe
from .check import Checker
from .dialogs import keys_line
from .save import completions
from .state import METHODS, Answers
from .strategies import Way, ways

MOST_MODELS = 12
_BADGES = {"fits": "$success", "tight": "$warning", "no": "$error", "unknown": "$dim"}
Badges = Sequence[tuple[str, str]]
"""What was tried, and the verdict on it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of a list."""

    value: str
    """What choosing it gives."""
    content: Content
    can_be_taken: bool = True


class ListDialog(ModalScreen[str | None]):
    """A list of a few rows, found beside the screen; Enter takes one.

    Args:
        title: What is chosen.
        rows: Finds the rows for what was typed. Called in a thread; each list that it yields is shown.
        searches: Whether there is a line to type in.
        text: What stands in that line at first.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+b", "dismiss", show=False),
        Binding("down", "move(1)", show=False, priority=True),
        Binding("up", "move(-1)", show=False, priority=True),
    ]

    def __init__(
        self,
        title: str,
        rows: Callable[[str], Iterator[list[Row]]],
        *,
        searches: bool = False,
        text: str = "",
    ) -> None:
        super().__init__()
        self._title, self._rows, self._searches, self._text = title, rows, searches, text
        self.shown: list[Row] = []

    def compose(self) -> ComposeResult:
        """Show the line to type in, and under it the list."""
        with Vertical():
            yield Static(Content(self._title), classes="title")
            if self._searches:
                yield Input(self._text, id="search", compact=True)
            yield OptionList(id="rows", compact=True)
            yield Static(keys_line((("↑↓", "move"), ("enter", "take"), ("esc", "back"))), classes="keys-line")

    def on_mount(self) -> None:
        """Look for the first rows."""
        self.query_one("#search" if self._searches else "#rows").focus()
        self.look(self._text)

    @on(Input.Changed)
    def typed(self, event: Input.Changed) -> None:
        """Look again."""
        self.look(event.value)

    @on(Input.Submitted)
    def submitted(self) -> None:
        """Take the row that is marked."""
        highlighted = self.query_one(OptionList).highlighted
        if highlighted is not None and self.shown[highlighted].can_be_taken:
            self.dismiss(self.shown[highlighted].value)

    @on(OptionList.OptionSelected)
    def selected(self, event: OptionList.OptionSelected) -> None:
        """Take a row."""
        self.dismiss(self.shown[event.option_index].value)

    def action_move(self, by: int) -> None:
        """Mark a neighbour, also while something is typed."""
        rows = self.query_one(OptionList)
        rows.action_cursor_down() if by > 0 else rows.action_cursor_up()

    @work(group="look", exclusive=True)
    async def look(self, text: str) -> None:
        """Show what is found, as it is found."""
        found = self._rows(text)
        while (rows := await asyncio.to_thread(next, found, None)) is not None:
            self._show(rows)

    def _show(self, rows: list[Row]) -> None:
        listed = self.query_one(OptionList)
        marked = listed.highlighted
        self.shown = rows
        listed.clear_options()
        listed.add_options(Option(row.content, disabled=not row.can_be_taken) for row in rows)
        takeable = [index for index, row in enumerate(rows) if row.can_be_taken]
        listed.highlighted = marked if marked in takeable else next(iter(takeable), None)


def way_rows(found: Sequence[Way]) -> list[Row]:
    """Return a row of two lines for each way: what it costs, and why it is so or cannot be."""
    rows = []
    for index, way in enumerate(found):
        style = "$bright" if way.can_be_taken else "$faint"
        mark = "● " if way.is_taken else "  " if way.can_be_taken else "x "
        line = f"{mark}{fit(way.name, 36)} {way.figures}"
        reason = ("\n    " + safe(way.reason), "$dim" if way.can_be_taken else "$faint")
        content = Content.assemble((line, style), reason)
        rows.append(Row(value=str(index), content=content, can_be_taken=way.can_be_taken))
    return rows


def strategies_dialog(found: list[Way]) -> ListDialog:
    """Return the list of ways to do a job."""
    return ListDialog("Strategy", lambda _: iter([way_rows(found)]))


def find_ways(checker: Checker, answers: Answers) -> list[Way]:
    """Plan every way."""
    return ways(checker, answers)


def models_dialog(checker: Checker, answers: Answers) -> ListDialog:
    """Return the list of models of the catalogue, with the methods that fit here."""
    # The family of the model that is there: its neighbours are what one looks for.
    known = catalogue.find(answers.model)
    begun = known.id.rpartition("/")[2].partition("-")[0] if known else ""
    return ListDialog("Model", lambda text: model_rows(checker, answers, text), searches=True, text=begun)


def model_rows(checker: Checker, answers: Answers, text: str) -> Iterator[list[Row]]:
    """Yield the models that fit what was typed, again and again with one more badge."""
    found = catalogue.search(text)[:MOST_MODELS]
    badges: dict[str, Badges] = {}
    yield [_model_row(model, ()) for model in found]
    for model in found:
        badges[model.id] = fits(checker, replace(answers, model=model.id))
        yield [_model_row(one, badges.get(one.id, ())) for one in found]


def fits(checker: Checker, answers: Answers) -> Badges:
    """Return for each method whether it fits; nothing for what cannot be planned."""
    found = []
    for method in reversed(METHODS):
        review = checker.check(replace(answers, method=method, settings=""))
        verdict = review.plan.verdict if review.plan else None
        found.append((method, verdict.word if verdict else "no" if review.plan_problem else "unknown"))
    return found


def _badge_parts(badges: Badges) -> list[tuple[str, Any]]:
    signs = {"fits": "+", "tight": "~", "no": "-", "unknown": "?"}
    return [(f" {signs[word]}{name}", _BADGES[word]) for name, word in badges]


def _model_row(model: catalogue.CatalogueModel, badges: Badges) -> Row:
    size = f"{count(model.num_parameters / 1e6)} M"
    content = Content.assemble(
        (fit(model.id, 36), "$bright"), (fit(size, 10, right=True) + " ", "$dim"), *_badge_parts(badges)
    )
    return Row(value=model.id, content=content)


def presets_dialog(machine: Machine) -> ListDialog:
    """Return the list of presets, with whether each fits here."""
    return ListDialog("Preset", lambda text: preset_rows(machine, text), searches=True)


def preset_rows(machine: Machine, text: str) -> Iterator[list[Row]]:
    """Yield the presets whose names hold what was typed, again and again with one more badge."""
    names = [name for name in preset_names() if text.strip().lower() in name]
    loaded = {name: load_preset(name) for name in names}
    badges: dict[str, Badges] = {}

    def rows() -> list[Row]:
        return [
            Row(
                value=name,
                content=Content.assemble(
                    (fit(name, 20), "$bright"),
                    (fit(f"{one.job.stage} {one.job.method.kind}", 11), "$dim"),
                    (fit(Path(one.job.model.name_or_path).name, 24), "$dim"),
                    *_badge_parts(badges.get(name, ())),
                ),
            )
            for name, one in loaded.items()
        ]

    yield rows()
    for name, one in loaded.items():
        checker = Checker(machine, one)
        review = checker.check(checker.first_answers())
        verdict = review.plan.verdict if review.plan else None
        word = verdict.word if verdict else "no" if review.plan_problem else "unknown"
        shown = {"fits": "fits", "tight": "tight", "no": "does not fit", "unknown": "not known"}[word]
        badges[name] = ((shown, word),)
        yield rows()


def model_names(text: str) -> list[str]:
    """Complete folders, the demo's name and the ids of the catalogue."""
    if not text:
        return []
    demo = [DEMO_MODEL] if DEMO_MODEL.startswith(text) else []
    known = sorted(one.id for one in catalogue.models() if one.id.lower().startswith(text.lower()))
    return demo + known + [path for path in completions(text, files=()) if path.endswith("/")]
