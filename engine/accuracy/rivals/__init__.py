"""Other estimators on the same rows, each where it claims to apply; formulas are re-expressed.

A rival returns bytes of one device, or ``None`` where it does not apply.
"""

from collections.abc import Callable
from typing import NamedTuple

from ..case import Case
from . import fitcheck, formulas


class Rival(NamedTuple):
    """Another estimator."""

    name: str
    predict: Callable[[Case], int | None]
    source: str
    applies: str
    """Where it claims to apply, as rows are chosen."""


RIVALS = (
    Rival(
        "fitcheck-llm 0.3.1",
        fitcheck.predict,
        "the package itself",
        "one device; LoRA on the usual linear layers, QLoRA (NF4, int8), full fine-tuning",
    ),
    Rival(
        "accelerate estimate-memory",
        formulas.accelerate,
        "accelerate 1.15.0, commands/estimate.py, estimate_training_usage",
        "one device, full fine-tuning",
    ),
    Rival(
        "DeepSpeed estimate_zero2/3",
        formulas.deepspeed,
        "deepspeed 0.19.8, estimate_zero{2,3}_model_states_mem_needs",
        "full fine-tuning with ZeRO-2 or 3",
    ),
    Rival(
        "EleutherAI cookbook",
        formulas.cookbook,
        "EleutherAI/cookbook, calc/calc_transformer_mem.py",
        "full fine-tuning, with ZeRO stages (FSDP counted as stage 3)",
    ),
    Rival(
        "LLaMA-Factory's table",
        formulas.llama_factory,
        "hiyouga/LLaMA-Factory, README, hardware requirement: GB per billion parameters",
        "one device: full fine-tuning, LoRA, 8-, 4- and 2-bit QLoRA",
    ),
)
