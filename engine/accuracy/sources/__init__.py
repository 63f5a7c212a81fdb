"""What each published script really did: one file per source, and the word that finds it."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from ..case import Case, check_kind, check_specified, method_word
from ..row import NotScored, Row
from . import (
    described,
    fitcheck_loop,
    foreigners,
    fsdp2,
    fsdp_qlora,
    peft_docs,
    peft_suite,
    qwen,
    swift,
    unsloth,
)


class Source(NamedTuple):
    """A published source and how its rows are read."""

    title: str
    engines: tuple[str, ...]
    """Beginnings of ``engine``."""
    case_of: Callable[[Row], Case]
    assumptions: tuple[str, ...]
    missing: str | None = None
    """What its rows cannot say of their conditions: a row with a gap is shown, but not counted."""
    checks_itself: bool = False
    """It knows more of its conditions than the file says."""


MANY_LENGTHS = (
    "not fully specified: batches of many lengths, reserved memory, and the tokens of its steps not published"
)
UNKNOWN_LONGEST = (
    "not fully specified: batches of many lengths, and the tokens of the longest one not published"
)
SOURCES = (
    Source("QwenLM/Qwen finetune.py", qwen.ENGINES, qwen.case_of, qwen.ASSUMPTIONS, checks_itself=True),
    Source("Answer.AI fsdp_qlora", fsdp_qlora.ENGINES, fsdp_qlora.case_of, fsdp_qlora.ASSUMPTIONS),
    Source("ms-swift 1.x", swift.ENGINES, swift.case_of, swift.ASSUMPTIONS, MANY_LENGTHS),
    Source("described by their rows", described.ENGINES, described.case_of, described.ASSUMPTIONS),
    Source(
        "PEFT method comparison",
        peft_suite.ENGINES,
        peft_suite.case_of,
        peft_suite.ASSUMPTIONS,
        UNKNOWN_LONGEST,
        checks_itself=True,
    ),
    Source("fitcheck on a T4", fitcheck_loop.ENGINES, fitcheck_loop.case_of, fitcheck_loop.ASSUMPTIONS),
    Source("Unsloth's table, HF + FA2", unsloth.ENGINES, unsloth.case_of, unsloth.ASSUMPTIONS),
    Source("PEFT documentation, 70B", peft_docs.ENGINES, peft_docs.case_of, peft_docs.ASSUMPTIONS),
    Source("accelerate FSDP2", fsdp2.ENGINES, fsdp2.case_of, fsdp2.ASSUMPTIONS),
    Source("litgpt, torchtitan, torchtune", foreigners.ENGINES, foreigners.case_of, foreigners.ASSUMPTIONS),
)

UNSCORED = {
    "axolotl": 'an "about" figure of an example: its counter and the batch that it was read at are unknown',
    "llamafactory": "an estimate, no measurement",
    "op-bench": "one operation, not a training step",
    "hf-accelerate": "sequence length and batch were not published",
}
"""Beginnings of ``engine`` whose rows are listed and never scored."""


def source_of(row: Row) -> Source:
    """Return the source of a row by its engine: the longest beginning that fits.

    Raises:
        NotScored: Nobody has looked up what that engine does, or it cannot be scored.
    """
    engine = row.text("engine")
    known: dict[str, Source | str] = {start: source for source in SOURCES for start in source.engines}
    found = [start for start in (*known, *UNSCORED) if engine.startswith(start)]
    if not found:
        raise NotScored(f"engine {engine!r} is not known" if engine else "engine was not published")
    answer = (known | UNSCORED)[max(found, key=len)]
    if isinstance(answer, str):
        raise NotScored(answer)
    return answer


def case_of(row: Row) -> Case:
    """Return a row as a question to the tiers.

    Raises:
        NotScored: It cannot be asked; the message says why.
    """
    if "" in row.fields or not row.fields:
        raise NotScored("the row is no object with fields")
    check_kind(row)
    source = source_of(row)
    if row.text("method").startswith("peft:"):
        method_word(row)
    if not source.checks_itself:
        check_specified(row)
    return replace(source.case_of(row), missing=source.missing)
