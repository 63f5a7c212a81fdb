"""Which rows each stage trains on, and which other rows can be turned into them without loss."""

from collections.abc import Mapping
from typing import cast

from ..specs.data import RowShape
from ..stages import STAGES

_SHAPES: Mapping[str, tuple[RowShape, ...]] = {
    "sft": ("messages", "prompt_completion", "text"),
    "pt": ("text",),
    "rm": ("preference",),
    "dpo": ("preference",),
    "orpo": ("preference",),
    "simpo": ("preference",),
    "kto": ("unpaired",),
    "grpo": ("prompt_only",),
    "rloo": ("prompt_only",),
}
"""For a stage whose module does not say it in ``SHAPES``."""
_TURNED: Mapping[RowShape, tuple[RowShape, ...]] = {
    "unpaired": ("preference",),
    "prompt_only": ("messages", "prompt_completion"),
}
"""Shape -> shapes that are turned into it: a pair into two rated answers, an example into its question."""

ROWS_ARE: Mapping[RowShape, str] = {
    "messages": "conversations",
    "prompt_completion": "questions with answers",
    "text": "plain text",
    "preference": "preference pairs (chosen, rejected)",
    "unpaired": "rated answers (label)",
    "prompt_only": "prompts without answers",
}


def shapes(stage: str) -> tuple[RowShape, ...]:
    """Return the shapes of rows that a stage's trainer takes."""
    module = next((one for one in STAGES if stage == one.NAME), None)
    said = getattr(module, "SHAPES", None) or _SHAPES[stage]
    return cast("tuple[RowShape, ...]", tuple(said))


def becomes(shape: RowShape, stage: str) -> RowShape | None:
    """Return what rows of a shape become for a stage; ``None`` when it does not train on them."""
    taken = shapes(stage)
    for target, sources in _TURNED.items():
        if target in taken and shape in sources:
            return target
    return shape if shape in taken else None


def wanted_rows(stage: str) -> str:
    """Name the rows that a stage trains on."""
    return " or ".join(ROWS_ARE[shape] for shape in shapes(stage))


def takes_instead(shape: RowShape, stage: str) -> str:
    """Say which stages train on rows of a shape."""
    names = [name for name in _SHAPES if becomes(shape, name) is not None]
    told = f"such rows are for stage {' or '.join(names)}"
    if stage == "pt":
        told += "; to read them as plain text anyhow, write each into a column called text"
    return told
