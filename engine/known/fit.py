"""From measurements at several token counts to a straight line, and from that to an estimate. Pure.

Activations grow with the tokens of a micro batch, everything else does not: peak = fixed + tokens x slope.
What grows faster (scores of eager attention, with the square of the length) lies below the line between the
measured counts, and above it outside of them; the notes of an estimate say when it is used there.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..calibration import Calibration, Usage, workload_key
from ..errors import BadInput
from ..specs.estimate import PHASES, Estimate, Group, PhaseName, Place, Term
from ..specs.machine import CPU
from ..specs.workload import Workload

COUNTERS = ("allocated_bytes", "reserved_bytes", "process_bytes", "host_bytes", "grown_bytes")
REPEATABILITY = 0.025
"""Largest share that the growth of a CPU process was off its mean in eight trials of the demo, four of each
length (torch 2.13, Linux, glibc). Not measured on accelerators, where equal shapes are allocated alike."""
_STEPS: tuple[PhaseName, ...] = tuple(phase for phase in PHASES if phase != "load")
_TWO = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """Bytes as a straight line over tokens."""

    fixed_bytes: float
    bytes_per_token: float

    def at(self, tokens: int) -> int:
        """Return the bytes for a micro batch of so many tokens."""
        return max(0, round(self.fixed_bytes + self.bytes_per_token * tokens))


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """What probes of one workload on one machine say of any number of tokens."""

    key: str | None
    device_kind: str
    device_name: str | None
    t: float
    """Unix time of the newest probe."""
    tokens: tuple[int, ...]
    """Token counts that were measured, rising."""
    lines: Mapping[str, Line]
    """By field of ``Usage``; without those that were not measured."""
    load: Usage
    """Up to the first step; no matter how many tokens."""
    scatter: float
    """Largest share that a measurement is off its line by; 0 for two token counts."""

    @property
    def where(self) -> str:
        """Device and day, for a reader."""
        return where_and_when(self)


def where_and_when(of: "Fit | Calibration") -> str:
    """Return device and day of a measurement, for a reader."""
    return f"{of.device_name or of.device_kind}, {time.strftime('%Y-%m-%d', time.gmtime(of.t))}"


def fit_of(rows: Sequence[Calibration]) -> Fit:
    """Fit lines through probes of one workload on one device; of equal token counts the newest counts.

    Raises:
        BadInput: There are not two token counts among the probes that went well.
    """
    newest = {row.tokens: row for row in rows if _is_measured(row)}
    if len(newest) < _TWO:
        raise BadInput(
            "a line needs probes of two token counts that went well",
            hint="make them: ftwiz check JOB --smoke 3",
        )
    points = _with_one_baseline([newest[tokens] for tokens in sorted(newest)])
    lines = {name: line for name in COUNTERS if (line := _line(points, name)) is not None}
    last = max(points, key=lambda row: row.t)
    return Fit(
        key=last.key,
        device_kind=last.device_kind,
        device_name=last.device_name,
        t=last.t,
        tokens=tuple(sorted(newest)),
        lines=lines,
        load=last.load or Usage(),
        scatter=max((_scatter(points, name, line) for name, line in lines.items()), default=0.0),
    )


def probe_estimate(workload: Workload, fit: Fit, modelled: Estimate | None = None) -> Estimate:
    """Return an estimate whose bytes on the device and host are those of the fit.

    Args:
        workload: With any number of tokens, otherwise as it was probed.
        fit: Of probes on this machine.
        modelled: Its terms for the disk are kept, and those for the host where they are larger.

    Raises:
        BadInput: The fit is of another workload, or has nothing of the device.
    """
    if fit.key is None or fit.key != workload_key(workload):
        raise BadInput(
            "the probe was of another model, method, strategy or stack",
            hint="measure this one: ftwiz check JOB --smoke 3",
        )
    is_cpu = fit.device_kind == CPU
    main = "grown_bytes" if is_cpu else "allocated_bytes"
    if main not in fit.lines:
        raise BadInput(f"nothing was measured on {fit.device_name or fit.device_kind}")
    terms = [*_device_terms(workload.tokens, fit, main)]
    if not is_cpu:
        terms += _beyond_terms(workload.tokens, fit)
    terms += _host_terms(workload, fit, modelled)
    terms += [term for term in (modelled.terms if modelled else ()) if term.place == "disk"]
    uncertainty = _uncertainty(workload.tokens, fit)
    counts = " and ".join(f"{tokens:,}" for tokens in fit.tokens)
    return Estimate(
        tier="probe",
        terms=tuple(terms),
        uncertainty=uncertainty,
        basis=f"measured on {fit.where}, at {counts} tokens",
        notes=_notes(workload.tokens, fit),
    )


def _is_measured(row: Calibration) -> bool:
    return row.source == "probe" and row.outcome == "finished" and row.steps is not None and row.tokens > 0


def _with_one_baseline(rows: Sequence[Calibration]) -> list[Calibration]:
    """Count the growth of all from the lowest start: pages of libraries come and go, and are no tensors."""
    pairs = [(row, row.steps) for row in rows if row.steps is not None]
    starts = [
        steps.host_bytes - steps.grown_bytes
        for _, steps in pairs
        if steps.host_bytes is not None and steps.grown_bytes is not None
    ]
    if len(starts) < len(rows):
        return list(rows)
    return [
        replace(row, steps=replace(steps, grown_bytes=(steps.host_bytes or 0) - min(starts)))
        for row, steps in pairs
    ]


def _line(points: Sequence[Calibration], counter: str) -> Line | None:
    """Least squares. Memory that does not grow measurably is taken as constant, at its highest."""
    values = [_value(row, counter) for row in points]
    if any(value is None for value in values):
        return None
    known = [float(value) for value in values if value is not None]
    tokens = [float(row.tokens) for row in points]
    mean_tokens, mean = math.fsum(tokens) / len(tokens), math.fsum(known) / len(known)
    spread = math.fsum((x - mean_tokens) ** 2 for x in tokens)
    slope = math.fsum((x - mean_tokens) * (y - mean) for x, y in zip(tokens, known, strict=True)) / spread
    if slope <= 0:
        return Line(fixed_bytes=max(known), bytes_per_token=0.0)
    return Line(fixed_bytes=mean - slope * mean_tokens, bytes_per_token=slope)


def _value(row: Calibration, counter: str) -> int | None:
    value: int | None = getattr(row.steps, counter)
    return value


def _scatter(points: Sequence[Calibration], counter: str, line: Line) -> float:
    shares = [abs(line.at(row.tokens) - value) / value for row in points if (value := _value(row, counter))]
    return max(shares, default=0.0)


def _device_terms(tokens: int, fit: Fit, counter: str) -> list[Term]:
    line = fit.lines[counter]
    loaded = getattr(fit.load, counter)
    at = line.at(tokens)
    fixed = min(max(0, round(line.fixed_bytes)), at)
    name = "resident beyond the start" if counter == "grown_bytes" else "allocated"
    terms = [
        _term(f"{name}, whatever the length", "weights", fixed, fit, formula=f"{fixed:,} B"),
        _term(
            f"{name}, by tokens",
            "activations",
            at - fixed,
            fit,
            formula=f"{tokens:,} tokens x {line.bytes_per_token:,.1f} B",
        ),
    ]
    if loaded is not None:
        terms.append(
            _term(f"{name} when loaded", "weights", loaded, fit, formula=f"{loaded:,} B", phases=("load",))
        )
    return terms


def _beyond_terms(tokens: int, fit: Fit) -> list[Term]:
    """What the allocator and the driver hold beyond tensors: differences of two measured counters."""
    pairs: tuple[tuple[str, str, Place, str], ...] = (
        ("reserved_bytes", "allocated_bytes", "reserved", "kept by the allocator"),
        ("process_bytes", "reserved_bytes", "driver", "context and libraries"),
    )
    terms = []
    for upper, lower, place, name in pairs:
        if upper not in fit.lines or lower not in fit.lines:
            continue
        high, low = fit.lines[upper].at(tokens), fit.lines[lower].at(tokens)
        formula = f"{high:,} B - {low:,} B"
        terms.append(_term(name, "overhead", max(0, high - low), fit, formula=formula, place=place))
        loaded_high, loaded_low = getattr(fit.load, upper), getattr(fit.load, lower)
        if loaded_high is not None and loaded_low is not None:
            size = max(0, loaded_high - loaded_low)
            formula = f"{loaded_high:,} B - {loaded_low:,} B"
            terms.append(_term(name, "overhead", size, fit, formula=formula, place=place, phases=("load",)))
    return terms


def _host_terms(workload: Workload, fit: Fit, modelled: Estimate | None) -> list[Term]:
    """Return the processes of a node on the host. Where it is the device too, what is beside tensors."""
    kept = [term for term in (modelled.terms if modelled else ()) if term.place == "host"]
    line, grown = fit.lines.get("host_bytes"), fit.lines.get("grown_bytes")
    if line is None:
        return kept
    each = line.at(workload.tokens)
    if fit.device_kind == CPU:
        each = max(0, each - (grown.at(workload.tokens) if grown else 0))
    ranks = max(1, workload.sharding.ranks_per_node)
    if modelled is not None and modelled.host_bytes > each * ranks:
        return kept
    formula = f"{ranks} x {each:,} B"
    return [_term("processes", "overhead", each * ranks, fit, formula=formula, place="host", phases=PHASES)]


def _term(
    name: str,
    group: Group,
    num_bytes: int,
    fit: Fit,
    *,
    formula: str,
    place: Place = "device",
    phases: tuple[PhaseName, ...] = _STEPS,
) -> Term:
    return Term(
        name=name,
        group=group,
        num_bytes=num_bytes,
        phases=phases,
        formula=formula,
        source=f"probe: {fit.where}",
        place=place,
    )


def _uncertainty(tokens: int, fit: Fit) -> float:
    """Errors of two measured points, carried along the line that they make to where it is used."""
    low, high = fit.tokens[0], fit.tokens[-1]
    outside = max(0, tokens - high, low - tokens) / (high - low)
    return max(REPEATABILITY, fit.scatter) * (1 + 2 * outside)


def _notes(tokens: int, fit: Fit) -> tuple[str, ...]:
    notes = ["Saving was not probed; it is taken to hold no more than a step."]
    low, high = fit.tokens[0], fit.tokens[-1]
    if not low <= tokens <= high:
        notes.append(
            f"{tokens:,} tokens are outside the measured {low:,} to {high:,}: what grows faster than they do "
            "is missed."
        )
    return tuple(notes)
