"""REINFORCE leave one out: a sampled answer is held against the others to its prompt. TRL's RLOOTrainer."""

from collections.abc import Mapping
from typing import Any

from ..specs.data import DataSummary, RowShape
from ..specs.job import Job
from ..specs.plan import Strategy
from . import building, common, sampling

NAME = "rloo"
SHAPES: tuple[RowShape, ...] = ("prompt_only",)
CLASSES = common.Classes(module="trl", trainer="RLOOTrainer", config="RLOOConfig")

LEARNING_RATES: Mapping[str, float] = {"lora": 1e-5, "full": 1e-6}
"""Peak step size by method. Sources: trl 1.16 RLOOConfig (1e-6); ten times as much for LoRA: "LoRA Without
Regret", Thinking Machines 2025."""
BETA = 0.05
"""Source: trl 1.16 RLOOConfig."""


def trainer_arguments(job: Job, strategy: Strategy, data: DataSummary) -> dict[str, object]:
    """Return the arguments of trl.RLOOConfig by name, exactly as they will be passed.

    Raises:
        BadInput: ``train.extra`` sets what the job or the plan decides.
    """
    own = {
        **sampling.arguments(job, strategy, beta=BETA),
        "normalize_advantages": job.rollout.scale_rewards == "batch",
        "use_vllm": False,
    }
    return common.arguments(job, strategy, data, own, learning_rates=LEARNING_RATES)


def trainer(parts: building.Parts) -> Any:
    """Return the RLOOTrainer with its prompts and rewards, ready to train.

    Raises:
        BadInput: The prompts cannot be used with this tokenizer, or a reward cannot be had.
    """
    return sampling.trainer(CLASSES, parts)
