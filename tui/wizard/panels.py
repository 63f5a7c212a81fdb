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


def header(machine: Machine, notice: str = "") -> Content:
    """Return the name of the program and what was detected; a notice stands in place of what it does."""
    what = (
        (f"  {notice}\n", "$warning")
        if notice
        else ("  fine-tune a language model on this machine\n", "$bright")
    )
    return Content.assemble(
        ("ftwiz", "$accent bold"),
        what,
        (safe(words.machine_words(machine)), "$primary"),
    )


def note(field: Field, answers: Answers, review: Review, width: int) -> Content:
    """Return what was found about an answer: one line, for data also its first row."""
    first, *rest = words.note_words(field, answers, review, width) or [""]
    return Content.assemble(first, *((f"\n{line}", "$dim italic") for line in rest))


def plan(review: Review, bar: Content | None = None) -> Content:
    """Return the plan in a sentence, and why; on a small screen what it takes in place of why."""
    if review.plan is None and review.plan_problem is None:
        return Content.assemble(("as soon as the answers above can be used", "$dim"))
    if bar is not None:
        told: Part = (safe(review.plan_problem or ""), "$error")
        if review.plan is not None and review.plan_problem is None:
            told = (words.plan_words(review.plan), "$foreground")
        return Content.assemble(told, "\n", bar) if review.plan else Content.assemble(told)
    if review.plan is None or review.plan_problem is not None:
        return Content.assemble((safe(review.plan_problem or ""), "$error"))
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


def keys(field: Field | None, *, is_wide: bool, can_launch: bool = True) -> tuple[tuple[str, str], ...]:
    """Return the keys that work where the focus is; on a small screen the most needed ones."""
    file = () if is_wide else (("f3", "file"),)
    more = (("f6", "presets"), ("f8", "review")) if is_wide else (("f8", "review"),)
    if field is None:
        first: tuple[tuple[str, str], ...] = (
            ("enter", "start" if can_launch else "write"),
            ("c", "change"),
            ("f1", "help"),
            *file,
            ("f4", "strategies"),
            *more,
        )
        return (*first, ("^s", "write only"), ("q", "leave")) if is_wide else (*first, ("q", "leave"))
    if field in {"method", "goal"}:
        first = (("←→", "choose"),)
    elif field == "model":
        first = (("tab", "complete"), ("f5", "find"))
    else:
        first = (("tab", "complete"),) if field in {"data", "settings"} else ()
    return (
        ("enter", "next"),
        *first,
        ("esc", "back"),
        ("f1", "help"),
        *file,
        ("f4", "strategies"),
        *(more if is_wide else ()),
        ("^q", "leave"),
    )
