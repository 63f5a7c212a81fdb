"""Group relative policy optimization: sampled answers are rewarded and compared in groups.

Runs TRL's GRPOTrainer.
"""

from collections.abc import Mapping
from typing import Any

from ..specs.data import DataSummary, RowShape
from ..specs.job import Job
from ..specs.plan import Strategy
from . import building, common, sampling

NAME = "grpo"
SHAPES: tuple[RowShape, ...] = ("prompt_only",)
CLASSES = common.Classes(module="trl", trainer="GRPOTrainer", config="GRPOConfig")

LEARNING_RATES: Mapping[str, float] = {"lora": 1e-5, "full": 1e-6}
"""Peak step size by method. Sources: DeepSeekMath, arXiv 2402.03300, section 4.2, and trl 1.16 GRPOConfig
(1e-6); ten times as much for LoRA: "LoRA Without Regret", Thinking Machines 2025."""
BETA = 0.0
"""Source: trl 1.16 GRPOConfig."""


def trainer_arguments(job: Job, strategy: Strategy, data: DataSummary) -> dict[str, object]:
    """Return the arguments of trl.GRPOConfig by name, exactly as they will be passed.

    Raises:
        BadInput: ``train.extra`` sets what the job or the plan decides.
    """
    chosen = job.rollout
    own = {
        **sampling.arguments(job, strategy, beta=BETA),
        "loss_type": chosen.loss_type,
        "scale_rewards": "group" if chosen.scale_rewards == "auto" else chosen.scale_rewards,
        "use_vllm": False,
    }
    return common.arguments(job, strategy, data, own, learning_rates=LEARNING_RATES)


def trainer(parts: building.Parts) -> Any:
    """Return the GRPOTrainer with its prompts and rewards, ready to train.

    Raises:
        BadInput: The prompts cannot be used with this tokenizer, or a reward cannot be had.
    """
    return sampling.trainer(CLASSES, parts)
