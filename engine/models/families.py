"""The architectures whose parameters a closed form knows: a new one is one file and one word here."""

from . import deepseek_v4, dense, gemma3n, gemma4, gpt, linear_attention, mla, moe, ssm, vision
from .parts import Family

FAMILIES: tuple[Family, ...] = (
    dense,
    gpt,
    moe,
    mla,
    linear_attention,
    ssm,
    gemma3n,
    gemma4,
    deepseek_v4,
    vision,
)


def family_of(model_type: str) -> Family | None:
    """Return the family of a model type, or ``None``."""
    return next((family for family in FAMILIES if model_type in family.MODEL_TYPES), None)


def model_types() -> tuple[str, ...]:
    """Return every model type that a closed form knows."""
    return tuple(sorted(name for family in FAMILIES for name in family.MODEL_TYPES))
