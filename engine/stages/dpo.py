"""Direct preference optimization: pairs are learned against the model as it was. Runs TRL's DPOTrainer."""

from collections.abc import Mapping
from typing import Any

from ..specs.data import DataSummary, RowShape
from ..specs.job import Job
from ..specs.plan import Strategy
from . import building, chat, common

NAME = "dpo"
SHAPES: tuple[RowShape, ...] = ("preference",)
CLASSES = common.Classes(module="trl", trainer="DPOTrainer", config="DPOConfig")

LEARNING_RATES: Mapping[str, float] = {"lora": 5e-6, "full": 5e-7}
"""Peak step size by method. Source: trl 1.16, trl/scripts/dpo.py."""
BETA = 0.1
"""Source: DPO, arXiv 2305.18290, appendix B; trl 1.16 DPOConfig."""


def trainer_arguments(job: Job, strategy: Strategy, data: DataSummary) -> dict[str, object]:
    """Return the arguments of trl.DPOConfig by name, exactly as they will be passed.

    Raises:
        BadInput: ``train.extra`` sets what the job or the plan decides.
    """
    chosen = job.preference
    losses: list[str] = [chosen.loss_type]
    weights = [1.0]
    if chosen.sft_weight:
        losses, weights = [*losses, "sft"], [*weights, chosen.sft_weight]
    own = {
        "max_length": job.train.max_length,
        "beta": BETA if chosen.beta == "auto" else chosen.beta,
        "loss_type": losses,
        "loss_weights": weights,
        "label_smoothing": chosen.label_smoothing,
        "precompute_ref_log_probs": chosen.precompute_reference,
        "disable_dropout": True,
    }
    return common.arguments(job, strategy, data, own, learning_rates=LEARNING_RATES)


def trainer(parts: building.Parts) -> Any:
    """Return the DPOTrainer with tokenized pairs and its reference model, ready to train.

    Raises:
        BadInput: The rows cannot be used with this tokenizer.
    """
    chat.fit_template(parts.tokenizer, parts.narrate)
    building.read_reference_like(parts)
    return building.build(CLASSES, parts)
