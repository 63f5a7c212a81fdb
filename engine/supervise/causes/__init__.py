"""The table of causes: what programs print when they end a training. Data; diagnose.py reads it.

Order matters: the pattern of an earlier rule wins over that of a later one.
"""

from . import crash, device, host, memory, model, ranks, stack
from .rule import Rule

__all__ = ["RULES", "Rule"]

RULES: tuple[Rule, ...] = (
    *memory.RULES[:1],
    *(rule for rule in host.RULES if rule.cause == "scheduler"),
    *memory.RULES[1:],
    *(rule for rule in host.RULES if rule.cause != "scheduler"),
    *device.RULES,
    *stack.RULES,
    *model.RULES,
    *crash.RULES,
    *ranks.RULES,
)
