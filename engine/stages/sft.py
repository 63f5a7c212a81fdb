"""Supervised fine-tuning: the model learns to give the answers in the data. Runs TRL's SFTTrainer.

``trainer_arguments`` is pure. Everything below the line ``the training stack`` imports it when called.
"""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from ..errors import BadInput
from ..specs.data import DataSummary
from ..specs.job import Job, Train
from ..specs.machine import CPU
from ..specs.plan import Strategy
from . import chat

NAME = "sft"

LEARNING_RATES = {"lora": 2e-4, "full": 2e-5}
"""Peak step size by method. Sources: QLoRA, arXiv 2305.14314, table 9 (2e-4); trl 1.16 SFTConfig (2e-5)."""

DECIDED_ELSEWHERE: Mapping[str, str] = {
    "per_device_train_batch_size": "plan.micro_batch_size",
    "per_gpu_train_batch_size": "plan.micro_batch_size",
    "gradient_accumulation_steps": "train.global_batch_size",
    "gradient_checkpointing": "plan.gradient_checkpointing",
    "activation_checkpointing": "plan.gradient_checkpointing",
    "bf16": "plan.mixed_precision",
    "fp16": "plan.mixed_precision",
    "use_cpu": "plan.device",
    "fsdp": "plan.backend",
    "fsdp_config": "plan.backend",
    "deepspeed": "plan.backend",
    "parallelism_config": "plan.backend",
    "ddp_backend": "plan.backend",
    "completion_only_loss": "train.assistant_only_loss",
    "eval_strategy": "train.eval_steps",
    "save_strategy": "train.save_steps",
    "model_init_kwargs": "model",
    "trust_remote_code": "model.trust_remote_code",
    "resume_from_checkpoint": "ftwiz resume",
}
"""Arguments that ``train.extra`` may not set -> where they are decided."""

KEPT = ("output_dir", "include_num_input_tokens_seen", "disable_tqdm", "save_only_model", "push_to_hub")
"""Arguments that resume and the event log rely on."""


def trainer_arguments(job: Job, strategy: Strategy, data: DataSummary) -> dict[str, object]:
    """Return the arguments of trl.SFTConfig by name, exactly as they will be passed.

    Raises:
        BadInput: ``train.extra`` sets what the job or the plan decides.
    """
    extra = job.train.extra
    _check_extra(extra)
    return {
        "output_dir": "checkpoints",
        **_batches(strategy),
        **_optimization(job),
        **_data_arguments(job.train, data),
        **_precision(strategy),
        **_rhythm(job.train, has_eval=data.num_eval_rows != 0),
        "include_num_input_tokens_seen": "non_padding",
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": strategy.device_kind != CPU,
        "report_to": "none",
        "disable_tqdm": True,
        **extra,
    }


def _check_extra(extra: Mapping[str, object]) -> None:
    for name in extra:
        if where := DECIDED_ELSEWHERE.get(name):
            raise BadInput(f"train.extra: {name} is decided elsewhere", hint=f"use {where}")
        if name in KEPT:
            raise BadInput(
                f"train.extra: {name} cannot be changed", hint="take it out: ftwiz needs it as it is"
            )


def _batches(strategy: Strategy) -> dict[str, object]:
    return {
        "per_device_train_batch_size": strategy.micro_batch_size,
        "gradient_accumulation_steps": strategy.gradient_accumulation_steps,
        "per_device_eval_batch_size": strategy.micro_batch_size,
    }


def _optimization(job: Job) -> dict[str, object]:
    train = job.train
    rate = LEARNING_RATES[job.method.kind] if train.learning_rate == "auto" else train.learning_rate
    length: dict[str, object] = {"num_train_epochs": train.num_train_epochs}
    if train.max_steps is not None:
        length = {"max_steps": train.max_steps}
    return {
        **length,
        "learning_rate": rate,
        "lr_scheduler_type": train.lr_scheduler_type,
        "warmup_steps": train.warmup_steps,
        "weight_decay": train.weight_decay,
        "max_grad_norm": train.max_grad_norm,
        "optim": train.optim,
        "seed": train.seed,
    }


def _data_arguments(train: Train, data: DataSummary) -> dict[str, object]:
    answers_only = train.assistant_only_loss
    return {
        "max_length": train.max_length,
        "packing": train.packing,
        # The trainer's two words for "learn the answers only": one for each layout of a row.
        "completion_only_loss": answers_only and data.shape == "prompt_completion",
        "assistant_only_loss": answers_only and data.shape == "messages",
    }


def _precision(strategy: Strategy) -> dict[str, object]:
    # With use_cpu accelerate would not see DeepSpeed, which takes the CPU by itself where there is no other
    # device; then only the way that ranks talk must be said (accelerate 1.15, state.py).
    is_zero_on_cpu = strategy.backend == "zero" and strategy.device_kind == CPU
    return {
        "use_cpu": strategy.device_kind == CPU and not is_zero_on_cpu,
        **({"ddp_backend": "gloo"} if is_zero_on_cpu else {}),
        "bf16": strategy.mixed_precision == "bf16",
        "fp16": strategy.mixed_precision == "fp16",
        "activation_checkpointing": strategy.gradient_checkpointing,
    }


