"""What each kind of training costs and which trainer runs it: one file per stage."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from ..errors import BadInput
from ..specs.data import DataSummary
from ..specs.job import Job
from ..specs.plan import Strategy
from . import building, dpo, grpo, kto, orpo, pt, rloo, rm, rules, sft, simpo
from .building import Parts
from .rules import Problem, problems, smallest_micro_batch
from .trainfile import render

STAGES: tuple[ModuleType, ...] = (pt, sft, rm, dpo, kto, orpo, simpo, grpo, rloo)
"""A stage has ``NAME``, ``SHAPES`` (of rows that it takes, the preferred first), ``CLASSES``,
``LEARNING_RATES``, ``trainer_arguments`` and ``trainer``; only the last may import the training stack."""


def stage(name: str) -> ModuleType:
    """Return the stage called ``name``, which the job's validation has let through."""
    return next(module for module in STAGES if name == module.NAME)


def train_file(job: Job, strategy: Strategy, data: DataSummary) -> str:
    """Return the text of train.yaml: everything that the worker reads besides the plan.

    Raises:
        BadInput: ``train.extra`` sets what the job or the plan decides, or keys contradict the stage.
    """
    for problem in problems(job):
        raise BadInput(f"{problem.key}: {problem.text}", hint=problem.hint)
    chosen = stage(job.stage)
    arguments = chosen.trainer_arguments(job, strategy, data)
    return render(job, strategy, data, arguments, config=chosen.CLASSES.shown_config)


def check_arguments(name: str, arguments: Mapping[str, object]) -> Any:
    """Return the configuration of a stage's trainer; imports trl.

    Raises:
        BadInput: A name is unknown to the installed trainer, or a value is refused by it.
    """
    return building.check_arguments(stage(name).CLASSES, arguments)


__all__ = [
    "STAGES",
    "Parts",
    "Problem",
    "check_arguments",
    "problems",
    "rules",
    "smallest_micro_batch",
    "stage",
    "train_file",
]
