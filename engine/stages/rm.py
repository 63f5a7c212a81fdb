"""A reward model: the model learns to score the chosen answer above the rejected one. TRL's RewardTrainer.

What it leaves is a sequence classification model with one output, or an adapter and a head for one.
"""

from collections.abc import Mapping
from typing import Any

from ..specs.data import DataSummary, RowShape
from ..specs.job import Job
from ..specs.plan import Strategy
from . import building, chat, common

NAME = "rm"
SHAPES: tuple[RowShape, ...] = ("preference",)
CLASSES = common.Classes(module="trl", trainer="RewardTrainer", config="RewardConfig")

LEARNING_RATES: Mapping[str, float] = {"lora": 1e-4, "full": 1e-5}
"""Peak step size by method. Source: trl 1.16, examples/scripts/reward_modeling.py."""


def trainer_arguments(job: Job, strategy: Strategy, data: DataSummary) -> dict[str, object]:
    """Return the arguments of trl.RewardConfig by name, exactly as they will be passed.

    Raises:
        BadInput: ``train.extra`` sets what the job or the plan decides.
    """
    own = {"max_length": job.train.max_length, "disable_dropout": True}
    return common.arguments(job, strategy, data, own, learning_rates=LEARNING_RATES)


def trainer(parts: building.Parts) -> Any:
    """Return the RewardTrainer with tokenized rows; pairs that are longer than ``max_length`` are left out.

    Raises:
        BadInput: The rows cannot be used with this tokenizer.
    """
    chat.fit_template(parts.tokenizer, parts.narrate)
    return building.build(CLASSES, parts, task="SEQ_CLS")