def _rhythm(train: Train, *, has_eval: bool) -> dict[str, object]:
    """Return when to log, evaluate and save. The worker also evaluates and saves after the last step."""
    evaluates = has_eval and train.eval_steps is not None
    return {
        "logging_steps": train.logging_steps,
        # With the filter a run whose loss is NaN logs 0.0.
        "logging_nan_inf_filter": False,
        "eval_strategy": "steps" if evaluates else "no",
        **({"eval_steps": train.eval_steps} if evaluates else {}),
        "save_strategy": "no" if train.save_steps is None else "steps",
        **({} if train.save_steps is None else {"save_steps": train.save_steps}),
        # Old checkpoints are deleted by the worker, after the manifest of a newer one stands.
        "save_total_limit": None,
    }


# the training stack


def check_arguments(arguments: Mapping[str, object]) -> Any:
    """Return the SFTConfig of the arguments; imports trl.

    Raises:
        BadInput: A name is unknown to the installed trainer, or a value is refused by it.
    """
    from dataclasses import fields

    from trl import SFTConfig

    known = [field.name for field in fields(SFTConfig) if field.init]
    for name in arguments:
        if name not in known:
            nearest = get_close_matches(name, known, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else "see the arguments of trl.SFTConfig"
            raise BadInput(f"train.extra: the installed trl has no trainer argument {name!r}", hint=hint)
    try:
        return SFTConfig(**arguments)
    except (ValueError, TypeError, ImportError) as error:
        raise BadInput(f"the trainer refuses its arguments: {_first_line(error)}") from error


def trainer(
    *,
    config: Any,
    model: Any,
    tokenizer: Any,
    method: Mapping[str, Any],
    train_rows: Sequence[chat.Row],
    eval_rows: Sequence[chat.Row],
    callbacks: Sequence[Any],
    narrate: Callable[[str], None],
) -> Any:
    """Return the SFTTrainer with tokenized rows, ready to train.

    Args:
        config: What ``check_arguments`` returned.
        model: A causal language model.
        tokenizer: Its tokenizer; given a plain chat template when it has none and the rows are chats.
        method: The section ``method`` of train.yaml.
        train_rows: Rows in one of the shapes of ``RowShape``.
        eval_rows: Held-out rows of the same shape; may be empty.
        callbacks: The trainer's callbacks.
        narrate: Told in a sentence what is done.

    Raises:
        BadInput: The rows cannot be used with this tokenizer.
    """
    from datasets import Dataset
    from jinja2 import TemplateError
    from trl import SFTTrainer

    train_rows, eval_rows = _fit(
        config, tokenizer, train_rows=train_rows, eval_rows=eval_rows, narrate=narrate
    )
    narrate(f"tokenizing {len(train_rows) + len(eval_rows)} rows")
    try:
        built = SFTTrainer(
            model=model,
            args=config,
            train_dataset=Dataset.from_list(list(train_rows)),
            eval_dataset=Dataset.from_list(list(eval_rows)) if eval_rows else None,
            processing_class=tokenizer,
            peft_config=_adapter(method),
            callbacks=list(callbacks),
        )
    except TemplateError as error:
        raise BadInput(
            f"the model's chat template refuses a conversation: {_first_line(error)}",
            hint="change the roles in the data (data.system adds a system message), or take another model",
        ) from error
    except ValueError as error:
        raise BadInput(f"the trainer refuses: {_first_line(error)}") from error
    if len(built.train_dataset) == 0:
        raise BadInput(
            f"no answer is left within train.max_length {config.max_length}",
            hint="raise train.max_length above the length of the questions",
        )
    return built


def _fit(
    config: Any,
    tokenizer: Any,
    *,
    train_rows: Sequence[chat.Row],
    eval_rows: Sequence[chat.Row],
    narrate: Callable[[str], None],
) -> tuple[Sequence[chat.Row], Sequence[chat.Row]]:
    if "text" in train_rows[0]:
        return train_rows, eval_rows
    chat.fit_template(tokenizer, narrate)
    if config.assistant_only_loss and not chat.marks_answers(tokenizer):
        config.assistant_only_loss, config.completion_only_loss = False, True
        train_rows, eval_rows = chat.split_answers(train_rows), chat.split_answers(eval_rows)
        narrate(f"the chat template does not mark answers: one row for each of {len(train_rows)} answers")
    return train_rows, eval_rows


def _adapter(method: Mapping[str, Any]) -> Any:
    if method["kind"] == "full":
        return None
    from peft import LoraConfig

    arguments = {name: value for name, value in method.items() if name != "kind"}
    return LoraConfig(task_type="CAUSAL_LM", **arguments)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
