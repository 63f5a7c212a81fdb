"""Makes chat rows fit a tokenizer that has no chat template, or one that does not mark the answers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import BadInput

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
        rest = {name: value for name, value in row.items() if name != "messages"}
        split += [
            {**rest, "prompt": list(messages[:i]), "completion": [message]}
            for i, message in enumerate(messages)
            if message["role"] == "assistant" and i > 0
        ]
    return split


def fit_template(tokenizer: Any, narrate: Callable[[str], None]) -> None:
    """Give a tokenizer without a chat template the plain one, and say so."""
    if tokenizer.chat_template is None:
        tokenizer.chat_template = PLAIN_TEMPLATE
        narrate("the tokenizer has no chat template: using plain text (### User: ... ### Assistant: ...)")


def check_tools(tokenizer: Any, rows: Sequence[Row]) -> None:
    """Refuse calls of tools that the chat template would leave out without a word.

    Raises:
        BadInput: Rows call tools, and the template does not write calls.
    """
    if "tool_calls" not in str(tokenizer.chat_template) and any(map(calls_tools, rows)):
        raise BadInput(
            "the rows call tools, and the tokenizer's chat template leaves such calls out",
            hint="take a model whose template writes tool_calls, or take the calls out of the data",
        )


def calls_tools(row: Row) -> bool:
    """Whether a message of a row calls a tool."""
    lists = (row.get(name) for name in ("messages", "prompt", "completion", "chosen", "rejected"))
    return any(message.get("tool_calls") for messages in lists for message in messages or ())


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
