"""Supervised fine-tuning: the model learns to give the answers in the data. Runs TRL's SFTTrainer."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..specs.data import DataSummary, RowShape
from ..specs.job import Job
from ..specs.plan import Strategy
from . import building, chat, common

NAME = "sft"
SHAPES: tuple[RowShape, ...] = ("messages", "prompt_completion", "text")
CLASSES = common.Classes(module="trl", trainer="SFTTrainer", config="SFTConfig")

LEARNING_RATES: Mapping[str, float] = {"lora": 2e-4, "full": 2e-5}
"""Peak step size by method. Sources: QLoRA, arXiv 2305.14314, table 9 (2e-4); trl 1.16 SFTConfig (2e-5)."""


def trainer_arguments(job: Job, strategy: Strategy, data: DataSummary) -> dict[str, object]:
    """Return the arguments of trl.SFTConfig by name, exactly as they will be passed.

    Raises:
        BadInput: ``train.extra`` sets what the job or the plan decides.
    """
    answers_only = job.train.assistant_only_loss
    own = {
        "max_length": job.train.max_length,
        "packing": job.train.packing,
        # The trainer's two words for "learn the answers only": one for each layout of a row.
        "completion_only_loss": answers_only and data.shape == "prompt_completion",
        "assistant_only_loss": answers_only and data.shape == "messages",
    }
    return common.arguments(job, strategy, data, own, learning_rates=LEARNING_RATES)


def trainer(parts: building.Parts) -> Any:
    """Return the SFTTrainer with tokenized rows, ready to train.

    Raises:
        BadInput: The rows cannot be used with this tokenizer.
    """
    return building.build(CLASSES, _fit(parts))


def _fit(parts: building.Parts) -> building.Parts:
    config, tokenizer = parts.config, parts.tokenizer
    if "text" in parts.train_rows[0]:
        return parts
    chat.fit_template(tokenizer, parts.narrate)
    if not config.assistant_only_loss or chat.marks_answers(tokenizer):
        return parts
    config.assistant_only_loss, config.completion_only_loss = False, True
    train_rows, eval_rows = chat.split_answers(parts.train_rows), chat.split_answers(parts.eval_rows)
    parts.narrate(f"the chat template does not mark answers: one row for each of {len(train_rows)} answers")
    return replace(parts, train_rows=train_rows, eval_rows=eval_rows)
