"""Kahneman-Tversky optimization: answers that are liked, and answers that are not. Runs TRL's KTOTrainer."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..specs.data import DataSummary, RowShape
from ..specs.job import Job
from ..specs.plan import Strategy
from . import building, chat, common

NAME = "kto"
SHAPES: tuple[RowShape, ...] = ("unpaired",)
CLASSES = common.Classes(module="trl", trainer="KTOTrainer", config="KTOConfig")

LEARNING_RATES: Mapping[str, float] = {"lora": 5e-6, "full": 5e-7}
"""Peak step size by method. Sources: trl 1.16, trl/scripts/kto.py (5e-7); ten times as much for LoRA, as
trl/scripts/dpo.py has it."""
BETA = 0.1
"""Source: trl 1.16 KTOConfig."""
SMALLEST_MICRO_BATCH = 2
"""Its rows are compared with each other: trl 1.16 refuses a batch of one (kto_trainer.py)."""


def trainer_arguments(job: Job, strategy: Strategy, data: DataSummary) -> dict[str, object]:
    """Return the arguments of trl.KTOConfig by name, exactly as they will be passed.

    Raises:
        BadInput: ``train.extra`` sets what the job or the plan decides.
    """
    chosen = job.preference
    own = {
        "max_length": job.train.max_length,
        "beta": BETA if chosen.beta == "auto" else chosen.beta,
        "loss_type": "kto",
        "desirable_weight": chosen.desirable_weight,
        "undesirable_weight": chosen.undesirable_weight,
        "precompute_ref_log_probs": chosen.precompute_reference,
        "disable_dropout": True,
        # Each row is compared with a neighbour that was chosen beforehand.
        "train_sampling_strategy": "sequential",
    }
    return common.arguments(job, strategy, data, own, learning_rates=LEARNING_RATES)


def trainer(parts: building.Parts) -> Any:
    """Return the KTOTrainer with tokenized rows and its reference model, ready to train.

    The trainer takes rows in their order, and in many files all that is liked comes first: they are shuffled
    before, by the job's seed.

    Raises:
        BadInput: The rows cannot be used with this tokenizer.
    """
    chat.fit_template(parts.tokenizer, parts.narrate)
    building.read_reference_like(parts)
    shuffled = building.dataset(parts.train_rows).shuffle(seed=parts.config.seed)
    return building.build(CLASSES, replace(parts, train_rows=shuffled))
