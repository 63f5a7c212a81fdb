"""What a method or an optimizer asks of a rank besides peft's configuration: packages, LoRA+, PiSSA's return.

PiSSA takes the largest part out of the model's weights and trains it. Its adapter would fit only a model with
the same part taken out, so the finished one is turned to a plain LoRA, of twice the rank, for the model as it
was (peft 0.21.2, ``subtract_mutated_init``).
"""

import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import Refused
from ..specs.optimizers import PACKAGES
from .ranks import Group

_BEGINNING = "pissa-beginning"
"""Folder in the run's with the adapter as it began."""


def check_installed(optimizer: str) -> None:
    """Fail before anything is loaded when the optimizer's package is missing.

    Raises:
        Refused: It is not installed.
    """
    package = PACKAGES.get(optimizer)
    if package is not None and find_spec(package.module) is None:
        raise Refused(
            f"train.optim {optimizer} needs {package.module}, which this Python does not have",
            hint=f"{package.install}, or take adamw_torch_fused",
        )


def settle(trainer: Any, method: Mapping[str, Any], group: Group, folder: Path) -> None:
    """Give the trainer what peft's configuration cannot say. To be called before a checkpoint is read.

    Args:
        trainer: As the stage has built it.
        method: The section ``method`` of train.yaml.
        group: All ranks.
        folder: The run's.
    """
    ratio = method.get("loraplus_lr_ratio")
    if ratio is not None:
        _learn_at_two_rates(trainer, ratio)
    if _is_pissa(method) and group.rank.is_first:
        model = trainer.model
        config = model.peft_config["default"]
        named = config.init_lora_weights
        config.init_lora_weights = True  # it is read back as it is, not taken out of the weights again
        model.save_pretrained(str(folder / _BEGINNING))
        config.init_lora_weights = named


def finish(trainer: Any, method: Mapping[str, Any], group: Group, folder: Path, *, saved: Path) -> None:
    """Turn a finished adapter to one that fits the model as it was.

    Args:
        trainer: After training.
        method: The section ``method`` of train.yaml.
        group: All ranks.
        folder: The run's.
        saved: Where the adapter is.
    """
    if not _is_pissa(method) or not group.rank.is_first:
        return
    beginning = folder / _BEGINNING
    trainer.model.save_pretrained(str(saved), path_initial_model_for_weight_conversion=str(beginning))
    shutil.rmtree(beginning)


def _is_pissa(method: Mapping[str, Any]) -> bool:
    return str(method.get("init_lora_weights")).startswith("pissa")


def _learn_at_two_rates(trainer: Any, ratio: float) -> None:
    """Have the trainer make peft's optimizer of LoRA+ (arXiv 2402.12354) around the one of train.optim."""
    from peft.optimizers import create_loraplus_optimizer

    def create_optimizer(model: Any = None) -> Any:
        if trainer.optimizer is None:
            chosen = trainer.model if model is None else model
            optimizer, arguments = trainer.get_optimizer_cls_and_kwargs(trainer.args, chosen)
            trainer.optimizer = create_loraplus_optimizer(
                chosen,
                optimizer,
                loraplus_lr_ratio=ratio,
                loraplus_weight_decay=trainer.args.weight_decay,
                **arguments,
            )
        return trainer.optimizer

    trainer.create_optimizer = create_optimizer
