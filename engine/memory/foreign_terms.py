"""Activations of trainers that bring their own models: which list of operations, and its terms. Pure."""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from ..errors import Refused
from ..specs.estimate import Group, PhaseName, Term
from ..specs.workload import Trainer, Workload
from . import foreign_litgpt, foreign_torchtitan, foreign_torchtune
from .tape import GRADIENT, WEIGHT_GRADIENT
from .tape_sizes import Part, Walked, written

PHASES: tuple[PhaseName, ...] = ("forward", "head", "backward start", "backward end", "optimizer")


class Foreign(NamedTuple):
    """How a trainer's step is written down."""

    walk_of: Callable[[Workload], Walked]
    more: Callable[[Workload], tuple[Term, ...]]
    """Lines that no operation of a layer makes."""
    source: str


FOREIGN: dict[Trainer, Foreign] = {
    "litgpt": Foreign(foreign_litgpt.walk_of, foreign_litgpt.extra_terms, foreign_litgpt.SOURCE),
    "torchtitan": Foreign(
        foreign_torchtitan.walk_of, foreign_torchtitan.extra_terms, foreign_torchtitan.SOURCE
    ),
    "torchtune": Foreign(foreign_torchtune.walk_of, foreign_torchtune.extra_terms, foreign_torchtune.SOURCE),
}
LINES: dict[str, tuple[str, Group]] = {
    "layer": ("kept activations", "activations"),
    "head": ("logits and loss", "logits"),
    "recomputed layer": ("recomputed layer", "activations"),
    "weight copies": ("weights in 16 bits", "activations"),
    GRADIENT: ("gradients of activations", "activations"),
    WEIGHT_GRADIENT: ("weight gradients on their way", "gradients"),
    "": ("batch and first activations", "activations"),
}
"""Section of a tape -> what its tensors are called."""


def is_foreign(w: Workload) -> bool:
    """Say whether the trainer brings its own models."""
    return w.trainer in FOREIGN


def foreign_activation_terms(w: Workload) -> tuple[Term, ...]:
    """Return what the activations of a foreign trainer's step take.

    Raises:
        Refused: The trainer has no such model, or it is not written down.
    """
    foreign = FOREIGN.get(w.trainer)
    if foreign is None:
        raise Refused(f"{w.trainer} is no trainer with models of its own")
    walked = foreign.walk_of(w)
    lines = [term for phase in PHASES for term in _phase_terms(walked, phase, w, foreign.source)]
    return (*_joined(lines), *foreign.more(w))


def _phase_terms(walked: Walked, phase: PhaseName, w: Workload, source: str) -> list[Term]:
    """Return the lines of a phase: one for every section."""
    sections: dict[str, Counter[Part]] = {}
    for part, number in walked.peak(w.tokens, w.sequence_tokens, phase).alive.items():
        if not _is_counted(part, phase):
            sections.setdefault(part.section, Counter())[part] += number
    return [_term(section, parts, w, (phase, source)) for section, parts in sections.items()]


def _is_counted(part: Part, phase: PhaseName) -> bool:
    """Whether the states count a weight's gradient: all in the end, the output layer's when it is made."""
    if part.section != WEIGHT_GRADIENT:
        return False
    return phase == "backward end" or (phase == "backward start" and part.name == "logits")


def _term(section: str, parts: Counter[Part], w: Workload, rest: tuple[PhaseName, str]) -> Term:
    name, group = LINES.get(section, (section, "activations"))
    phase, source = rest
    numbers = written(parts).replace("tokens", f"{w.tokens:,}").replace("sequence", f"{w.sequence_tokens:,}")
    return Term(
        name=name,
        group=group,
        num_bytes=sum(part.size.at(w.tokens, w.sequence_tokens) * number for part, number in parts.items()),
        phases=(phase,),
        formula=numbers,
        source=source,
    )


def _joined(terms: list[Term]) -> tuple[Term, ...]:
    """Make one line of equal ones in several phases."""
    found: dict[tuple[str, str, int], Term] = {}
    for term in terms:
        key = (term.name, term.formula, term.num_bytes)
        before = found.get(key)
        phases = (*(before.phases if before else ()), *term.phases)
        found[key] = Term(
            name=term.name, group=term.group, num_bytes=term.num_bytes,
            phases=phases, formula=term.formula, source=term.source,
        )  # fmt: skip
    return tuple(found.values())
