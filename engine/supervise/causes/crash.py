"""Processes that died below Python."""

from .rule import Rule, any_of

RULES = (
    Rule(
        cause="crashed",
        pattern=any_of(
            r"Fatal Python error: (Segmentation fault|Illegal instruction|Aborted|Floating-point exception)",
            r"terminate called after throwing an instance of",
            r"\*\*\* (Process received signal|stack smashing detected)",
        ),
        message="a rank crashed below Python",
        advice="the top of the stack in its log names the library below Python; packages that do not fit "
        "together, or a CPU without an instruction, are the usual reasons",
        source="CPython 3.11, faulthandler.c; libstdc++",
        command="ftwiz doctor",
        is_consequence=True,
    ),
)
