"""Builds trainers. Its functions import the training stack when they are called; the worker calls them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from ..errors import BadInput
from . import chat, freezing, methods
from .common import Classes


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """What a trainer is made of."""

    config: Any
    """What ``check_arguments`` returned."""
    model: Any
    """With the head that the stage names."""
    tokenizer: Any
    """Of the model; given a plain chat template when it has none and the rows are chats."""
    method: Mapping[str, Any]
    """The section ``method`` of train.yaml."""
    train_rows: Sequence[chat.Row]
    """In one of the stage's shapes."""
    eval_rows: Sequence[chat.Row]
    """Held-out rows of the same shape; may be empty."""
    callbacks: Sequence[Any]
    narrate: Callable[[str], None]
    """Told in a sentence what is done."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """The section ``model`` of train.yaml: where trainers read a reference model from."""
    rollout: Mapping[str, Any] = field(default_factory=dict)
    """The section ``rollout`` of train.yaml, of stages that sample."""


def check_arguments(classes: Classes, arguments: Mapping[str, object]) -> Any:
    """Return the trainer's configuration; imports trl.

    Raises:
        BadInput: A name is unknown to the installed trainer, or a value is refused by it.
    """
    config = _found(classes, classes.config)
    known = [one.name for one in fields(config) if one.init]
    for name in arguments:
        if name not in known:
            nearest = get_close_matches(name, known, n=1)
            hint = (
                f"did you mean {nearest[0]!r}?" if nearest else f"see the arguments of {classes.shown_config}"
            )
            raise BadInput(f"train.extra: the installed trl has no trainer argument {name!r}", hint=hint)
    try:
        return config(**arguments)
    except (ValueError, TypeError, ImportError) as error:
        raise BadInput(f"the trainer refuses its arguments: {first_line(error)}") from error


def build(classes: Classes, parts: Parts, *, task: str = "CAUSAL_LM", **more: Any) -> Any:
    """Return the trainer with tokenized rows, ready to train.

    Args:
        classes: Which trainer.
        parts: What it is made of; its rows become the data sets.
        task: What peft calls the kind of model.
        more: Further arguments of this trainer.

    Raises:
        BadInput: The rows cannot be used with this tokenizer.
    """
    from jinja2 import TemplateError

    chat.check_tools(parts.tokenizer, parts.train_rows)
    parts.narrate(f"tokenizing {len(parts.train_rows) + len(parts.eval_rows)} rows")
    try:
        built = _found(classes, classes.trainer)(
            model=parts.model,
            args=parts.config,
            train_dataset=dataset(parts.train_rows),
            eval_dataset=dataset(parts.eval_rows) if parts.eval_rows else None,
            processing_class=parts.tokenizer,
            peft_config=_prepared(parts, task),
            callbacks=list(parts.callbacks),
            **more,
        )
    except TemplateError as error:
        raise BadInput(
            f"the model's chat template refuses a conversation: {first_line(error)}",
            hint="change the roles in the data (data.system adds a system message), or take another model",
        ) from error
    except ValueError as error:
        raise BadInput(f"the trainer refuses: {first_line(error)}") from error
    if len(built.train_dataset) == 0:
        raise BadInput(
            f"no answer is left within train.max_length {getattr(parts.config, 'max_length', '')}",
            hint="raise train.max_length above the length of the questions",
        )
    return built


def dataset(rows: Sequence[chat.Row]) -> Any:
    """Return rows as a data set that changes none of them.

    A table has one type for each column: without ``use_json`` it would give every call of a tool the
    arguments of all others, as nulls, and refuse a column of numbers here and text there (datasets 5.2).
    """
    from datasets import Dataset

    return Dataset.from_list(list(rows), on_mixed_types="use_json")


def read_reference_like(parts: Parts) -> None:
    """Have the trainer read its reference model as the model was read.

    trl 1.16 reads it by the model's own name (dpo_trainer.py, ``get_config_model_id``), and otherwise would
    take the newest revision.
    """
    revision = parts.source.get("revision")
    if revision is not None and parts.method["kind"] not in methods.CONFIGS:
        parts.config.model_init_kwargs = {"revision": revision}
    parts.config.trust_remote_code = bool(parts.source.get("trust_remote_code"))


def count_pairs(trainer: Any) -> Any:
    """Have a trainer of trl.experimental count what it trains on, as transformers does for all others.

    Its batches name their tokens ``chosen_input_ids`` and ``rejected_input_ids``, which transformers 5.23
    does not look for (trainer.py, ``_track_num_input_tokens``).
    """
    inner = trainer.training_step

    def training_step(model: Any, inputs: Any, *arguments: Any, **named: Any) -> Any:
        tokens = inputs["chosen_attention_mask"].sum() + inputs["rejected_attention_mask"].sum()
        trainer.state.num_input_tokens_seen += int(trainer.accelerator.gather(tokens).sum())
        return inner(model, inputs, *arguments, **named)

    trainer.training_step = training_step
    return trainer


def adapter(method: Mapping[str, Any], task: str) -> Any:
    """Return the configuration of the adapter, or ``None`` when every weight is trained."""
    if method["kind"] not in methods.CONFIGS:
        return None
    import peft

    arguments = {name: value for name, value in method.items() if name not in methods.NOT_PEFTS}
    return getattr(peft, methods.CONFIGS[method["kind"]])(task_type=task, **arguments)


def _prepared(parts: Parts, task: str) -> Any:
    """Choose what of the model is trained, or return the adapter that is trained instead.

    An adapter that begins as a part of the weights must be the same on every rank, and after a resume.
    """
    if parts.method["kind"] == "freeze":
        freezing.freeze(
            parts.model, parts.method["num_trainable_layers"], parts.method.get("modules_to_save", ())
        )
    if str(parts.method.get("init_lora_weights")).startswith("pissa"):
        from transformers import set_seed

        set_seed(parts.config.seed)
    return adapter(parts.method, task)


def first_line(error: Exception) -> str:
    """Return the first line of what an exception says."""
    return str(error).strip().partition("\n")[0]


def _found(classes: Classes, name: str) -> Any:
    import os

    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # that a trainer is experimental is in our docs
    return getattr(import_module(classes.module), name)
