"""The long answer of an estimate: every term with its formula, every phase's sum, and what choices change."""

from collections.abc import Iterator, Sequence
from textwrap import wrap

import click

from ..engine.memory.knobs import Effect
from ..engine.specs.estimate import Estimate, PhaseName, Place, Term
from ..tui.text import safe, shorten
from .estimate_words import number, phases_of, phases_text, unit
from .show_estimate import COLOURS, DEVICE_PLACES, WORDS, Report

INDENT = 6
TITLES: dict[Place, str] = {
    "device": "on the device, in tensors",
    "reserved": "on the device, kept by the allocator and in no tensor",
    "driver": "on the device, outside the allocator",
    "host": "on the host, all ranks of a node together",
    "disk": "on the disk",
}


def explained_lines(report: Report, *, width: int) -> Iterator[str]:
    """Yield every term, every phase and every choice."""
    among = phases_of(report.workload)
    numbered = dict(enumerate(_ordered(report.estimate), 1))
    yield _heading("every term, with its formula and where that comes from")
    place: Place | None = None
    for index, term in numbered.items():
        if term.place != place:
            place = term.place
            yield click.style(f"{TITLES[place]}", dim=True)
        yield from _term(index, term, among, width)
    yield ""
    yield from _phases(report.estimate, numbered, among, width)
    yield ""
    if report.estimate.tier != "fast":
        yield "what follows is the fast tier's"
    yield from effect_lines(report.effects, width=width)


def _ordered(estimate: Estimate) -> list[Term]:
    places = list(TITLES)
    return sorted(estimate.terms, key=lambda term: (places.index(term.place), -term.num_bytes))


def _heading(text: str) -> str:
    return click.style(text.upper(), bold=True)


def _term(index: int, term: Term, among: Sequence[PhaseName], width: int) -> Iterator[str]:
    size = f"{number(term.num_bytes, term.num_bytes)} {unit(term.num_bytes)}"
    yield shorten(
        f"{f'[{index}]':<{INDENT}}{safe(term.name)}: {size}, {phases_text(term.phases, among)}", width
    )
    yield from _indented(f"{safe(term.formula)} = {term.num_bytes:,} B", width)
    yield from (click.style(line, dim=True) for line in _indented(safe(term.source), width))


def _indented(text: str, width: int) -> Iterator[str]:
    for line in wrap(text, max(20, width - INDENT), break_on_hyphens=False):
        yield " " * INDENT + line


def _phases(
    estimate: Estimate, numbered: dict[int, Term], among: Sequence[PhaseName], width: int
) -> Iterator[str]:
    """Yield the sum of each phase: the numbers of its terms, and what they add up to."""
    yield _heading("every phase: the terms that are held, added up")
    largest = max((_held(estimate, phase) for phase in among), default=0)
    for phase in among:
        held = [
            index
            for index, term in numbered.items()
            if phase in term.phases and term.place in DEVICE_PLACES and term.num_bytes
        ]
        if not held:
            continue
        total = _held(estimate, phase)
        peak = "  <- the peak" if phase == estimate.peak_phase else ""
        sum_text = f"{number(total, largest)} {unit(largest)} = {total:,} B"
        yield f"{phase:<16}{sum_text}{click.style(peak, bold=True)}"
        yield from _indented(" + ".join(f"[{index}]" for index in held), width)


def _held(estimate: Estimate, phase: PhaseName) -> int:
    return sum(estimate.phase_bytes(phase, place) for place in DEVICE_PLACES)


def effect_lines(effects: Sequence[Effect], *, width: int) -> Iterator[str]:
    """Yield what every change would save, the cheapest first."""
    yield _heading("what one change would do, the cheapest first")
    if not effects:
        yield "nothing is left to change"
        return
    largest = max(abs(effect.delta_bytes) for effect in effects)
    for effect in effects:
        word = click.style(f"{WORDS[effect.verdict.word]:<14}", fg=COLOURS[effect.verdict.word])
        change = effect.delta_bytes / (1 << 30 if unit(largest) == "GiB" else 1 << 20)
        head = f"{change:>+9,.2f} {unit(largest)}  "
        other = "" if effect.same_training else "; another training"
        other += "; other hardware" if effect.needs_hardware else ""
        yield shorten_styled(head, word, f"{effect.options[-1]}", width)
        yield from _indented_far(f"{effect.texts[-1]}{other}", len(head), width)


def shorten_styled(head: str, word: str, text: str, width: int) -> str:
    """Return a line whose middle is coloured, cut at its end."""
    return head + word + shorten(text, width - len(head) - len(click.unstyle(word)))


def _indented_far(text: str, indent: int, width: int) -> Iterator[str]:
    for line in wrap(text, max(20, width - indent)):
        yield click.style(" " * indent + line, dim=True)
