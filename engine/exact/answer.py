"""Turns what the tracing process answered into the terms of an estimate. Pure."""

from collections.abc import Mapping
from typing import Any, get_args

from ..specs.estimate import PHASES, Group, PhaseName, Term

SOURCE = "trace of the installed libraries on tensors without data (engine/trace)"
_NAMES: Mapping[Group, str] = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer states",
    "activations": "activations",
    "logits": "logits and loss",
    "buffers": "buffers of the ranks",
}
_SHOWN = 3
"""Largest tensors that a formula names."""


def is_whole(answer: Mapping[str, Any]) -> bool:
    """Say whether an answer, maybe from a file that somebody cut, can be read as one."""
    try:
        traced_terms(answer)
    except (KeyError, TypeError, ValueError, AttributeError):
        return False
    return True


def traced_terms(answer: Mapping[str, Any]) -> tuple[Term, ...]:
    """Return the device terms: a group with the same bytes in several phases is one term.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: It is no such answer.
    """
    phases = answer["phases"]
    terms: list[Term] = []
    for group in get_args(Group):
        held: dict[int, list[PhaseName]] = {}
        for phase in PHASES:
            num_bytes = int(phases.get(phase, {"groups": {}})["groups"].get(group, 0))
            if num_bytes > 0:
                held.setdefault(num_bytes, []).append(phase)
        terms += [_term(group, num_bytes, names, phases) for num_bytes, names in held.items()]
    extra = int(answer["reserved_bytes"]) - int(answer["allocated_bytes"])
    return (*terms, _reserved(extra))


def _term(group: Group, num_bytes: int, names: list[PhaseName], phases: Mapping[str, Any]) -> Term:
    return Term(
        name=_NAMES.get(group, group),
        group=group,
        num_bytes=num_bytes,
        phases=tuple(names),
        formula=_formula(group, num_bytes, phases[names[-1]]["biggest"]),
        source=SOURCE,
    )


def _formula(group: str, num_bytes: int, biggest: list[list[Any]]) -> str:
    own = [f"{count} x {what}" for what, count, _, kind in biggest if kind == group][:_SHOWN]
    most = f"; largest in the traced layers: {', '.join(own)}" if own else ""
    return f"{num_bytes:,} B alive at the peak of the phase{most}"


def _reserved(extra: int) -> Term:
    return Term(
        name="fragmentation",
        group="overhead",
        num_bytes=max(0, extra),
        phases=PHASES,
        formula=f"{extra:,} B = peak of the allocator's segments - peak of what tensors hold",
        source="torch 2.13 c10/cuda/CUDACachingAllocator.cpp, replayed (engine/trace/allocator.py)",
        place="reserved",
    )
