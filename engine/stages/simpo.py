"""Simple preference optimization: the mean log-probability of an answer is its reward, no reference model.

Runs the CPOTrainer of trl.experimental, which knows SimPO as a loss.
"""

from collections.abc import Mapping
from typing import Any

from ..specs.data import DataSummary, RowShape
from ..specs.job import Job
from ..specs.plan import Strategy
from . import building, chat, common

NAME = "simpo"
SHAPES: tuple[RowShape, ...] = ("preference",)
CLASSES = common.Classes(module="trl.experimental.cpo", trainer="CPOTrainer", config="CPOConfig")

LEARNING_RATES: Mapping[str, float] = {"lora": 1e-5, "full": 1e-6}
"""Peak step size by method. Sources: SimPO, arXiv 2405.14734, appendix B (1e-6); ten times as much for LoRA,
as trl's examples/scripts/cpo.py has it."""
BETA = 2.0
"""Source: SimPO, arXiv 2405.14734, appendix B (2.0 to 2.5). trl's 0.1 is that of another loss."""


def trainer_arguments(job: Job, strategy: Strategy, data: DataSummary) -> dict[str, object]:
    """Return the arguments of trl.experimental.cpo.CPOConfig by name, exactly as they will be passed.

    Raises:
        BadInput: ``train.extra`` sets what the job or the plan decides.
    """
    chosen = job.preference
    own = {
        "max_length": job.train.max_length,
        "loss_type": "simpo",
        "beta": BETA if chosen.beta == "auto" else chosen.beta,
        "simpo_gamma": chosen.simpo_gamma,
        "cpo_alpha": chosen.sft_weight,
        "label_smoothing": 0.0,
        "disable_dropout": True,
        "remove_unused_columns": False,
        "include_num_input_tokens_seen": "no",  # its batches have other names: counted by count_pairs
    }
    return common.arguments(job, strategy, data, own, learning_rates=LEARNING_RATES)


def trainer(parts: building.Parts) -> Any:
    """Return the CPOTrainer with tokenized pairs, ready to train.

    Raises:
        BadInput: The rows cannot be used with this tokenizer.
    """
    chat.fit_template(parts.tokenizer, parts.narrate)
    return building.count_pairs(building.build(CLASSES, parts))
