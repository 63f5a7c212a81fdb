"""The last screen: the lines that do the same by hand, and every file that will be written."""

import shlex
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from ...engine.errors import FtwizError
from ...engine.specs.machine import Machine
from ..text import count, safe
from . import memory, words
from .check import Checker, Review
from .dialogs import keys_line
from .panels import Part, safe_lines

_WHERE = "in the run's folder, which `ftwiz run` makes"


def pages(checker: Checker, review: Review, path: str) -> dict[str, Content]:
    """Return what Review shows, page by page: an overview, then each file by its name.

    Args:
        checker: Knows machine and preset.
        review: Checked answers that can be planned.
        path: Where the job file would go.
    """
    assert review.plan is not None
    try:
        prepared = checker.prepared(review)
    except FtwizError as error:
        return {"overview": Content.assemble((safe(error.message), "$error"))}
    lines: list[Part] = [
        ("the same by hand\n", "$dim"),
        (f"  ftwiz run {shlex.quote(path)}\n", "$accent"),
        ("the raw launch, in the run's folder\n", "$dim"),
        (f"  {safe(shlex.join(prepared.launch))}\n", "$accent"),
        ("to try it first, two steps\n", "$dim"),
        (f"  ftwiz check {shlex.quote(path)} --smoke 2\n", "$accent"),
        ("files\n", "$dim"),
        (f"  {path}  the job file\n", "$foreground"),
        *(
            (f"  {name}  {count(len(text.splitlines()))} lines\n", "$foreground")
            for name, text in prepared.files.items()
        ),
        (f"  these {count(len(prepared.files))} {_WHERE}\n", "$dim"),
    ]
    files = {name: Content(safe_lines(text)) for name, text in prepared.files.items()}
    return {"overview": Content.assemble(*lines), **files}


class ReviewScreen(ModalScreen[str | None]):
    """Shows every file; gives ``launch``, ``write``, or ``None`` to go back to the answers."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+b,c", "dismiss", show=False),
        Binding("right,tab", "page(1)", show=False, priority=True),
        Binding("left,shift+tab", "page(-1)", show=False, priority=True),
        Binding("enter", "finish", show=False, priority=True),
        Binding("ctrl+s", "dismiss('write')", show=False),
        Binding("q,ctrl+q,ctrl+c", "app.quit", show=False),
    ]

    def __init__(self, checker: Checker, review: Review, path: Path, *, can_launch: bool) -> None:
        super().__init__()
        self._review, self._machine = review, checker.machine
        self._can_launch = can_launch
        self.pages = pages(checker, review, str(path))
        self.at = 0

    def compose(self) -> ComposeResult:
        """Show the plan in short, the names of the pages, and a page."""
        yield Static(id="review-plan")
        yield Static(id="review-names")
        yield VerticalScroll(Static(id="page"))
        enter = "start" if self._can_launch else "write"
        keys = (("enter", enter), ("←→", "files"), ("↑↓", "scroll"), ("^s", "write only"), ("esc", "change"))
        yield Static(keys_line((*keys, ("q", "leave"))), id="review-keys")

    def on_mount(self) -> None:
        """Show the first page."""
        self.query_one(VerticalScroll).focus()
        self._show()

    def on_resize(self) -> None:
        """The bar is as wide as the screen."""
        self._show()

    def action_page(self, by: int) -> None:
        """Show a neighbour page."""
        self.at = (self.at + by) % len(self.pages)
        self.query_one(VerticalScroll).scroll_home(animate=False)
        self._show()

    def action_finish(self) -> None:
        """Go on to where the job file goes."""
        self.dismiss("launch" if self._can_launch else "write")

    def _show(self) -> None:
        names = list(self.pages)
        parts = [(f" {name} ", "reverse bold" if at == self.at else "$dim") for at, name in enumerate(names)]
        self.query_one("#review-names", Static).update(Content.assemble(*parts))
        self.query_one("#page", Static).update(self.pages[names[self.at]])
        self.query_one("#review-plan", Static).update(
            summary(self._review, self._machine, max(30, self.size.width - 2))
        )


def summary(review: Review, machine: Machine, width: int) -> Content:
    """Return what is trained how, in a few lines."""
    assert review.job is not None
    assert review.plan is not None
    job = review.job
    title = f"{job.run.name or 'job'}: {job.stage} {job.method.kind} of {job.model.name_or_path}"
    return Content.assemble(
        (f"Review  {safe(title)}\n", "$bright bold"),
        (f"{words.plan_words(review.plan)}\n", "$foreground"),
        memory.compact(review, machine, None, width),
    )
