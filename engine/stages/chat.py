"""Makes chat rows fit a tokenizer that has no chat template, or one that does not mark the answers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "### Assistant:\n{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}\n\n"
    "{% else %}### {{ message['role'] | capitalize }}:\n{{ message['content'] }}\n\n{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}### Assistant:\n{% endif %}"
)
"""For base models, which come without a template: plain text, no new tokens, answers marked."""


def split_answers(rows: Sequence[Row]) -> list[Row]:
    """Return one prompt/completion row for every answer of every conversation.

    Training on the completions of these teaches exactly the answers, whatever the template marks.
    """
    split: list[Row] = []
    for row in rows:
        messages = row["messages"]
        split += [
            {"prompt": list(messages[:i]), "completion": [message]}
            for i, message in enumerate(messages)
            if message["role"] == "assistant" and i > 0
        ]
    return split


def fit_template(tokenizer: Any, narrate: Callable[[str], None]) -> None:
    """Give a tokenizer without a chat template the plain one, and say so."""
    if tokenizer.chat_template is None:
        tokenizer.chat_template = PLAIN_TEMPLATE
        narrate("the tokenizer has no chat template: using plain text (### User: ... ### Assistant: ...)")


def marks_answers(tokenizer: Any) -> bool:
    """Whether the template marks the answers, by itself or after TRL has patched a template that it knows."""
    from trl.chat_template_utils import get_training_chat_template, has_generation_markers

    if has_generation_markers(tokenizer.chat_template):
        return True
    try:
        get_training_chat_template(tokenizer)
    except ValueError:
        return False
    return True
