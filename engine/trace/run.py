"""One request of the exact tier: builds, traces at two depths, extrapolates, replays, reports."""

import copy
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate
from typing import Any

from ..specs.workload import Workload
from . import build, extrapolate, foreign_run, layers, limits
from .allocator import Allocator
from .deepen import DifferentLayersError, Window, deepened
from .extrapolate import Peak
from .load import as_loaded
from .phases import PHASE_OF
from .step import trace_steps
from .tracer import Trace

_ENDS = ("backward start", "backward end")
LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes")


def answer(workload: Workload, config: Mapping[str, Any], *, whole: bool = False) -> dict[str, Any]:
    """Return what a training step takes, as plain values.

    Args:
        workload: What is trained how.
        config: The contents of the model's config.json.
        whole: Trace every layer instead of extrapolating.

    Raises:
        BadInput: The configuration is none.
        Refused: The model cannot be built or adapted.
    """
    if foreign_run.serves(workload):
        return {**foreign_run.answer(workload, config, _report), "versions": _versions()}
    limits.check(workload)
    started = time.perf_counter()
    model = build.on_meta(workload, config)
    num_layers = layers.text_config(model).num_hidden_layers
    if workload.method == "freeze":  # its last layers are counted before any is cut out
        model = build.prepare(model, workload)
    depths = None if whole else layers.depths(model, alternates=workload.checkpointing == "every-2nd")
    built = time.perf_counter()
    if depths is None:
        only = _trace(model, workload, 0)
        found, reserved = _peaks(only, workload), _extra_reserved(only, workload)
        traced = [num_layers]
    else:
        shallow, deep = _two(model, workload, depths)
        few, many = _peaks(shallow, workload), _peaks(deep, workload)
        found = extrapolate.at_full_depth(few, many, depths.missing)
        reserved = _extra_at_full_depth(shallow, deep, depths, workload)
        traced = [len(depths.shallow), len(depths.deep)]
    return {
        **_report(found, reserved),
        "layers": num_layers,
        "traced_layers": traced,
        "seconds": {"build": round(built - started, 3), "trace": round(time.perf_counter() - built, 3)},
        "versions": (installed := _versions()),
        "notes": limits.notes(workload, installed),
    }


def _two(model: Any, workload: Workload, depths: layers.Depths) -> tuple[Trace, Trace]:
    num_layers = layers.text_config(model).num_hidden_layers
    layers.cut(model, depths.deep)
    small = copy.deepcopy(model)
    layers.cut(small, tuple(depths.deep.index(number) for number in depths.shallow))
    missing = num_layers - len(depths.deep)
    return (
        _trace(small, workload, missing + len(depths.deep) - len(depths.shallow)),
        _trace(model, workload, missing),
    )


def _trace(model: Any, workload: Workload, more_layers: int) -> Trace:
    reference = _reference(model, workload)
    ready = model if workload.method == "freeze" else build.prepare(model, workload)
    return limits.on_the_device(trace_steps(ready, workload, reference, more_layers), workload)


def _reference(model: Any, workload: Workload) -> Any:
    """A frozen copy of a model that is not yet prepared, when the workload holds one."""
    return build.frozen_copy(model) if workload.reference_model else None


def _peaks(trace: Trace, workload: Workload) -> dict[str, Peak]:
    return extrapolate.peaks(as_loaded(trace, workload))


def _extra_at_full_depth(shallow: Trace, deep: Trace, depths: layers.Depths, workload: Workload) -> int:
    """Replay the full depth; where the layers do not repeat exactly, go on in a straight line."""
    start, stop, copies = depths.window
    try:
        return _extra_reserved(deepened(deep, Window(start=start, stop=stop, copies=copies)), workload)
    except DifferentLayersError:
        few, many = _extra_reserved(shallow, workload), _extra_reserved(deep, workload)
        return max(many, round(few + (many - few) * depths.missing))


def _extra_reserved(trace: Trace, workload: Workload) -> int:
    """Bytes that the allocator holds at its peak beyond what tensors hold at theirs."""
    allocator = Allocator(expandable=workload.expandable_segments)
    events = as_loaded(trace, workload).events
    allocator.replay(events)
    return allocator.peak_reserved - max(accumulate(event.num_bytes for event in events))


def _report(found: Mapping[str, Peak], extra: int) -> dict[str, Any]:
    phases: dict[str, Peak] = {}
    ends = max((found[moment].total for moment in _ENDS if moment in found), default=0.0)
    for moment, peak in found.items():
        phase = PHASE_OF.get(moment)
        if moment == "backward middle" and peak.total <= ends:
            continue  # only where a layer between holds more than the first and the last
        if phase is not None and (phase not in phases or peak.total > phases[phase].total):
            phases[phase] = peak
    top = max(peak.total for peak in found.values())
    return {
        "phases": {
            phase: {
                "bytes": round(peak.total),
                "groups": {group: round(value) for group, value in peak.groups.items() if round(value)},
                "biggest": [list(line) for line in peak.biggest],
            }
            for phase, peak in phases.items()
        },
        "allocated_bytes": round(top),
        "reserved_bytes": round(top) + extra,
    }


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
