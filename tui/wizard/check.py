"""Answers of the wizard -> what is wrong, what was found, the job and its plan. Reads files, writes none."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from ...engine.data import inspect
from ...engine.data.purposes import ROWS_ARE
from ...engine.errors import BadInput, FtwizError
from ...engine.job import LoadedJob, Source, dump_job, model_spec, parse_job
from ...engine.known import known_of
from ...engine.memory.host import DataVolume
from ...engine.plan import recommend
from ...engine.prepare import Prepared, render
from ...engine.specs.data import DataSummary
from ...engine.specs.job import DEMO_MODEL, Data, Job, Method, PlanPins, RunOptions
from ...engine.specs.machine import Machine
from ...engine.specs.model import ModelSpec
from ...engine.specs.plan import Plan
from ...engine.stack import installed_stack
from .state import GOALS, Answers, Field, goal_of, words_of

HELD_OUT_SHARE = 0.02
MIN_ROWS_TO_HOLD_OUT = 50
MOST_PLANS = 200
MOST_SEEN = 50
"""Plans and looks at data that are remembered; then it begins anew."""
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
    """Also of a job that does not fit: what comes nearest."""
    plan_problem: str | None = None
    """Why the job cannot be launched on this machine."""

    @property
    def text(self) -> str:
        """The job file, or nothing as long as there is a problem."""
        return dump_job(self.job) if self.job else ""

    @property
    def is_ready(self) -> bool:
        """Whether the job can be written and launched."""
        return self.job is not None and self.plan is not None and self.plan_problem is None


class Checker:
    """Checks answers on a machine, starting from a preset; remembers what it saw and planned."""

    def __init__(self, machine: Machine, preset: LoadedJob) -> None:
        self.machine = machine
        self._preset = preset
        self._seen: dict[object, DataSummary | BadInput] = {}
        self._plans: dict[object, Plan] = {}
        self._stack = installed_stack()
        self._known = known_of(os.environ, machine)

    @property
    def preset_data(self) -> str:
        """What the preset's data is called on screen: ``ftwiz:demo`` for a file that comes with ftwiz."""
        path = ", ".join(self._preset.job.data.paths)
        is_embedded = self._preset.sources.get("data.path") is Source.PRESET
        return f"ftwiz:{self._preset.path.stem}" if is_embedded else path

    @property
    def preset_pins(self) -> PlanPins:
        """What the preset pins."""
        return self._preset.job.plan

    def first_answers(self) -> Answers:
        """Return the answers that the preset stands for."""
        job = self._preset.job
        return Answers(
            model=job.model.name_or_path,
            data=self.preset_data,
            goal=goal_of(job.stage),
            method=_method(job),
            name=self._preset.name,
        )

    def check(self, answers: Answers) -> Review:
        """Return what the answers come to. Never raises for what a user may type."""
        problems = self._first_problems(answers)
        job = self._job(answers, problems)
        model: ModelSpec | None = None
        summary: DataSummary | None = None
        if "model" not in problems:
            try:
                model = model_spec(job)
            except BadInput as error:
                problems["model"] = _said(error, "model.name_or_path: ")
        if "data" not in problems:
            summary = self._look(job, problems)
        if problems or summary is None:
            return Review(problems=problems, model=model, data=summary)
        if answers.data != self.preset_data:
            job = _holding_out(job, summary)
        return self._planned(Review(model=model, data=summary, job=job))

    def prepared(self, review: Review) -> Prepared:
        """Render every file of a run; write none.

        Raises:
            FtwizError: It cannot be.
        """
        job = review.job
        assert job is not None
        assert review.plan is not None
        assert review.data is not None
        name = job.run.name or self._preset.name
        loaded = LoadedJob(job=job, sources={}, path=Path.cwd() / f"{name}.yaml", name=name)
        python = sys.executable
        return render(loaded, self.machine, review.plan, review.data, model=review.model, python=python)

    def _look(self, job: Job, problems: dict[Field, str]) -> DataSummary | None:
        """Say what the data is; rows that are for another goal are no fault of the data."""
        try:
            return self._inspect(job.data, job.stage)
        except BadInput as error:
            found = self._for_another_goal(job)
            if found is None:
                problems["data"] = _said(error, "")
                return None
        goal, summary = found
        problems["goal"] = f"these rows are {ROWS_ARE[summary.shape]}: choose {goal}, or other data"
        return summary

    def _for_another_goal(self, job: Job) -> tuple[str, DataSummary] | None:
        for goal, stage in GOALS.items():
            if stage != job.stage:
                try:
                    return goal, self._inspect(job.data, stage)
                except BadInput:
                    continue
        return None

    def _planned(self, review: Review) -> Review:
        """Plan a job; one that does not fit is planned all the same, so that what it takes can be shown."""
        job, data = review.job, review.data
        assert job is not None
        assert data is not None
        whatever = job.plan.model_copy(update={"ignore_estimate": True})
        try:
            plan = self._recommended(job.model_copy(update={"plan": whatever}), review.model, data)
        except FtwizError as error:
            hint = f" ({error.hint})" if error.hint else ""
            return replace(review, plan_problem=f"{error.message}{hint}")
        problem = None
        if plan.verdict and plan.verdict.word == "no" and not job.plan.ignore_estimate:
            problem = f"does not fit: {plan.verdict.text}"
        return replace(review, plan=plan, plan_problem=problem)

    def _recommended(self, job: Job, model: ModelSpec | None, data: DataSummary) -> Plan:
        """Plan a job, or remember it: a key that changes nothing of it, such as its name, costs nothing."""
        bare = job.model_copy(update={"run": RunOptions()})
        key = (bare.model_dump_json(), model)
        if key not in self._plans:
            if len(self._plans) >= MOST_PLANS:
                self._plans.clear()
            files = [Path(path) for path in data.paths]
            size = sum(file.stat().st_size for file in files if file.is_file()) or None
            self._plans[key] = recommend(
                job,
                model,
                self.machine,
                stack=self._stack,
                measured=self._known,
                data=DataVolume(raw_bytes=size),
            )
        return self._plans[key]

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

    def _job(self, answers: Answers, problems: dict[Field, str]) -> Job:
        """Return the preset's job with the answers in it, but for those that cannot be used."""
        text, words = dump_job(self._base(answers)), self._overrides(answers, skip=problems)
        try:
            return self._parsed(text, [*words, *words_of(answers.settings)])
        except BadInput as error:
            said = _said(error, "--set ")
        try:
            job = self._parsed(text, words)
        except BadInput as error:
            problems["goal"] = _said(error, "--set stage: ")
            rest = self._overrides(answers, skip={**problems, "goal": ""})
            return self._parsed(dump_job(self._base(replace(answers, goal=self.first_answers().goal))), rest)
        problems["settings"] = said
        return job

    def _parsed(self, text: str, overrides: list[str]) -> Job:
        return parse_job(text, name="wizard", base=Path.cwd(), overrides=overrides).job

    def _overrides(self, answers: Answers, *, skip: Mapping[Field, str]) -> list[str]:
        overrides: dict[str, str] = {}
        if "model" not in skip:
            overrides["model.name_or_path"] = answers.model.strip()
        if "goal" not in skip:
            overrides["stage"] = answers.stage
        if "data" not in skip and answers.data != self.preset_data:
            overrides["data.path"] = answers.data.strip()
        if "name" not in skip:
            overrides["run.name"] = answers.name
        return [f"{key}={json.dumps(value)}" for key, value in overrides.items()]

    def _base(self, answers: Answers) -> Job:
        """Return the job to start from: the preset's values hold for what the preset is about."""
        job = self._preset.job
        if answers.data != self.preset_data:
            job = job.model_copy(update={"data": Data(path=job.data.path)})
        if job.model.name_or_path == DEMO_MODEL != answers.model.strip():
            # What suits a tiny model suits no other.
            return Job(model=job.model, data=job.data, **_method_parts(answers.method, PlanPins()))
        train = job.train.model_copy(update={"learning_rate": "auto"})
        if answers.stage != job.stage:  # nor what suits one kind of training another
            job = Job(
                model=job.model, data=job.data, method=job.method, train=train, plan=job.plan, run=job.run
            )
        if answers.method != _method(job):  # a learning rate is right for one method only
            job = job.model_copy(update={**_method_parts(answers.method, job.plan), "train": train})
        return job

    def _inspect(self, data: Data, stage: str) -> DataSummary:
        files = [path.stat() for name in data.paths if (path := Path(name)).is_file()]
        stamps = tuple((status.st_mtime_ns, status.st_size) for status in files)
        key = (stage, data.model_dump_json(), stamps)
        if key not in self._seen:
            if len(self._seen) >= MOST_SEEN:
                self._seen.clear()
            try:
                self._seen[key] = inspect(data, stage=stage)
            except BadInput as error:
                self._seen[key] = error
        found = self._seen[key]
        if isinstance(found, BadInput):
            raise found
        return found


def _method(job: Job) -> str:
    if not job.method.adds_weights:
        return "full"
    return "qlora" if job.plan.quantization == "nf4" else "lora"


def _method_parts(method: str, pins: PlanPins) -> dict[str, Any]:
    """Return the sections of a job that a method decides."""
    packing: Literal["auto", "nf4"] = "nf4" if method == "qlora" else "auto"
    return {
        "method": Method.model_validate({"kind": "lora" if method == "qlora" else method}),
        "plan": pins.model_copy(update={"quantization": packing}),
    }


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
