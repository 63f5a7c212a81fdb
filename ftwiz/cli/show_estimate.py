"""How an estimate reads on a terminal: verdict, bar, terms, host and disk, and how sure it is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap

import click

from ..engine.memory.knobs import Effect
from ..engine.memory.verdict import usable_bytes
from ..engine.memory.workload import Recipe
from ..engine.specs.estimate import PHASES, Estimate, PhaseName, Place, Term, Verdict
from ..engine.specs.machine import CPU
from ..engine.specs.workload import Workload
from ..tui.text import fit, safe, shorten, width_of
from .estimate_target import Target
from .estimate_words import engine_text, gib, method_text, number, phase_text, phases_of, phases_text, unit
from .named_model import NamedModel

WORDS = {"fits": "fits", "tight": "tight", "no": "does not fit", "unknown": "not known"}
COLOURS = {"fits": "green", "tight": "yellow", "no": "red", "unknown": "cyan"}
GROUPS: dict[str, tuple[str, str]] = {
    "weights": ("w", "blue"),
    "gradients": ("g", "magenta"),
    "optimizer": ("o", "yellow"),
    "activations": ("a", "green"),
    "logits": ("l", "cyan"),
    "buffers": ("b", "red"),
    "overhead": ("x", "white"),
    "data": ("d", "bright_blue"),
    "checkpoints": ("c", "bright_magenta"),
}
"""Group -> its letter in the bar, and its colour."""
MARGIN, FREE, BEYOND = "~", ".", "!"
DEVICE_PLACES: tuple[Place, ...] = ("device", "reserved", "driver")
PLACE_SUMS: dict[Place, str] = {
    "device": "in tensors: torch.cuda.max_memory_allocated",
    "reserved": "held by the allocator: max_memory_reserved",
    "driver": "of the process: what nvidia-smi shows",
}
SMALL_SHARE = 0.015
"""Terms below this share of the peak are one line; --explain shows them all."""
LEAST_DRAWN = 0.005
MOST_TABLE = 92
"""Cells of the table, so that the eye finds the end of a line."""
MOST_NAMED = 3
"""Terms of host and disk that are named; --explain shows them all."""
LABEL = 10
NUMBER = 9


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A question and its answer."""

    model: NamedModel
    target: Target
    recipe: Recipe
    workload: Workload
    estimate: Estimate
    device: Verdict
    host: Verdict
    disk: Verdict
    overall: Verdict
    effects: tuple[Effect, ...] = ()
    fix: Effect | None = None
    notes: tuple[str, ...] = ()


def report_lines(report: Report, *, width: int) -> Iterator[str]:
    """Yield the answer: verdict, bar, terms, host and disk, uncertainty, notes."""
    yield from headline(report, width)
    yield ""
    yield from _bar(report, width)
    yield ""
    yield from _table(report, min(width, MOST_TABLE))
    yield ""
    yield from _phases(report, width)
    yield from _other_places(report, width)
    yield from labelled("how sure", _sureness(report.estimate), width)
    yield from _fix(report, width)
    for note in (*report.notes, *report.estimate.notes):
        yield from labelled("note", note, width)


def headline(report: Report, width: int) -> Iterator[str]:
    """Yield what was asked, and the verdict."""
    recipe = report.recipe
    title = f"{report.model.id}: {method_text(recipe)}, {recipe.stage}"
    yield click.style(shorten(safe(title), width), bold=True)
    yield from wrap(_setup(report), width)
    yield ""
    yield from verdict_lines(report, width)


def verdict_lines(report: Report, width: int) -> Iterator[str]:
    """Yield the verdict with its numbers."""
    word = WORDS[report.overall.word]
    first, *rest = wrap(_verdict_text(report), width - len(word) - 2) or [""]
    yield f"{click.style(word, fg=COLOURS[report.overall.word], bold=True)}  {first}"
    yield from (" " * (len(word) + 2) + line for line in rest)


def _setup(report: Report) -> str:
    recipe, target, sharding = report.recipe, report.target, report.recipe.sharding
    times = recipe.gradient_accumulation_steps
    often = f", {times:,} times a step" if times > 1 else ""
    engine = engine_text(recipe)
    where = "the CPU" if target.kind == CPU else safe(target.name)
    joint = " ranks on " if target.kind == CPU else " x "
    ranks = f"{sharding.num_ranks:,}{joint}{where}" if sharding.num_ranks > 1 else where
    formats = {"no": "float32", "fp16": "fp16", "bf16": "bf16"}[recipe.precision]
    again = "" if recipe.checkpointing == "none" else ", checkpointing"
    return (
        f"{recipe.micro_batch_size:,} x {recipe.sequence_tokens:,} tokens at once{often}, "
        f"{engine} on {ranks}, {formats}, {recipe.optimizer}{again}"
    )


