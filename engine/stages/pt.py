"""Pre-training: the model learns text as it is, in sequences that are full. Runs TRL's SFTTrainer."""

from typing import Any

from ..specs.data import DataSummary, RowShape
from ..specs.job import Job
from ..specs.plan import Strategy
from . import building, common, sft

NAME = "pt"
SHAPES: tuple[RowShape, ...] = ("text",)
CLASSES = sft.CLASSES
LEARNING_RATES = sft.LEARNING_RATES


def trainer_arguments(job: Job, strategy: Strategy, data: DataSummary) -> dict[str, object]:
    """Return the arguments of trl.SFTConfig by name, exactly as they will be passed.

    Texts stand one after another, each with its end token, and are cut into sequences of ``max_length``: none
    is padded, and no kernel is needed that keeps texts apart.

    Raises:
        BadInput: ``train.extra`` sets what the job or the plan decides.
    """
    own = {
        "max_length": job.train.max_length,
        "packing": True,
        "packing_strategy": "wrapped",
        "completion_only_loss": False,
        "assistant_only_loss": False,
    }
    return common.arguments(job, strategy, data, own, learning_rates=LEARNING_RATES)


def trainer(parts: building.Parts) -> Any:
    """Return the SFTTrainer with packed rows, ready to train.

    Raises:
        BadInput: The rows cannot be used with this tokenizer.
    """
    return building.build(CLASSES, parts)
