"""Answers of the wizard -> what is wrong, what was found, the job and its plan. Reads files, writes none."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from ...engine.data import inspect
from ...engine.errors import BadInput, FtwizError
from ...engine.job import LoadedJob, dump_job, model_spec, parse_job
from ...engine.known import known_of
from ...engine.plan import recommend
from ...engine.specs.data import DataSummary
from ...engine.specs.job import DEMO_MODEL, Data, Job, Method, RunOptions
from ...engine.specs.machine import Machine
from ...engine.specs.model import ModelSpec
from ...engine.specs.plan import Plan
from ...engine.stack import installed_stack
from .state import Answers, Field

HELD_OUT_SHARE = 0.02
MIN_ROWS_TO_HOLD_OUT = 50
_EMPTY: Mapping[Field, str] = {
    "model": "type a folder, a model id like Qwen/Qwen3-0.6B, or ftwiz:demo",
    "data": "type the path of a .jsonl, .json or .csv file",
    "name": "type a name",
}
_NAME_LETTERS = "letters, digits, dots, dashes and underscores only, at most 64, a letter or digit first"


@dataclass(frozen=True, kw_only=True, slots=True)
class Review:
    """What answers come to."""

    problems: Mapping[Field, str] = field(default_factory=dict)
    """One line for each answer that cannot be used."""
    model: ModelSpec | None = None
    data: DataSummary | None = None
    job: Job | None = None
    """None as long as there is a problem."""
    plan: Plan | None = None
    plan_problem: str | None = None
    """Why the job cannot be planned on this machine."""

    @property
    def text(self) -> str:
        """The job file, or nothing as long as there is a problem."""
        return dump_job(self.job) if self.job else ""

    @property
    def is_ready(self) -> bool:
        """Whether the job can be written and launched."""
        return self.job is not None and self.plan is not None


class Checker:
    """Checks answers on a machine, starting from a preset; remembers the last data file it looked into."""

    def __init__(self, machine: Machine, preset: LoadedJob) -> None:
        self.machine = machine
        self._preset = preset
        self._seen: tuple[object, DataSummary] | None = None

    @property
    def preset_data(self) -> str:
        """What the preset's data is called on screen: ``ftwiz:demo`` for a file that comes with ftwiz."""
        path, home = Path(self._preset.job.data.paths[0]), self._preset.path.parent
        return f"ftwiz:{self._preset.path.stem}" if path.is_relative_to(home) else str(path)

    def first_answers(self) -> Answers:
        """Return the answers that the preset stands for."""
        job = self._preset.job
        return Answers(
            model=job.model.name_or_path,
            data=self.preset_data,
            method=job.method.kind,
            name=self._preset.name,
        )

    def check(self, answers: Answers) -> Review:
        """Return what the answers come to. Never raises for what a user may type."""
        problems = self._first_problems(answers)
        job = self._job(answers, skip=problems)
        model: ModelSpec | None = None
        summary: DataSummary | None = None
        if "model" not in problems:
            try:
                model = model_spec(job)
            except BadInput as error:
                problems["model"] = _said(error, "model.name_or_path: ")
        if "data" not in problems:
            try:
                summary = self._inspect(job.data, job.stage)
            except BadInput as error:
                problems["data"] = _said(error, "")
        if problems or summary is None:
            return Review(problems=problems, model=model, data=summary)
        if answers.data != self.preset_data:
            job = _holding_out(job, summary)
        try:
            known = known_of(os.environ, self.machine)
            plan = recommend(job, model, self.machine, stack=installed_stack(), measured=known)
        except FtwizError as error:
            return Review(model=model, data=summary, job=job, plan_problem=error.message)
        return Review(model=model, data=summary, job=job, plan=plan)

    def _first_problems(self, answers: Answers) -> dict[Field, str]:
        """Return what can be said without looking at a file."""
        problems: dict[Field, str] = {}
        for name, words in _EMPTY.items():
            value: str = getattr(answers, name)
            if not value.strip():
                problems[name] = words
            elif not value.isprintable():
                problems[name] = "holds a character that cannot be shown"
        if "name" not in problems:
            try:
                RunOptions(name=answers.name)
            except ValidationError:
                problems["name"] = _NAME_LETTERS
        return problems

    def _job(self, answers: Answers, *, skip: Mapping[Field, str]) -> Job:
        """Return the preset's job with the answers in it, but for those to skip."""
        job = self._base(answers)
        overrides = {"model.name_or_path": answers.model.strip(), "method.kind": answers.method}
        if "model" in skip:
            del overrides["model.name_or_path"]
        if "data" not in skip and answers.data != self.preset_data:
            overrides["data.path"] = answers.data.strip()
        if "name" not in skip:
            overrides["run.name"] = answers.name
        words = [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
        return parse_job(dump_job(job), name="wizard", base=Path.cwd(), overrides=words).job

    def _base(self, answers: Answers) -> Job:
        """Return the job to start from: the preset's values hold for what the preset is about."""
        job = self._preset.job
        if answers.data != self.preset_data:
            job = job.model_copy(update={"data": Data(path=job.data.path)})
        if job.model.name_or_path == DEMO_MODEL != answers.model.strip():
            return Job(model=job.model, data=job.data)  # what suits a tiny model suits no other
        if answers.method != job.method.kind:  # a learning rate is right for one method only
            train = job.train.model_copy(update={"learning_rate": "auto"})
            job = job.model_copy(update={"method": Method(kind=answers.method), "train": train})
        return job

    def _inspect(self, data: Data, stage: str) -> DataSummary:
        files = [path.stat() for name in data.paths if (path := Path(name)).is_file()]
        key = (stage, data.model_dump_json(), [(status.st_mtime_ns, status.st_size) for status in files])
        if self._seen is None or self._seen[0] != key:
            self._seen = (key, inspect(data, stage=stage))
        return self._seen[1]


def _holding_out(job: Job, summary: DataSummary) -> Job:
    """Hold a few rows out, so that the run can show what the model learned."""
    is_large = summary.num_rows is None or summary.num_rows >= MIN_ROWS_TO_HOLD_OUT
    if not is_large or job.data.eval_path or job.data.eval_fraction:
        return job
    return job.model_copy(update={"data": job.data.model_copy(update={"eval_fraction": HELD_OUT_SHARE})})


def _said(error: FtwizError, prefix: str) -> str:
    message = error.message.removeprefix(prefix)
    home = f"{Path.cwd()}/"
    return message.replace(home, "")
