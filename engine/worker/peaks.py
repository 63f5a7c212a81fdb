"""A rank's memory peaks, phase by phase: on its device as torch counts them, on the host as Linux does.

Nothing is measured inside a step: counters that torch and the kernel keep anyway are read and set back
between phases.
"""

import contextlib
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..specs.events import PeakEvent
from ..specs.machine import CPU

FIRST_STEPS = 2
"""The first step has no optimizer states before its update; the second holds everything at once."""
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK_RESIDENT = "5"  # proc(5), clear_refs: sets VmHWM back to what is resident now
_KIB = 1024
_FIELDS = ("VmHWM", "VmRSS")


@dataclass(frozen=True, kw_only=True, slots=True)
class Peak:
    """Most bytes that were held; ``None`` is not known."""

    allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    outside_bytes: int | None = None
    host_bytes: int | None = None

    def merged(self, other: "Peak") -> "Peak":
        """Return the larger of each."""
        names = [field.name for field in fields(self)]
        return Peak(**{name: _most(getattr(self, name), getattr(other, name)) for name in names})

    def as_dict(self) -> dict[str, int]:
        """Return what is known, by name."""
        return {
            field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None
        }


class Peaks:
    """The peaks of one rank. ``begin`` before the model is loaded, then ``take`` after each phase."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._accelerator: Any = None
        self._told: dict[tuple[int, str], Peak] = {}
        self.whole = Peak()
        """Of the whole attempt, so far."""
        self.baseline_host_bytes: int | None = None
        """Resident memory before the model was loaded."""
        self.batch_tokens: int | None = None

    def begin(self, device_kind: str) -> PeakEvent:
        """Begin to measure, on the device that the strategy names, and return what is held now."""
        if device_kind != CPU:
            import torch

            self._accelerator = getattr(torch, device_kind, None)
        resident = _status().get("VmRSS")
        self.baseline_host_bytes = resident
        _reset_host_peak()
        return self._event("start", 0, Peak(host_bytes=resident))

    def take(self, moment: str, step: int) -> PeakEvent:
        """Return the peaks since the last call, and begin the next phase."""
        peak = self._read()
        self.whole = self.whole.merged(peak)
        self._reset()
        return self._event(moment, step, peak)

    def end(self, step: int) -> PeakEvent:
        """Return the peaks of the whole attempt."""
        self.look()
        return self._event("end", step, self.whole)

    @property
    def device_peak_bytes(self) -> int | None:
        """Most that tensors held on the device in this attempt, up to now."""
        return _most(self.whole.allocated_bytes, _ask(self._accelerator, "max_memory_allocated"))

    def look(self) -> None:
        """Bring ``whole`` up to now."""
        self.whole = self.whole.merged(self._read())

    def news(self, events: list[PeakEvent]) -> list[PeakEvent]:
        """Return those events that are the first of their rank and moment, or higher than the last told."""
        return [event for event in events if self._is_news(event)]

    def watch_batches(self, trainer: Any) -> None:
        """Note the size of every micro batch that this trainer takes; shapes only, nothing waits for it."""
        inner = trainer.training_step

        def training_step(model: Any, inputs: Any, *arguments: Any, **named: Any) -> Any:
            self.batch_tokens = _most(self.batch_tokens, batch_tokens(inputs))
            return inner(model, inputs, *arguments, **named)

        trainer.training_step = training_step

    def record(self) -> dict[str, int]:
        """Return what an exit record says of memory: the whole attempt's peaks, the baseline, the batch."""
        self.look()
        extra = {"baseline_host_bytes": self.baseline_host_bytes, "batch_tokens": self.batch_tokens}
        return self.whole.as_dict() | {name: value for name, value in extra.items() if value is not None}

    def _is_news(self, event: PeakEvent) -> bool:
        key = (event.rank, event.moment)
        now = Peak(**{field.name: getattr(event, field.name) for field in fields(Peak)})
        before = self._told.get(key)
        if before is not None and before.merged(now) == before:
            return False
        self._told[key] = now if before is None else before.merged(now)
        return True

    def _event(self, moment: str, step: int, peak: Peak) -> PeakEvent:
        return PeakEvent(
            t=time.time(),
            rank=self._rank,
            moment=moment,
            step=step,
            allocated_bytes=peak.allocated_bytes,
            reserved_bytes=peak.reserved_bytes,
            outside_bytes=peak.outside_bytes,
            host_bytes=peak.host_bytes,
            batch_tokens=self.batch_tokens,
        )

    def _read(self) -> Peak:
        device = self._accelerator
        return Peak(
            allocated_bytes=_ask(device, "max_memory_allocated"),
            reserved_bytes=_ask(device, "max_memory_reserved"),
            outside_bytes=_outside_bytes(device),
            host_bytes=_peak_resident(),
        )

    def _reset(self) -> None:
        _ask(self._accelerator, "reset_peak_memory_stats")
        _reset_host_peak()


def batch_tokens(inputs: Any) -> int | None:
    """Return the tokens of a micro batch, padding included: the most elements of any of its token tables."""
    if not isinstance(inputs, Mapping):
        return None
    shapes = [getattr(value, "shape", None) for name, value in inputs.items() if name.endswith("input_ids")]
    sizes = [_product(shape) for shape in shapes if shape is not None]
    return max(sizes, default=None)


def _product(shape: Any) -> int:
    size = 1
    for length in shape:
        size *= int(length)
    return size


def _most(one: int | None, other: int | None) -> int | None:
    known = [value for value in (one, other) if value is not None]
    return max(known, default=None)


def _ask(accelerator: Any, name: str) -> int | None:
    """Call a function of torch.cuda, torch.npu, ...; ``None`` where the device has none (mps)."""
    function = getattr(accelerator, name, None)
    try:
        answer = None if function is None else function()
    except (RuntimeError, NotImplementedError):  # a device that has failed, or a driver that does not tell
        return None
    return None if answer is None else int(answer)


def _outside_bytes(accelerator: Any) -> int | None:
    look = getattr(accelerator, "mem_get_info", None)
    reserved = _ask(accelerator, "memory_reserved")
    if look is None or not reserved:  # asking would open the device, where it is not in use yet
        return None
    try:
        free, total = look()
    except (RuntimeError, NotImplementedError):
        return None
    return max(0, int(total) - int(free) - reserved)


def _peak_resident() -> int | None:
    peak = _status().get("VmHWM")
    if peak is not None:
        return peak
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * _KIB  # getrusage(2): bytes there, KiB elsewhere


def _reset_host_peak() -> None:
    # Where the kernel refuses, a phase's peak is the peak so far.
    with contextlib.suppress(OSError):
        _CLEAR.write_text(_RESET_PEAK_RESIDENT)


def _status() -> dict[str, int]:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {name: int(value.split()[0]) * _KIB for name, _, value in pairs if name in _FIELDS}
