"""The two dialogs of the wizard: where the job file goes, and what a field means."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from ...engine.errors import BadInput
from ...engine.specs.job import Job
from ..text import safe
from .fields import TextField
from .save import completions, typed_path, write_job


class SaveDialog(ModalScreen[Path | None]):
    """Asks for the path of the job file and writes it; an existing file only after a second Enter."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,ctrl+b", "dismiss", show=False)]

    def __init__(self, job: Job, path: Path, *, launch: bool) -> None:
        super().__init__()
        self._job = job
        self._path = path
        self._launch = launch
        self._replace: Path | None = None

    def compose(self) -> ComposeResult:
        """Show the path and what Enter will do."""
        what = "Write the job and start training" if self._launch else "Write the job"
        key = "write and start" if self._launch else "write"
        with Vertical():
            yield Static(Content(what), classes="title")
            yield TextField(str(self._path), id="path", complete=_yaml_files)
            yield Static(id="path-note", classes="note")
            yield Static(keys_line((("enter", key), ("esc", "back"))), classes="keys-line")

    def on_mount(self) -> None:
        """Put the cursor behind the path instead of marking it."""
        field = self.query_one("#path", TextField)
        field.select_on_focus = False
        field.focus()
        field.cursor_position = len(field.value)

    @on(Input.Changed)
    def forget(self) -> None:
        """A path that changed is not the one that may be replaced."""
        self._replace = None
        self._say(f"then: ftwiz run {self._typed()}", "")

    @on(Input.Submitted)
    def write(self) -> None:
        """Write the file, or say why not."""
        path = self._typed()
        if path.exists() and not path.is_dir() and self._replace != path:
            self._replace = path
            self._say(f"{path} is there already: Enter again replaces it", "warning")
            return
        try:
            write_job(self._job, path, overwrite=self._replace == path)
        except BadInput as error:
            self._say(error.message, "error")
        else:
            self.dismiss(path)

    def _typed(self) -> Path:
        return typed_path(self.query_one("#path", TextField).value)

    def _say(self, text: str, level: str) -> None:
        note = self.query_one("#path-note", Static)
        note.set_classes(f"note {level}")
        note.update(Content(safe(text)))


class HelpDialog(ModalScreen[None]):
    """A title, a few sentences and what it costs here; Escape, Enter and the like close it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,enter,space,q,f1,ctrl+b", "dismiss", show=False)]

    def __init__(self, title: str, text: str, costs: Sequence[str] = ()) -> None:
        super().__init__()
        self._title = title
        self._text = text
        self._costs = costs

    def compose(self) -> ComposeResult:
        """Show the sentences."""
        with Vertical():
            yield Static(Content(self._title), classes="title")
            yield Static(Content(self._text), classes="text")
            if self._costs:
                yield Static(Content.styled("\n".join(self._costs), "$bright"), classes="costs")
            yield Static(keys_line((("esc", "back"),)), classes="keys-line")


def keys_line(keys: tuple[tuple[str, str], ...]) -> Content:
    """Return keys and what they do, on one line."""
    parts = [part for key, what in keys for part in ((key, "$primary bold"), (f" {what}  ", "$dim"))]
    return Content.assemble(*parts).rstrip()


def _yaml_files(text: str) -> list[str]:
    return completions(text, files=(".yaml", ".yml"))
