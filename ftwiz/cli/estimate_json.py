"""An estimate as JSON: everything that was asked, found and decided, under keys that stay."""

from dataclasses import asdict, fields
from typing import Any

from ..engine.memory.knobs import Effect
from ..engine.specs.estimate import PHASES, Estimate, Place, Verdict
from ..engine.specs.workload import Workload
from .show_estimate import Report

VERSION = 1
"""Of these keys. Some may be added without a new version."""
PLACES: tuple[Place, ...] = ("device", "reserved", "driver", "host", "disk")


def report_json(report: Report) -> dict[str, Any]:
    """Return the answer as plain values. Sizes are bytes; unknown is ``None``."""
    target = report.target
    return {
        "version": VERSION,
        "model": {
            "id": report.model.id,
            "where": report.model.where,
            "model_type": report.model.spec.model_type,
            "num_parameters": report.model.spec.num_parameters,
            "num_active_parameters": report.model.spec.num_active_parameters,
        },
        "machine": {
            "device_kind": target.kind,
            "device_name": target.name,
            "num_ranks": report.recipe.sharding.num_ranks,
            "ranks_per_node": report.recipe.sharding.ranks_per_node,
            "free_bytes": target.free_bytes,
            "total_bytes": target.total_bytes,
            "shares_host": target.shares_host,
            "host_free_bytes": target.host_free_bytes,
            "host_total_bytes": target.host_total_bytes,
            "disk_free_bytes": target.disk_free_bytes,
        },
        "workload": _workload(report.workload),
        "estimate": estimate_json(report.estimate),
        "verdict": {
            "word": report.overall.word,
            "device": _verdict(report.device),
            "host": _verdict(report.host),
            "disk": _verdict(report.disk),
        },
        "changes": [_effect(effect) for effect in report.effects],
        "to_fit": _effect(report.fix) if report.fix else None,
        "notes": [*report.notes, *report.estimate.notes],
    }


def estimate_json(estimate: Estimate) -> dict[str, Any]:
    """Return an estimate with the sums of its phases."""
    return {
        "tier": estimate.tier,
        "uncertainty": estimate.uncertainty,
        "basis": estimate.basis,
        "peak_phase": estimate.peak_phase,
        "allocated_bytes": estimate.allocated_bytes,
        "reserved_bytes": estimate.reserved_bytes,
        "process_bytes": estimate.process_bytes,
        "host_bytes": estimate.host_bytes,
        "disk_bytes": estimate.disk_bytes,
        "phases": {
            phase: {place: estimate.phase_bytes(phase, place) for place in PLACES} for phase in PHASES
        },
        "terms": [asdict(term) for term in estimate.terms],
    }


def _workload(workload: Workload) -> dict[str, Any]:
    """Every field but the model, which ``ftwiz models NAME --json`` prints."""
    found: dict[str, Any] = {}
    for field in fields(workload):
        value = getattr(workload, field.name)
        if field.name != "model":
            found[field.name] = asdict(value) if hasattr(value, "__dataclass_fields__") else value
    return found


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return asdict(verdict)


def _effect(effect: Effect) -> dict[str, Any]:
    return {
        "options": list(effect.options),
        "texts": list(effect.texts),
        "same_training": effect.same_training,
        "needs_hardware": effect.needs_hardware,
        "process_bytes": effect.process_bytes,
        "host_bytes": effect.host_bytes,
        "delta_bytes": effect.delta_bytes,
        "verdict": effect.verdict.word,
    }
