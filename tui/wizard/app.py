"""The full-screen wizard: a form, the job file that it makes, and nothing written before the end."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.events import Resize
from textual.widgets import Button, Input, Static

from ...engine.job import LoadedJob, load_preset
from ...engine.specs.machine import Machine
from ..lean import LeanApp
from ..text import safe
from ..widgets.theme import THEME
from . import memory, panels
from .check import Checker, Review
from .costs import cost_words
from .dialogs import HelpDialog, SaveDialog, keys_line
from .draft import forget, keep, kept
from .fields import Choice, TextField
from .fix import Fix, cheapest_fix
from .pick import find_ways, model_names, models_dialog, presets_dialog, strategies_dialog
from .review import ReviewScreen
from .save import WizardResult, completions, free_path
from .settings import setting_completions
from .state import FIELDS, GOALS, METHODS, QUESTIONS, Answers, Draft, Field, Opening

START = "start"
WIDE = 110
"""Columns from which the job file stands beside the form."""
_START_HELP = (
    "Start training",
    (
        "Writes these answers into a job file, plans the run for this machine and starts it. "
        "Training goes on when you leave the screen or lose the connection. "
        "Change an answer first with Tab, the arrow keys or c."
    ),
)

TALL = 34
"""Rows from which the form is never longer than the screen."""


class WizardApp(LeanApp[WizardResult]):
    """Asks for model, data, method and name; returns what was written, or None.

    Args:
        machine: What was detected.
        preset: The answers to begin with.
        opening: How it begins.
    """

    CSS_PATH: ClassVar = ["wizard.tcss"]
    ENABLE_COMMAND_PALETTE = False
    VERTICAL_BREAKPOINTS = [(0, "-low"), (TALL, "-tall")]  # noqa: RUF012 - as Textual declares it
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]  # noqa: RUF012 - as Textual declares it
    BINDINGS: ClassVar[list[BindingType]] = [
        # Before the form, which would scroll instead.
        Binding("down", "go(1)", show=False, priority=True),
        Binding("up", "go(-1)", show=False, priority=True),
        Binding("escape,ctrl+b", "go(-1)", show=False),
        Binding("c", "customise", show=False),
        Binding("f1", "help", show=False),
        Binding("question_mark", "help", show=False),
        Binding("f2", "finish(True)", show=False),
        Binding("f3", "file", show=False),
        Binding("f4", "strategies", show=False),
        Binding("f5", "models", show=False),
        Binding("f6", "presets", show=False),
        Binding("f7", "fix", show=False),
        Binding("f8", "review", show=False),
        Binding("d", "take_draft", show=False),
        Binding("ctrl+s", "finish(False)", show=False),
        Binding("ctrl+l", "redraw", show=False),
        Binding("q,ctrl+q,ctrl+c", "quit", show=False),
    ]

    def __init__(self, machine: Machine, preset: LoadedJob, opening: Opening | None = None) -> None:
        super().__init__()
        self._machine, self._opening = machine, opening or Opening()
        self._checker = Checker(machine, preset)
        first = self._checker.first_answers()
        self.draft = Draft(answers=self._opening.answers(first), at=len(FIELDS))
        self.review = Review()
        self.fix: Fix | None = None
        self._kept = kept(self._opening.draft) if self._opening.draft else None

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Let the style sheet use the theme's own colours before the theme is set."""
        return THEME.variables

    def compose(self) -> ComposeResult:
        """Lay out the form; the style sheet decides where the job file stands."""
        answers = self.draft.answers
        yield Static(id="header")
        with Horizontal(id="body"):
            with Vertical(id="form"):
                with VerticalScroll(can_focus=False):
                    yield from self._row("model", TextField(answers.model, id="model", complete=model_names))
                    yield from self._row("data", TextField(answers.data, id="data", complete=completions))
                    methods = tuple(dict.fromkeys((*METHODS, answers.method)))
                    goals = tuple(dict.fromkeys((*GOALS, answers.goal)))
                    yield from self._row("goal", Choice(goals, answers.goal, id="goal"))
                    yield from self._row("method", Choice(methods, answers.method, id="method"))
                    settings = TextField(answers.settings, id="settings", complete=setting_completions)
                    yield from self._row("settings", settings)
                    yield from self._row("name", TextField(answers.name, id="name"))
                    with Horizontal(classes="row"):
                        yield Static("Plan", classes="label")
                        yield Static(id="plan")
                with Horizontal(classes="row"):
                    yield Static(classes="label")
                    label = "Write the job" if self._opening.is_elsewhere else "Start training"
                    yield Button(label, id=START, compact=True)
            with Vertical(id="side"):
                yield Static(id="memory")
                yield Static(id="command")
                yield VerticalScroll(Static(id="file"), can_focus=False)
        yield Static(id="keys")

    def _row(self, field: Field, widget: TextField | Choice) -> ComposeResult:
        with Horizontal(classes="row"):
            yield Static(QUESTIONS[field].title, classes="label")
            yield widget
        yield Static(id=f"{field}-note", classes="note")

    def on_mount(self) -> None:
        """Begin at the end: what is there already can be started with one key."""
        self.register_theme(THEME)
        self.theme = THEME.name
        self.query_one(f"#{START}").focus()
        if self._opening.at_review:
            self.action_review()
        else:
            self._check()

    @on(Input.Changed, "#form Input")
    def text_changed(self, event: Input.Changed) -> None:
        """Take what was typed."""
        self._answer(_field(event.input.id), event.value)

    @on(Choice.Changed)
    def choice_changed(self, event: Choice.Changed) -> None:
        """Take what was chosen."""
        self._answer(_field(event.choice.id), event.choice.value)

    @on(Input.Submitted, "#form Input")
    @on(Choice.Accepted)
    def accepted(self) -> None:
        """Enter goes on to the next question, and behind the last to the start."""
        self.action_go(1)

    @on(Button.Pressed, f"#{START}")
    def start(self) -> None:
        """Write and launch; for another machine only write."""
        self.action_finish(launch=not self._opening.is_elsewhere)

    def on_descendant_focus(self) -> None:
        """Show the keys that work there."""
        self._follow_focus()
        self._show_keys()

    def on_resize(self, _event: Resize) -> None:
        """A wide screen shows the job file anyway."""
        self.default_screen.remove_class("-file")
        self._show()

    def action_go(self, by: int) -> None:
        """Go to a neighbour question."""
        if len(self.screen_stack) > 1:
            return
        self._follow_focus()
        self.draft = self.draft.forward() if by > 0 else self.draft.back()
        self._focus(self.draft.field or START)

    def action_customise(self) -> None:
        """Go to the first question."""
        self._focus(FIELDS[0])

    def action_file(self) -> None:
        """Show the job file in place of the form, or the form again."""
        self.default_screen.toggle_class("-file")

    @work(group="help", exclusive=True)
    async def action_help(self) -> None:
        """Explain the field that has the focus, and what it costs here."""
        if len(self.screen_stack) > 1:
            return
        field = self._follow_focus()
        if field is None:
            self.push_screen(HelpDialog(*_START_HELP))
            return
        costs = await asyncio.to_thread(cost_words, self._checker, self.draft.answers, self.review, field)
        self.push_screen(HelpDialog(QUESTIONS[field].title, QUESTIONS[field].help, costs))

    @work(group="pick", exclusive=True)
    async def action_strategies(self) -> None:
        """List the ways to do it; the one that is taken is pinned in the settings."""
        if len(self.screen_stack) > 1 or self.review.job is None:
            return
        found = await asyncio.to_thread(find_ways, self._checker, self.draft.answers)
        picked = await self.push_screen_wait(strategies_dialog(found))
        if picked is not None:
            self._take(found[int(picked)].answers)

    @work(group="pick", exclusive=True)
    async def action_models(self) -> None:
        """Look for a model in the catalogue."""
        if len(self.screen_stack) == 1:
            picked = await self.push_screen_wait(models_dialog(self._checker, self.draft.answers))
            if picked is not None:
                self._take(self.draft.answer("model", picked).answers)

    @work(group="pick", exclusive=True)
    async def action_presets(self) -> None:
        """Begin with another preset."""
        if len(self.screen_stack) == 1:
            picked = await self.push_screen_wait(presets_dialog(self._machine))
            if picked is not None:
                self._checker = Checker(self._machine, load_preset(picked))
                self.draft = replace(self.draft, is_named=False)
                self._take(self._checker.first_answers())

    def action_fix(self) -> None:
        """Apply the cheapest change that fits."""
        if self.fix is not None and len(self.screen_stack) == 1:
            self._take(self.fix.answers)

    def action_take_draft(self) -> None:
        """Go on with the answers of last time."""
        if self._kept is not None and len(self.screen_stack) == 1:
            answers, self._kept = self._kept, None
            self._take(answers)

    @work(group="review", exclusive=True)
    async def action_review(self) -> None:
        """Show every file that would be written, and the lines that do the same."""
        if len(self.screen_stack) > 1:
            return
        await self._look()
        if not self.review.is_ready:
            self._check()  # the form says why, and what would fit
            return
        can_launch = not self._opening.is_elsewhere
        path = self._path()
        screen = ReviewScreen(self._checker, self.review, path, can_launch=can_launch)
        picked = await self.push_screen_wait(screen)
        if picked is not None:
            self._finish(launch=picked == "launch")

    def _take(self, answers: Answers) -> None:
        """Put other answers into the form."""
        self.draft = replace(self.draft, answers=answers)
        for field in FIELDS:
            widget = self.query_one(f"#{field}")
            assert isinstance(widget, TextField | Choice)
            value = self.draft.value(field)
            with widget.prevent(Input.Changed, Choice.Changed):
                if isinstance(widget, Choice):
                    widget.offer(value)
                widget.value = value
        self._check()

    def _path(self) -> Path:
        if self._opening.path is not None:
            return self._opening.path
        return Path(free_path(self.draft.answers.name, Path.cwd()).name)

    def action_finish(self, launch: bool) -> None:  # noqa: FBT001 - Textual's actions take positional values
        """Ask for the path, write the job and leave; with a problem go there instead."""
        if len(self.screen_stack) == 1:
            self._finish(launch=launch and not self._opening.is_elsewhere)

    async def action_quit(self) -> None:
        """Leave; nothing was written."""
        self.exit(None)

    @work(group="finish", exclusive=True)
    async def _finish(self, *, launch: bool) -> None:
        # What was typed just now may still be on its way here as a message.
        for field in FIELDS:
            self.draft = self.draft.answer(field, self._value(field))
        await self._look()
        review = self.review
        if review.problems:
            self._focus(next(field for field in FIELDS if field in review.problems))
        elif review.job is None or (launch and not review.is_ready):
            self.bell()
        else:
            path = await self.push_screen_wait(SaveDialog(review.job, self._path(), launch=launch))
            if path is not None:
                if self._opening.draft:
                    forget(self._opening.draft)
                self.exit(WizardResult(job=review.job, path=path, launch=launch))

    def _value(self, field: Field) -> str:
        widget = self.query_one(f"#{field}")
        assert isinstance(widget, TextField | Choice)
        return widget.value

    def _answer(self, field: Field, value: str) -> None:
        draft = self.draft.answer(field, value)
        if draft is self.draft:  # a widget says what it holds when it is made
            return
        self.draft = draft
        name = self.query_one("#name", TextField)
        if name.value != self.draft.answers.name:
            with name.prevent(Input.Changed):
                name.value = self.draft.answers.name
        if self._opening.draft:
            keep(self.draft.answers, self._opening.draft)
        self._kept = None
        self._check()

    @work(group="check", exclusive=True)
    async def _check(self) -> None:
        await self._look()
        answers, review = self.draft.answers, self.review
        found = await asyncio.to_thread(cheapest_fix, self._checker, answers, review)
        if found is not None and answers == self.draft.answers:
            self.fix = found
            self._show()

    async def _look(self) -> None:
        """Check the answers beside the screen, which stays responsive; an overtaken check is dropped."""
        self.review = await asyncio.to_thread(self._checker.check, self.draft.answers)
        self.fix = None
        self._show()

    def _show(self) -> None:
        """Show what is known, and once more when the layout that this makes has other widths."""
        widths = self._show_in_widths()
        self.call_after_refresh(lambda: widths == self._widths() or self._show_in_widths())

    def _widths(self) -> tuple[int, int]:
        """Return the columns of the notes beside the fields and of the panel at the side."""
        note, side = self.query_one("#data-note").size.width, self.query_one("#side").size.width
        return max(20, note), max(40, side - 3)

    def _show_in_widths(self) -> tuple[int, int]:
        answers, review = self.draft.answers, self.review
        width, side = widths = self._widths()
        for field in FIELDS:
            note = self.query_one(f"#{field}-note", Static)
            problem = review.problems.get(field)
            note.set_class(problem is not None, "problem")
            note.update(Content(safe(problem)) if problem else panels.note(field, answers, review, width))
        self.query_one("#header", Static).update(panels.header(self._machine, self._notice()))
        self._show_plan(width, side)
        self.query_one("#file", Static).update(panels.job_file(review))
        path = str(self._path()) if review.job else "JOB.yaml"
        self.query_one("#command", Static).update(panels.command(path))
        self.query_one(f"#{START}", Button).set_class(not review.is_ready, "-not-ready")
        self._show_keys()
        return widths

    def _show_plan(self, width: int, side: int) -> None:
        review, is_wide = self.review, self.size.width >= WIDE
        small = None if is_wide else memory.compact(review, self._machine, self.fix, width)
        self.query_one("#plan", Static).update(panels.plan(review, small))
        whole = memory.panel(review, self._machine, self.fix, side)
        self.query_one("#memory", Static).update(whole)

    def _notice(self) -> str:
        if self._kept is not None:
            return "answers of last time are kept: d takes them up"
        if self._opening.is_elsewhere:
            return "plans for another machine: the job is written, not started"
        return ""

    def _show_keys(self) -> None:
        is_wide = self.size.width >= WIDE
        self.query_one("#keys", Static).update(
            keys_line(
                panels.keys(self.draft.field, is_wide=is_wide, can_launch=not self._opening.is_elsewhere)
            )
        )

    def _follow_focus(self) -> Field | None:
        """Be at the question that has the focus, however it came there; None is the start."""
        focused = self.default_screen.focused
        if focused is not None:
            name = focused.id or START
            self.draft = panels.at(self.draft, FIELDS.index(name) if name in FIELDS else len(FIELDS))
        return self.draft.field

    def _focus(self, target: str) -> None:
        self.default_screen.remove_class("-file")
        self.default_screen.set_focus(self.query_one(f"#{target}"))


def _field(widget_id: str | None) -> Field:
    return next(field for field in FIELDS if field == widget_id)
