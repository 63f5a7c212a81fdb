"""What the stages share that sample answers and have them rewarded: grpo and rloo."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..errors import BadInput
from ..specs.job import Job
from ..specs.plan import Strategy
from . import building, chat, rewards
from .common import Classes


def arguments(job: Job, strategy: Strategy, *, beta: float) -> dict[str, object]:
    """Return the arguments that both trainers take.

    Args:
        job: What the user wants.
        strategy: How the machine does it.
        beta: What ``auto`` is.
    """
    chosen = job.rollout
    return {
        "num_generations": chosen.num_generations,
        # Held-out prompts are answered once: no group is compared there, and any batch will do.
        "num_generations_eval": 1,
        "max_completion_length": chosen.max_completion_length,
        "temperature": chosen.temperature,
        "top_p": chosen.top_p,
        "beta": beta if chosen.beta == "auto" else chosen.beta,
        "reward_weights": None if chosen.reward_weights is None else list(chosen.reward_weights),
        "mask_truncated_completions": chosen.mask_truncated_completions,
        # Answers of one step are sampled for that step: its policy is the one that is trained.
        "steps_per_generation": strategy.gradient_accumulation_steps,
        "num_iterations": 1,
        "shuffle_dataset": True,
        "disable_dropout": False,
        "remove_unused_columns": False,
        "include_num_input_tokens_seen": "no",  # they count themselves: prompts and answers
    }


def settings(job: Job) -> dict[str, object]:
    """Return the section ``rollout`` of train.yaml: what is no argument of a trainer."""
    return {
        "reward_model": job.rollout.reward_model,
        "reward_functions": list(job.rollout.reward_functions),
        "max_prompt_length": job.train.max_length - job.rollout.max_completion_length,
    }


def trainer(classes: Classes, parts: building.Parts) -> Any:
    """Return the trainer with its prompts and rewards, ready to train.

    Raises:
        BadInput: The prompts cannot be used with this tokenizer, or a reward cannot be had.
    """
    chat.fit_template(parts.tokenizer, parts.narrate)
    functions: list[Any] = [rewards.function(name) for name in parts.rollout["reward_functions"]]
    readers: list[Any] = [None] * len(functions)
    if (where := parts.rollout["reward_model"]) is not None:
        parts.narrate(f"loading the reward model {where}")
        model, reader = rewards.model(where, dtype=parts.source["dtype"])
        chat.fit_template(reader, parts.narrate)
        functions, readers = [model, *functions], [reader, *readers]
    building.read_reference_like(parts)
    shorter = replace(
        parts,
        train_rows=_short_enough(parts, parts.train_rows),
        eval_rows=_short_enough(parts, parts.eval_rows),
    )
    if not shorter.train_rows:
        most = parts.rollout["max_prompt_length"]
        raise BadInput(
            f"no prompt has at most {most} tokens: train.max_length less rollout.max_completion_length",
            hint="raise train.max_length",
        )
    return building.build(classes, shorter, reward_funcs=functions, reward_processing_classes=readers)


def _short_enough(parts: building.Parts, rows: Sequence[chat.Row]) -> list[chat.Row]:
    """Leave out what would not fit into ``max_length`` together with an answer: trl 1.16 cuts no prompts."""
    most = parts.rollout["max_prompt_length"]
    kept = [row for row in rows if _num_tokens(parts.tokenizer, row) <= most]
    if len(kept) < len(rows):
        parts.narrate(f"prompts left out, because they have more than {most} tokens: {len(rows) - len(kept)}")
    return kept


def _num_tokens(tokenizer: Any, row: chat.Row) -> int:
    from jinja2 import TemplateError

    try:
        text = tokenizer.apply_chat_template(
            list(row["prompt"]), tools=row.get("tools"), add_generation_prompt=True, tokenize=False
        )
    except TemplateError as error:
        raise BadInput(
            f"the model's chat template refuses a conversation: {building.first_line(error)}",
            hint="change the roles in the data (data.system adds a system message), or take another model",
        ) from error
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])