def _verdict_text(report: Report) -> str:
    device, likely, free = report.device, report.estimate.process_bytes, report.device.free_bytes
    if report.target.shares_host or free is None or device.word == "unknown":
        text = device.text + (" (device and host are one memory)" if report.target.shares_host else "")
    else:
        text = _device_text(report, likely, free)
    places = (("host", report.host), ("disk", report.disk))
    others = [(name, found) for name, found in places if found.word in ("no", "tight") and found != device]
    return "; ".join([text, *(f"the {name}: {found.text}" for name, found in others)])


def _device_text(report: Report, likely: int, free: int) -> str:
    each = " on each device" if report.recipe.sharding.num_ranks > 1 else ""
    there = f"{gib(free)} {_free_word(report)}"
    margin = report.device.needed_bytes - likely
    if report.device.word == "fits":
        spare = gib(free - report.device.needed_bytes)
        return f"needs {gib(likely)} of {there}{each}; margin {gib(margin)}, {spare} to spare"
    if likely > free:
        return f"needs {gib(likely)}{each}, {gib(likely - free)} more than the {there}"
    lacking = gib(likely + margin - free)
    return f"needs {gib(likely)} of {there}{each}; {lacking} of a margin of {gib(margin)} are not there"


def _free_word(report: Report) -> str:
    return "usable" if report.target.is_written else "free now"


def _bar(report: Report, width: int) -> Iterator[str]:
    """Draw the peak phase by group, the margin and what stays free."""
    estimate, verdict = report.estimate, report.device
    phase = estimate.peak_phase
    groups: dict[str, int] = {}
    for place in DEVICE_PLACES:
        for term in estimate.phase_terms(phase, place):
            groups[term.group] = groups.get(term.group, 0) + term.num_bytes
    used = sum(groups.values())
    margin = max(0, round(used * min(estimate.uncertainty, 1.0)))
    free = usable_bytes(report.target.free_bytes, report.target.total_bytes)
    full = max(used + margin, free or 0, 1)
    room = max(10, width - 2)
    parts = [(GROUPS[name][0], GROUPS[name][1], groups[name]) for name in GROUPS if groups.get(name)]
    parts += [(MARGIN, "", margin), (FREE, "", full - used - margin)]
    yield click.style(f"at its peak, {phase_text(phase)}:", dim=True)
    yield f"[{_cells(parts, full, room)}]"
    if free is not None and free < full and verdict.word != "fits":
        yield " " * round(room * free / full) + click.style(
            "^ " + shorten(f"{gib(free)} {_free_word(report)}", 24), fg="red"
        )
    texts = [
        f"{click.style(letter, fg='black', bg=colour)} {name} {number(groups[name], used)}"
        for name, (letter, colour) in GROUPS.items()
        if groups.get(name, 0) > used * LEAST_DRAWN
    ]
    texts.append(f"{MARGIN} margin {number(margin, used)}")
    if free is not None and free > used + margin:
        texts.append(f"{FREE} free {number(free - used - margin, used)}")
    texts.append(unit(used))
    yield from _joined(texts, width)


def _joined(texts: Sequence[str], width: int) -> Iterator[str]:
    """Break between texts and never inside one."""
    line = ""
    for text in texts:
        if line and width_of(click.unstyle(f"{line}   {text}")) > width:
            yield line
            line = ""
        line = f"{line}   {text}" if line else text
    yield line


def _cells(parts: Sequence[tuple[str, str, int]], full: int, room: int) -> str:
    text, begin, total = "", 0, 0
    for letter, colour, size in parts:
        total += size
        end = min(room, round(room * total / full))
        run = letter * (end - begin)
        text += click.style(run, fg="black", bg=colour) if colour and run else run
        begin = end
    return text


def _table(report: Report, width: int) -> Iterator[str]:
    estimate, among = report.estimate, phases_of(report.workload)
    phase, peak = estimate.peak_phase, max(estimate.process_bytes, 1)
    head = f"{unit(peak):>{NUMBER}}  {'PER DEVICE, AT THE PEAK'}"
    yield click.style(_row(head, "WHEN", width), dim=True)
    for place in DEVICE_PLACES:
        terms = sorted(estimate.phase_terms(phase, place), key=lambda term: -term.num_bytes)
        if not terms:
            continue
        yield from _terms(terms, peak, among, width)
        total = estimate.process_bytes
        if place == "device":
            total = estimate.allocated_bytes
        elif place == "reserved":
            total = estimate.reserved_bytes
        text = f"{number(total, peak):>{NUMBER}}  {PLACE_SUMS[place]}"
        yield click.style(shorten(text, width), bold=True)


