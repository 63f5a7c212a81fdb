"""What was measured on this machine before, in place of what is modelled: the rows of ``calibration.jsonl``.

Two probes of other lengths give a line; one probe or run gives a point, from which the model counts on.
Either is surer than the model alone, and says by how much.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ..calibration import Calibration, calibration_file, match, read_calibrations, workload_key
from ..errors import BadInput
from ..memory import estimate
from ..specs.estimate import PHASES, Estimate, PhaseName, Term
from ..specs.machine import CPU, Device, Machine
from ..specs.workload import Workload
from .fit import REPEATABILITY, fit_of, probe_estimate, where_and_when

STATES = frozenset({"weights", "gradients", "optimizer"})
"""Groups that a point is drawn with as they are modelled; the rest of what was measured is activations."""
_STEPS: tuple[PhaseName, ...] = tuple(phase for phase in PHASES if phase != "load")


@dataclass(frozen=True, kw_only=True)
class Known:
    """Measurements that may say something of a workload on a device. Reads their file once, when asked."""

    environ: Mapping[str, str]
    device_kind: str
    device_name: str | None
    device_bytes: int | None

    @cached_property
    def rows(self) -> tuple[Calibration, ...]:
        """Measurements of such devices."""
        rows = read_calibrations(calibration_file(self.environ))
        return tuple(row for row in rows if row.device_kind == self.device_kind and row.key)

    def __call__(self, workload: Workload, modelled: Estimate) -> Estimate | None:
        """Return what the measurements say of a workload; ``None`` when there is none of it."""
        ranks = workload.sharding.num_ranks
        if not any(row.num_ranks == ranks for row in self.rows):
            return None
        rows = match(
            self.rows,
            workload_key(workload),
            device_kind=self.device_kind,
            device_name=self.device_name,
            device_bytes=self.device_bytes,
        )
        try:
            return probe_estimate(workload, fit_of(rows), modelled)
        except BadInput:  # not two lengths were probed
            return point_estimate(workload, rows, modelled)


def known_here(environ: Mapping[str, str], machine: Machine, devices: Sequence[Device]) -> Known:
    """Return what was measured on some devices of a machine; on none of them, on its CPU."""
    host = machine.host
    return Known(
        environ=environ,
        device_kind=devices[0].kind if devices else CPU,
        device_name=devices[0].name if devices else host.cpu_name,
        device_bytes=devices[0].total_bytes if devices else host.total_bytes,
    )


def known_of(environ: Mapping[str, str], machine: Machine) -> Known:
    """Return what was measured on the devices of a machine that a plan takes first."""
    return known_here(environ, machine, [one for one in machine.devices if one.kind == machine.device_kind])


def point_estimate(workload: Workload, rows: Iterable[Calibration], modelled: Estimate) -> Estimate | None:
    """Return the measurement of the nearest number of tokens, and the modelled difference to it.

    The model's own uncertainty counts for the difference alone. On the CPU, where a process is measured and
    not its tensors, a point says too little.

    Args:
        workload: With any number of tokens, otherwise as it was measured.
        rows: Measurements of it.
        modelled: The estimate of it.
    """
    usable = [row for row in rows if _is_usable(row)]
    if not usable or workload.device_kind == CPU:
        return None
    row = min(usable, key=lambda one: (abs(one.tokens - workload.tokens), -one.t))
    there = estimate(_with_tokens(workload, row))
    terms = [*_device(row, there, modelled), *_beyond(row, there, modelled)]
    terms += [term for term in modelled.terms if term.place in ("host", "disk")]
    change = abs(modelled.process_bytes - there.process_bytes)
    total = sum(term.num_bytes for term in terms if term.place in ("device", "reserved", "driver"))
    carried = modelled.uncertainty * change / max(1, total)
    told = "a probe" if row.source == "probe" else "a run"
    note = () if row.tokens == workload.tokens else (
        f"Measured at {row.tokens:,} tokens; the difference to {workload.tokens:,} is modelled.",
    )  # fmt: skip
    return Estimate(
        tier="probe",
        terms=tuple(terms),
        uncertainty=REPEATABILITY + carried,
        basis=f"{told} on {where_and_when(row)}, at {row.tokens:,} tokens",
        notes=note,
    )


def _is_usable(row: Calibration) -> bool:
    """A run that failed or that nobody saw the largest batch of has no peak that means anything."""
    peak = _peak(row)
    return row.outcome == "finished" and row.tokens > 0 and "allocated_bytes" in peak


def _peak(row: Calibration) -> dict[str, int]:
    usage = row.steps or row.measured
    names = ("allocated_bytes", "reserved_bytes", "process_bytes")
    found = {name: getattr(usage, name) for name in names} if usage else {}
    return {name: value for name, value in found.items() if value is not None}


def _with_tokens(workload: Workload, row: Calibration) -> Workload:
    """The workload as it was measured: the batch that was seen, of the sequences that it had."""
    sequences = max(1, row.micro_batch_size)
    return replace(workload, sequence_tokens=-(-row.tokens // sequences), micro_batch_size=sequences)


def _device(row: Calibration, there: Estimate, modelled: Estimate) -> list[Term]:
    """Tensors: the states as they are modelled, and what was measured beyond them."""
    measured = _peak(row)["allocated_bytes"]
    change = modelled.allocated_bytes - there.allocated_bytes
    total = max(0, measured + change)
    states = [term for term in modelled.phase_terms(modelled.peak_phase, "device") if term.group in STATES]
    shown = sum(term.num_bytes for term in states)
    if shown > total:
        states, shown = [], 0
    rest = _term(
        row, "everything else, measured here", total - shown, f"{measured:,} {change:+,} - {shown:,} B"
    )
    return [*(replace(term, phases=_STEPS) for term in states), rest]


def _beyond(row: Calibration, there: Estimate, modelled: Estimate) -> list[Term]:
    """What the allocator and the driver hold: measured differences, or as modelled where nobody measured."""
    peak = _peak(row)
    phase = modelled.peak_phase
    found: list[Term] = []
    if "reserved_bytes" in peak:
        change = (modelled.reserved_bytes - modelled.allocated_bytes) - (
            there.reserved_bytes - there.allocated_bytes
        )
        gap = peak["reserved_bytes"] - peak["allocated_bytes"]
        formula = f"{gap:,} {change:+,} B"
        found.append(
            replace(
                _term(row, "kept by the allocator", max(0, gap + change), formula),
                place="reserved",
                group="overhead",
            )
        )
    else:
        found += modelled.phase_terms(phase, "reserved")
    if {"reserved_bytes", "process_bytes"} <= peak.keys():
        own = max(0, peak["process_bytes"] - peak["reserved_bytes"])
        line = _term(row, "context and libraries", own, f"{own:,} B")
        found.append(replace(line, place="driver", group="overhead"))
    else:
        found += modelled.phase_terms(phase, "driver")
    return found


def _term(row: Calibration, name: str, num_bytes: int, formula: str) -> Term:
    return Term(
        name=name,
        group="activations",
        num_bytes=num_bytes,
        phases=_STEPS,
        formula=formula,
        source=f"{row.source}: {where_and_when(row)}",
        place="device",
    )
