"""What each kind of training costs and which trainer runs it: one file per stage."""

from types import ModuleType

from ..specs.data import DataSummary
from ..specs.job import Job
from ..specs.plan import Strategy
from . import sft
from .trainfile import render

STAGES: tuple[ModuleType, ...] = (sft,)
"""A stage has ``NAME``, ``trainer_arguments``, ``check_arguments`` and ``trainer``; only the last two may
import the training stack."""


def stage(name: str) -> ModuleType:
    """Return the stage called ``name``, which the job's validation has let through."""
    return next(module for module in STAGES if name == module.NAME)


def train_file(job: Job, strategy: Strategy, data: DataSummary) -> str:
    """Return the text of train.yaml: everything that the worker reads besides the plan.

    Raises:
        BadInput: ``train.extra`` sets what the job or the plan decides.
    """
    return render(job, strategy, data, stage(job.stage).trainer_arguments(job, strategy, data))


__all__ = ["STAGES", "stage", "train_file"]
