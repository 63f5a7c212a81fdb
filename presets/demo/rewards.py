"""A reward function of the preset grpo-lora, to copy and change."""

from collections.abc import Sequence
from typing import Any


def right(completions: Sequence[Any], answer: Sequence[Any], **_columns: Any) -> list[float]:
    """Return how like the right answer each sampled one is, from 0 to 1.

    Args:
        completions: Sampled answers: each a list of messages, or text.
        answer: The column of that name: the right answers. Rows with answers get it by themselves.
    """
    return [
        _likeness(_text(sampled), _text(wanted)) for sampled, wanted in zip(completions, answer, strict=True)
    ]


def _likeness(sampled: str, wanted: str) -> float:
    same = sum(one == other for one, other in zip(sampled, wanted, strict=False))
    return same / max(len(sampled), len(wanted), 1)


def _text(answer: Any) -> str:
    return (answer if isinstance(answer, str) else str(answer[-1]["content"])).strip()
