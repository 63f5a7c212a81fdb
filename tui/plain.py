"""The wizard's questions line by line: for dumb terminals, screen readers, and whoever asks for it.

The same questions, checks and job file as the full screen; nothing is ever redrawn.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from ..engine.errors import BadInput
from ..engine.job import LoadedJob
from ..engine.specs.machine import Machine
from .text import safe
from .wizard import words
from .wizard.check import Checker, Review
from .wizard.save import WizardResult, completions, free_path, typed_path, write_job
from .wizard.state import FIELDS, METHODS, QUESTIONS, Draft, Field

LINE_WIDTH = 100
HELP_LINE = "Enter takes what stands in brackets. :back  :help  :quit"
FILE_HELP = "The answers as a file that you can keep, edit and start again with: ftwiz run FILE"


class Ask(Protocol):
    """Shows a prompt and returns the line that was typed; EOFError or KeyboardInterrupt to leave."""

    def __call__(self, prompt: str, *, complete: Callable[[str], Sequence[str]] | None = None) -> str:
        """Ask once."""


class _Left(Exception):  # noqa: N818 - not an error: the user left
    """The user left the wizard."""


def run_plain_wizard(
    machine: Machine, *, preset: LoadedJob, ask: Ask | None = None, write: Callable[[str], None] | None = None
) -> WizardResult | None:
    """Ask the wizard's questions line by line and return what was written, or None when the user left.

    Args:
        machine: What was detected.
        preset: The job to begin with.
        ask: How a line is read; the terminal when absent.
        write: Where narration goes, a line at a time; stderr when absent.
    """
    face = _Face(Checker(machine, preset), ask or terminal_ask(), write or _narrate)
    try:
        return face.run()
    except (_Left, EOFError, KeyboardInterrupt):
        face.write("left; nothing was written")
        return None


class _Face:
    def __init__(self, checker: Checker, ask: Ask, write: Callable[[str], None]) -> None:
        self.checker = checker
        self.ask = ask
        self.write = write
        self.draft = Draft(answers=checker.first_answers())

    def run(self) -> WizardResult:
        """Ask everything, then where the file goes and whether to start."""
        self.write(words.machine_words(self.checker.machine))
        self.write(HELP_LINE)
        while True:
            while (field := self.draft.field) is not None:
                self._question(field)
            review = self.checker.check(self.draft.answers)
            if review.problems:
                self.draft = _at(self.draft, next(field for field in FIELDS if field in review.problems))
                continue
            self._show_plan(review)
            result = self._finish(review)
            if result is not None:
                return result
            self.draft = self.draft.back()

    def _question(self, field: Field) -> None:
        question, default = QUESTIONS[field], self.draft.value(field)
        complete = completions if field in {"model", "data"} else None
        typed = self._line(f"{question.prompt} [{safe(default)}]: ", question.help, complete=complete)
        if typed is None:
            self.draft = self.draft.back()
            return
        value = typed or default
        if field == "method" and value not in METHODS:
            self.write(f"  {safe(value)} is no method: {' or '.join(METHODS)}")
            return
        draft = self.draft.answer(field, value)
        review = self.checker.check(draft.answers)
        problem = review.problems.get(field)
        if problem is not None:
            self.write(f"  {safe(problem)}")
            return
        for line in words.note_words(field, draft.answers, review, LINE_WIDTH):
            self.write(f"  {line}")
        self.draft = draft.forward()

    def _show_plan(self, review: Review) -> None:
        self.write("")
        if review.plan is None:
            self.write(f"cannot be planned on this machine: {safe(str(review.plan_problem))}")
            return
        self.write(f"plan: {words.plan_words(review.plan)}")
        for reason in words.reason_words(review.plan):
            self.write(f"  {safe(reason)}")

    def _finish(self, review: Review) -> WizardResult | None:
        """Write the job; None to go back to the questions."""
        assert review.job is not None
        default = free_path(self.draft.answers.name, Path.cwd()).name
        while True:
            typed = self._line(f"Job file [{default}]: ", FILE_HELP, complete=None)
            if typed is None:
                return None
            path = typed_path(typed or default)
            overwrite = False
            if path.is_file():
                answer = self._line(f"{path} is there already; replace it? yes or no [no]: ", FILE_HELP)
                if answer is None or answer.lower() not in {"y", "yes"}:
                    continue
                overwrite = True
            launch = review.is_ready and self._wants_launch()
            try:
                write_job(review.job, path, overwrite=overwrite)
            except BadInput as error:
                self.write(f"  {safe(error.message)}")
                continue
            return WizardResult(job=review.job, path=path, launch=launch)

    def _wants_launch(self) -> bool:
        text = "Starts the training now. With no, the file is written and nothing else happens."
        answer = self._line("Start training now? yes or no [yes]: ", text)
        return answer is not None and answer.lower() in {"", "y", "yes"}

    def _line(
        self, prompt: str, help_text: str, *, complete: Callable[[str], Sequence[str]] | None = None
    ) -> str | None:
        """Return what was typed, or None for :back."""
        while True:
            typed = self.ask(prompt, complete=complete).strip()
            if typed == ":quit":
                raise _Left
            if typed == ":back":
                return None
            if typed == ":help":
                self.write(f"  {help_text}")
            elif typed.startswith(":"):
                self.write(f"  no command {safe(typed)}. {HELP_LINE}")
            else:
                return typed


def _at(draft: Draft, field: Field) -> Draft:
    while draft.field != field:
        draft = draft.back()
    return draft


def _narrate(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def terminal_ask() -> Ask:
    """Return how a line is read: with editing and completion where the terminal can, else as it comes."""
    if os.environ.get("TERM", "dumb") == "dumb" or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return _ask_dumb
    return _ask_questionary


def _ask_dumb(prompt: str, *, complete: Callable[[str], Sequence[str]] | None = None) -> str:  # noqa: ARG001
    sys.stderr.write(prompt)
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\r\n")


def _ask_questionary(prompt: str, *, complete: Callable[[str], Sequence[str]] | None = None) -> str:
    import questionary  # noqa: PLC0415 - a tenth of a second that a dumb terminal need not pay
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion  # noqa: PLC0415
    from prompt_toolkit.document import Document  # noqa: PLC0415

    class Paths(Completer):
        def get_completions(
            self,
            document: Document,
            complete_event: CompleteEvent,  # noqa: ARG002 - prompt_toolkit's signature
        ) -> Iterator[Completion]:
            assert complete is not None
            begun = document.text_before_cursor
            for path in complete(begun):
                yield Completion(path, start_position=-len(begun))

    answer = questionary.text(
        prompt.rstrip(), qmark="", completer=Paths() if complete else None, complete_while_typing=False
    ).unsafe_ask()
    return str(answer)
