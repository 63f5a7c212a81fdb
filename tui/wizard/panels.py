"""What the parts of the wizard's screen say: values in, content out."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from textual.content import Content

from ...engine.specs.machine import Machine
from ..text import safe
from . import words
from .check import Review
from .state import Answers, Draft, Field

_COMMENT = re.compile(r"(^|\s+)#.*$")
Part = Content | str | tuple[str, Any]


def at(draft: Draft, position: int) -> Draft:
    """Return the draft at another question."""
    return replace(draft, at=position)


def header(machine: Machine) -> Content:
    """Return the name of the program and what was detected."""
    return Content.assemble(
        ("ftwiz", "$accent bold"),
        ("  fine-tune a language model on this machine\n", "$bright"),
        (safe(words.machine_words(machine)), "$primary"),
    )


def note(field: Field, answers: Answers, review: Review, width: int) -> Content:
    """Return what was found about an answer: one line, for data also its first row."""
    first, *rest = words.note_words(field, answers, review, width) or [""]
    return Content.assemble(first, *((f"\n{line}", "$dim italic") for line in rest))


def plan(review: Review) -> Content:
    """Return the plan in a sentence, and why."""
    if review.plan_problem is not None:
        return Content.assemble((safe(review.plan_problem), "$error"))
    if review.plan is None:
        return Content.assemble(("as soon as the answers above can be used", "$dim"))
    reasons = "".join(f"\n{reason}" for reason in words.reason_words(review.plan))
    return Content.assemble((words.plan_words(review.plan), "$foreground"), (safe_lines(reasons), "$dim"))


def safe_lines(text: str) -> str:
    """Make every line harmless and keep the line breaks."""
    return "\n".join(safe(line) for line in text.split("\n"))


def job_file(review: Review) -> Content:
    """Return the job file without its comments, with ``~`` for the home folder, so that it fits."""
    if review.job is None:
        return Content.assemble(("as soon as the answers can be used", "$dim"))
    parts: list[Part] = []
    home = f" {Path('~').expanduser()}/"
    for line in review.text.splitlines():
        bare = _COMMENT.sub("", line)
        if not bare and line:
            continue
        key, colon, value = bare.partition(":")
        parts += [
            (key, "$primary"),
            (colon, "$dim"),
            (f"{safe(value.replace(home, ' ~/'))}\n", "$foreground"),
        ]
    return Content.assemble(*parts).rstrip()


def command(path: str) -> Content:
    """Return the command line that does the same."""
    return Content.assemble(("the same by hand  ", "$dim"), (f"ftwiz run {path}", "$accent"))


def keys(field: Field | None, *, is_wide: bool) -> tuple[tuple[str, str], ...]:
    """Return the keys that work where the focus is."""
    file = () if is_wide else (("f3", "file"),)
    if field is None:
        return (
            ("enter", "start"),
            ("c", "change"),
            ("f1", "help"),
            *file,
            ("^s", "write only"),
            ("q", "leave"),
        )
    if field == "method":
        first: tuple[tuple[str, str], ...] = (("←→", "choose"), ("enter", "next"))
    elif field == "name":
        first = (("enter", "next"),)
    else:
        first = (("enter", "next"), ("tab", "complete"))
    return (*first, ("esc", "back"), ("f1", "help"), ("f2", "start"), *file, ("^q", "leave"))
