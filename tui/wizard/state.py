"""The questions of the wizard and how one moves between them; no disk, no screen."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Literal, get_args

from ...engine.specs.job import DEMO_MODEL, Data, Job, Method, Model, PlanPins, RunOptions, Section
from ...engine.specs.workload import Stage

Field = Literal["model", "data", "goal", "method", "settings", "name"]
FIELDS: tuple[Field, ...] = get_args(Field)
METHODS = ("lora", "qlora", "full")
"""What is offered. A job may have another kind of the job file's too, which is offered then."""
KINDS: tuple[str, ...] = get_args(Method.model_fields["kind"].annotation)

METHOD_WORDS = {
    "lora": "trains small added matrices: little memory, a small file",
    "qlora": "lora beside weights packed into 4 bits: the least memory, slower, less exact",
    "full": "trains every weight: the most memory, and the most can change",
}
GOALS: dict[str, Stage] = {
    "chat": "sft",
    "preferences": "dpo",
    "ratings": "kto",
    "text": "pt",
    "rewards": "grpo",
    "reward model": "rm",
}
"""What is to be reached, in plain words -> the stage that does it."""
GOAL_WORDS: dict[Stage, str] = {
    "sft": "learns to answer as the examples do (sft)",
    "dpo": "learns to prefer one of two answers (dpo)",
    "kto": "learns from answers that were liked or not (kto)",
    "pt": "goes on reading plain text (pt, continued pre-training)",
    "grpo": "tries answers, and those that a reward likes become likelier (grpo)",
    "rm": "learns to score answers as people do, for later training by rewards (rm)",
    "orpo": "learns examples and preferences at once (orpo)",
    "simpo": "learns preferences without a second copy of the model (simpo)",
    "rloo": "tries answers, each compared with the others of its question (rloo)",
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
    "goal": Question(
        title="Goal",
        prompt=f"Goal: {', '.join(GOALS)}",
        help="What the model is to learn. chat: to answer like your examples. preferences: which of two "
        "answers is better. ratings: which answers are good. text: the language of your texts. "
        f"rewards: what a function of yours rewards. reward model: to judge. {_described(Job, 'stage')}",
    ),
    "method": Question(
        title="Method",
        prompt="Method: lora, qlora or full",
        help=f"{_described(Method, 'kind')} qlora is lora with plan.quantization: nf4. "
        "Begin with lora; take full when the model must change a lot.",
    ),
    "settings": Question(
        title="Settings",
        prompt="Settings: key=value, with spaces between them; - for none",
        help="Any other key of the job file, as key=value with spaces between them, such as "
        "train.max_length=2048 method.r=32. What you leave out has a default or is planned for the machine. "
        f"plan.backend: {_described(PlanPins, 'backend')}",
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
    goal: str
    """A key of ``GOALS``, or a stage that has no plain word."""
    method: str
    """One of ``METHODS``, or another kind of the job file's."""
    settings: str = ""
    """Further values, ``key=value`` with spaces between them."""
    name: str

    @property
    def stage(self) -> Stage:
        """The kind of training that reaches the goal."""
        return stage_of(self.goal)


@dataclass(frozen=True, kw_only=True, slots=True)
class Opening:
    """How the wizard begins."""

    model: str | None = None
    """In place of the preset's."""
    data: str | None = None
    at_review: bool = False
    """Show the last screen first."""
    is_elsewhere: bool = False
    """The machine is another one: the job can be written and not launched."""
    path: Path | None = None
    """The job file that is edited."""
    draft: Path | None = None
    """Where the answers are kept while they are given; ``None`` keeps none."""

    def answers(self, first: Answers) -> Answers:
        """Return the preset's answers with what was given beforehand."""
        given = {"model": self.model, "data": self.data}
        return replace(first, **{name: value for name, value in given.items() if value is not None})


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
        assert field != "method" or value in {*METHODS, *KINDS}, value
        assert field != "goal" or value in {*GOALS, *GOAL_WORDS}, value
        answers = replace(self.answers, **{field: value})
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


def stage_of(goal: str) -> Stage:
    """Return the stage that a goal means, said in plain words or by its own name."""
    named: Stage = next((stage for stage in GOAL_WORDS if stage == goal), "sft")
    return GOALS.get(goal, named)


def goal_of(stage: str) -> str:
    """Return the plain words for a stage, or its own name where it has none."""
    return next((goal for goal, meant in GOALS.items() if meant == stage), stage)


def with_settings(settings: str, changes: Mapping[str, str | None]) -> str:
    """Return settings with some of them changed; ``None`` takes one out."""
    kept = {key: value for key, value in settings_of(settings).items() if key not in changes}
    kept |= {key: value for key, value in changes.items() if value is not None}
    return " ".join(shlex.quote(f"{key}={value}") for key, value in kept.items())


def settings_of(settings: str) -> dict[str, str]:
    """Return settings by key; a word without ``=`` has an empty value."""
    pairs = (word.partition("=") for word in words_of(settings))
    return {key: value for key, _, value in pairs}


def words_of(settings: str) -> list[str]:
    """Return settings one by one; quotes hold a value with spaces together."""
    try:
        return shlex.split(settings)
    except ValueError:  # a quote that is not closed yet
        return settings.split()


def suggested_name(answers: Answers) -> str:
    """Return a name for a run of these answers: ``gsm8k-lora``; the demo is ``demo``."""
    if answers.data.startswith("ftwiz:"):
        stem = answers.data.removeprefix("ftwiz:")
        return stem if answers.model == DEMO_MODEL else f"{stem}-{answers.method}"
    stem = PurePath(answers.data).stem
    letters = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in stem)
    words = "-".join(word for word in letters.split("-") if word)
    return f"{words[:48] or 'run'}-{answers.method}"
