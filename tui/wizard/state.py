"""The questions of the wizard and how one moves between them; no disk, no screen."""

from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Literal, get_args

from ...engine.specs.job import DEMO_MODEL, Data, Method, Model, RunOptions, Section

Field = Literal["model", "data", "method", "name"]
FIELDS: tuple[Field, ...] = get_args(Field)
MethodKind = Literal["lora", "full"]
METHODS: tuple[MethodKind, ...] = get_args(MethodKind)

METHOD_WORDS = {
    "lora": "trains small added matrices: little memory, a small file",
    "full": "trains every weight: the most memory, and the most can change",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What is asked for one field, in words for somebody who has never trained a model."""

    title: str
    prompt: str
    help: str


def _described(section: type[Section], key: str) -> str:
    description = section.model_fields[key].description
    assert description is not None, key
    return " ".join(description.replace("`", "").split())


QUESTIONS: dict[Field, Question] = {
    "model": Question(
        title="Model",
        prompt="Model: local folder, hub id, or ftwiz:demo",
        help=f"The model that training starts from. {_described(Model, 'name_or_path')}",
    ),
    "data": Question(
        title="Data",
        prompt="Data: a .jsonl, .json or .csv file",
        help="The examples that the model learns from: questions with answers, conversations, or text. "
        f"{_described(Data, 'path')} The first row shows how the file was understood.",
    ),
    "method": Question(
        title="Method",
        prompt="Method: lora or full",
        help=f"{_described(Method, 'kind')} Begin with lora; take full when the model must change a lot.",
    ),
    "name": Question(
        title="Name",
        prompt="Name of the run",
        help=f"What you will call this training in lists and folders. {_described(RunOptions, 'name')}",
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """What the user said."""

    model: str
    data: str
    method: MethodKind
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """The answers so far and the question that is being asked."""

    answers: Answers
    at: int = 0
    """Index of the question; ``len(FIELDS)`` is after the last."""
    is_named: bool = False
    """The user chose the name; otherwise it follows the data."""

    @property
    def field(self) -> Field | None:
        """The question that is being asked; None after the last."""
        return FIELDS[self.at] if self.at < len(FIELDS) else None

    def value(self, field: Field) -> str:
        """Return the present answer to a question."""
        answer: str = getattr(self.answers, field)
        return answer

    def answer(self, field: Field, value: str) -> "Draft":
        """Return the draft with another answer; a name that the user did not choose follows."""
        if self.value(field) == value:
            return self
        assert field != "method" or value in METHODS, value
        answers = replace(self.answers, **{field: value})  # type: ignore[arg-type]  # the line above checks it
        if field == "name":
            return replace(self, answers=answers, is_named=bool(value.strip()))
        if not self.is_named:
            answers = replace(answers, name=suggested_name(answers))
        return replace(self, answers=answers)

    def forward(self) -> "Draft":
        """Return the draft at the next question."""
        return replace(self, at=min(self.at + 1, len(FIELDS)))

    def back(self) -> "Draft":
        """Return the draft at the question before; answers stay."""
        return replace(self, at=max(self.at - 1, 0))


def suggested_name(answers: Answers) -> str:
    """Return a name for a run of these answers: ``gsm8k-lora``; the demo is ``demo``."""
    if answers.data.startswith("ftwiz:"):
        stem = answers.data.removeprefix("ftwiz:")
        return stem if answers.model == DEMO_MODEL else f"{stem}-{answers.method}"
    stem = PurePath(answers.data).stem
    letters = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in stem)
    words = "-".join(word for word in letters.split("-") if word)
    return f"{words[:48] or 'run'}-{answers.method}"
