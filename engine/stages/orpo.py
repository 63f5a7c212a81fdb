"""Odds ratio preference optimization: answers and preferences in one step, without a reference model.

Runs the ORPOTrainer of trl.experimental.
"""

from collections.abc import Mapping
from typing import Any

from ..specs.data import DataSummary, RowShape
from ..specs.job import Job
from ..specs.plan import Strategy
from . import building, chat, common

NAME = "orpo"
SHAPES: tuple[RowShape, ...] = ("preference",)
CLASSES = common.Classes(module="trl.experimental.orpo", trainer="ORPOTrainer", config="ORPOConfig")

LEARNING_RATES: Mapping[str, float] = {"lora": 8e-5, "full": 8e-6}
"""Peak step size by method. Source: trl, examples/scripts/orpo.py."""
BETA = 0.1
"""Source: trl 1.16 ORPOConfig."""


def trainer_arguments(job: Job, strategy: Strategy, data: DataSummary) -> dict[str, object]:
    """Return the arguments of trl.experimental.orpo.ORPOConfig by name, exactly as they will be passed.

    Raises:
        BadInput: ``train.extra`` sets what the job or the plan decides.
    """
    beta = job.preference.beta
    own = {
        "max_length": job.train.max_length,
        "beta": BETA if beta == "auto" else beta,
        "disable_dropout": True,
        "remove_unused_columns": False,
        "include_num_input_tokens_seen": "no",  # its batches have other names: counted by count_pairs
    }
    return common.arguments(job, strategy, data, own, learning_rates=LEARNING_RATES)


def trainer(parts: building.Parts) -> Any:
    """Return the ORPOTrainer with tokenized pairs, ready to train.

    Raises:
        BadInput: The rows cannot be used with this tokenizer.
    """
    chat.fit_template(parts.tokenizer, parts.narrate)
    return building.count_pairs(building.build(CLASSES, parts))