def _terms(terms: Sequence[Term], peak: int, among: Sequence[PhaseName], width: int) -> Iterator[str]:
    small = [term for term in terms if term.num_bytes < peak * SMALL_SHARE]
    shown = [term for term in terms if term not in small] if len(small) > 1 else list(terms)
    for term in shown:
        left = f"{number(term.num_bytes, peak):>{NUMBER}}  {safe(term.name)}"
        yield _row(left, phases_text(term.phases, among), width)
    if len(small) > 1:
        total = sum(term.num_bytes for term in small)
        yield f"{number(total, peak):>{NUMBER}}  {len(small)} smaller ones (--explain lists them)"


def _phases(report: Report, width: int) -> Iterator[str]:
    """Yield how much is held in every phase, so that the peak can be compared."""
    estimate = report.estimate
    held = {
        phase: sum(estimate.phase_bytes(phase, place) for place in DEVICE_PLACES)
        for phase in phases_of(report.workload)
    }
    largest = max(held.values(), default=0)
    texts = [f"{phase} {number(size, largest)}" for phase, size in held.items()]
    yield from labelled("phases", f"{', '.join(texts)} {unit(largest)}", width)


def _row(left: str, right: str, width: int) -> str:
    room = width - width_of(right) - 2
    return f"{fit(left, room)}  {right}" if room > NUMBER + LABEL else shorten(left, width)


def _other_places(report: Report, width: int) -> Iterator[str]:
    verdicts: tuple[tuple[Place, Verdict], ...] = (("host", report.host), ("disk", report.disk))
    for place, verdict in verdicts:
        terms = sorted(_peak_terms(report.estimate, place), key=lambda term: -term.num_bytes)
        total = sum(term.num_bytes for term in terms)
        is_shared = place == "host" and report.target.shares_host
        shown = [term for term in terms if term.num_bytes >= total * SMALL_SHARE][:MOST_NAMED]
        what = ", ".join(f"{safe(term.name)} {gib(term.num_bytes)}" for term in shown)
        text = f"{gib(total)} beside the tensors" if is_shared else _room_text(verdict, total, report, place)
        is_bad = verdict.word in ("tight", "no") and not is_shared
        colour = COLOURS[verdict.word] if is_bad else None
        yield from labelled(place, f"{text}{f': {what}' if what else ''}", width, fg=colour)


def _room_text(verdict: Verdict, total: int, report: Report, place: Place) -> str:
    free = verdict.free_bytes
    if free is None:
        return f"{gib(total)}, free space unknown"
    is_all = place == "host" and report.target.host_free_bytes is None
    return f"{WORDS[verdict.word]}, {gib(total)} of {gib(free)} {'in all' if is_all else 'free'}"


def _peak_terms(estimate: Estimate, where: Place) -> tuple[Term, ...]:
    phase = max(PHASES, key=lambda name: estimate.phase_bytes(name, where))
    return estimate.phase_terms(phase, where)


def _sureness(estimate: Estimate) -> str:
    how = "measured here" if estimate.tier == "probe" else f"{estimate.tier} tier"
    return f"{how}, within {100 * estimate.uncertainty:.0f} %: {safe(estimate.basis)}"


def _fix(report: Report, width: int) -> Iterator[str]:
    if report.device.word not in ("tight", "no") and report.host.word not in ("tight", "no"):
        return
    fix = report.fix
    if fix is None:
        text = "nothing that ftwiz knows makes it fit on this machine"
        yield from labelled("to fit", text, width, fg="red")
        return
    other = "" if fix.same_training else " (another training)"
    text = f"{', '.join(fix.options)}{other}: {gib(fix.process_bytes)}"
    if any("--offload" in option for option in fix.options):
        text += f", and {gib(fix.host_bytes)} on the host"
    yield from labelled("to fit", text, width, fg="green")


def labelled(label: str, text: str, width: int, *, fg: str | None = None) -> Iterator[str]:
    """Yield a label and its text, wrapped beside it."""
    head = click.style(fit(label, LABEL), dim=fg is None, fg=fg)
    for line in wrap(safe(text), max(20, width - LABEL), break_on_hyphens=False) or [""]:
        yield head + line
        head = " " * LABEL
