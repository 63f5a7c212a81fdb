"""The wizard's questions line by line: for dumb terminals, screen readers, and whoever asks for it.

The same questions, checks and job file as the full screen; nothing is ever redrawn.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from ..engine.errors import BadInput
from ..engine.job import LoadedJob
from ..engine.specs.machine import Machine
from .text import safe
from .wizard import words
from .wizard.check import Checker, Review
from .wizard.costs import cost_words
from .wizard.fix import cheapest_fix
from .wizard.measure import speed_words
from .wizard.save import WizardResult, completions, free_path, typed_path, write_job
from .wizard.settings import setting_completions
from .wizard.state import FIELDS, GOAL_WORDS, GOALS, KINDS, METHODS, QUESTIONS, Draft, Field, Opening

LINE_WIDTH = 100
HELP_LINE = "Enter takes what stands in brackets. :back  :help  :quit"
FILE_HELP = "The answers as a file that you can keep, edit and start again with: ftwiz run FILE"

_COMPLETIONS: Mapping[Field, Callable[[str], Sequence[str]]] = {
    "model": completions,
    "data": completions,
    "settings": setting_completions,
}


class Ask(Protocol):
    """Shows a prompt and returns the line that was typed; EOFError or KeyboardInterrupt to leave."""

    def __call__(self, prompt: str, *, complete: Callable[[str], Sequence[str]] | None = None) -> str:
        """Ask once."""


class _Left(Exception):  # noqa: N818 - not an error: the user left
    """The user left the wizard."""


def run_plain_wizard(
    machine: Machine,
    *,
    preset: LoadedJob,
    opening: Opening | None = None,
    ask: Ask | None = None,
    write: Callable[[str], None] | None = None,
) -> WizardResult | None:
    """Ask the wizard's questions line by line and return what was written, or None when the user left.

    Args:
        machine: What was detected.
        preset: The job to begin with.
        opening: What was given beforehand.
        ask: How a line is read; the terminal when absent.
        write: Where narration goes, a line at a time; stderr when absent.
    """
    checker = Checker(machine, preset)
    face = _Face(checker, opening or Opening(), ask or terminal_ask(), write or _narrate)
    try:
        return face.run()
    except (_Left, EOFError, KeyboardInterrupt):
        face.write("left; nothing was written")
        return None


class _Face:
    def __init__(self, checker: Checker, opening: Opening, ask: Ask, write: Callable[[str], None]) -> None:
        self.checker = checker
        self.opening = opening
        self.ask = ask
        self.write = write
        answers = opening.answers(checker.first_answers())
        self.draft = Draft(answers=answers, at=len(FIELDS) if opening.at_review else 0)

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
            if self._takes_fix(review):
                continue
            result = self._finish(review)
            if result is not None:
                return result
            self.draft = self.draft.back()

    def _question(self, field: Field) -> None:
        question, default = QUESTIONS[field], self.draft.value(field)
        complete = _COMPLETIONS.get(field)
        prompt = f"{question.prompt} [{safe(default)}]: "
        typed = self._line(prompt, self._help(field, question.help), complete=complete)
        if typed is None:
            self.draft = self.draft.back()
            return
        value = typed or default
        value = "" if field == "settings" and value == "-" else value
        allowed = {"method": tuple(dict.fromkeys((*METHODS, *KINDS))), "goal": (*GOALS, *GOAL_WORDS)}.get(
            field
        )
        if allowed is not None and value not in allowed:
            self.write(f"  {safe(value)} is no {field}: {' or '.join(allowed)}")
            return
        draft = self.draft.answer(field, value)
        review = self.checker.check(draft.answers)
        problem = review.problems.get(field)
        if problem is not None:
            self.write(f"  {safe(problem)}")
            return
        notes = words.note_words(field, draft.answers, review, LINE_WIDTH)
        if field == "data" and "goal" in review.problems:
            notes = [*notes, review.problems["goal"]]
        for line in notes:
            self.write(f"  {line}")
        self.draft = draft.forward()

    def _show_plan(self, review: Review) -> None:
        self.write("")
        if review.plan is None or review.plan_problem is not None:
            self.write(f"cannot be planned on this machine: {safe(str(review.plan_problem))}")
            return
        self.write(f"plan: {words.plan_words(review.plan)}")
        for reason in words.reason_words(review.plan):
            self.write(f"  {safe(reason)}")
        self.write(f"  {speed_words(review)}")

    def _takes_fix(self, review: Review) -> bool:
        """Offer the cheapest change that fits."""
        fix = cheapest_fix(self.checker, self.draft.answers, review)
        if fix is None:
            return False
        prompt = f"It fits with {safe(fix.words)} ({fix.effect}); take it? yes or no [yes]: "
        answer = self._line(prompt, "The smallest change that was found to fit on this machine.")
        if answer is None or answer.lower() not in {"", "y", "yes"}:
            return False
        self.draft = replace(self.draft, answers=fix.answers)
        return True

    def _help(self, field: Field, text: str) -> Callable[[], list[str]]:
        def lines() -> list[str]:
            answers = self.draft.answers
            return [text, *cost_words(self.checker, answers, self.checker.check(answers), field)]

        return lines

    def _finish(self, review: Review) -> WizardResult | None:
        """Write the job; None to go back to the questions."""
        assert review.job is not None
        default = str(self.opening.path or free_path(self.draft.answers.name, Path.cwd()).name)
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
            launch = review.is_ready and not self.opening.is_elsewhere and self._wants_launch()
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
        self,
        prompt: str,
        help_text: str | Callable[[], list[str]],
        *,
        complete: Callable[[str], Sequence[str]] | None = None,
    ) -> str | None:
        """Return what was typed, or None for :back."""
        while True:
            typed = self.ask(prompt, complete=complete).strip()
            if typed == ":quit":
                raise _Left
            if typed == ":back":
                return None
            if typed == ":help":
                for line in [help_text] if isinstance(help_text, str) else help_text():
                    self.write(f"  {line}")
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
