"""Whether a run is well, in a few sentences: pure, from one frame.

What the supervisor's rules found stands first; what is always worth knowing (memory against the estimate,
the hottest device, the last checkpoint) follows. A sentence changes only when what it says does.
"""

import math
from dataclasses import dataclass
from statistics import median
from typing import Literal

from ...engine.specs.machine import DeviceReading
from ...engine.specs.run import RunState
from ..text import duration, number, percent, safe, size
from .view import Frame

Mark = Literal["ok", "!!", "--"]

STALL_SECONDS = 60.0
_STALL_STEPS = 5
_HOT_CELSIUS = 85.0
_HOT_AGAIN = 83.0
_APART_CELSIUS = 12.0
_FULL_SHARE = 0.95
_SKEW = 0.15
_RECENT = 40
_FEW = 8


@dataclass(frozen=True, slots=True)
class Verdict:
    """One sentence on one thing; ``!!`` wants to be looked at, ``--`` is not known (yet)."""

    mark: Mark
    text: str
    is_serious: bool = False


def verdicts(frame: Frame) -> list[Verdict]:
    """Return what there is to say, what is wrong first."""
    found = [*_loss(frame), *_pace(frame), *_alerts(frame), *_memory(frame), *_devices(frame), *_kept(frame)]
    return sorted(found, key=lambda verdict: (verdict.mark != "!!", not verdict.is_serious))


def word(frame: Frame) -> tuple[str, str]:
    """Return how the run is in one word, and its style."""
    if frame.record.state.is_over or frame.view.latest is None:
        return "", "dim"
    wrong = [verdict for verdict in verdicts(frame) if verdict.mark == "!!"]
    if any(verdict.is_serious for verdict in wrong):
        return "BROKEN", "error"
    return ("CHECK", "warning") if wrong else ("HEALTHY", "good")


def is_stalled(frame: Frame) -> bool:
    """Whether no step came for a minute, and for five times as long as steps usually take."""
    view = frame.view
    if frame.record.state is not RunState.RUNNING or view.last_step_t is None or view.last_t is None:
        return False
    gap = _usual_gap(frame)
    return frame.now - max(view.last_step_t, view.last_t) > max(STALL_SECONDS, _STALL_STEPS * gap)


def _usual_gap(frame: Frame) -> float:
    """Return the seconds from one logged step to the next."""
    points = frame.view.loss.points[-_FEW:]
    steps = (points[-1].step - points[0].step) / (len(points) - 1) if len(points) > 1 else 1
    return max(1.0, steps) * (frame.view.step_seconds or 0.0)


def _loss(frame: Frame) -> list[Verdict]:
    view = frame.view
    if view.broken_step is not None:
        return [Verdict("!!", f"the loss broke at step {view.broken_step:,}", is_serious=True)]
    latest = view.latest
    if latest is None:
        return [Verdict("--", "no step yet")]
    norms = sorted(point.mean for point in view.grad_norm.points)
    said = "no NaN"
    if norms and math.isfinite(norms[-1]):
        said += f"; grad norm {number(median(norms), digits=2)}"
    points = view.loss.points[-_RECENT:]
    if len(points) >= _FEW and points[0].smooth:
        change = points[-1].smooth / points[0].smooth - 1
        said += f"; loss {'falls' if change < -0.01 else 'rises' if change > 0.05 else 'is level'}"  # noqa: PLR2004 - shares
    return [Verdict("ok", said)]


def _pace(frame: Frame) -> list[Verdict]:
    view = frame.view
    if is_stalled(frame):
        assert view.last_step_t is not None
        # In whole half minutes: a clock that ticks would be sent every second.
        waited = (frame.now - view.last_step_t) // 30 * 30
        return [
            Verdict("!!", f"no step for {duration(waited)}: see the log of the last rank", is_serious=True)
        ]
    planned = frame.facts.predicted.tokens_per_second if frame.facts.predicted else None
    newest = view.speed.latest
    if planned and newest and newest.smooth:
        share = newest.smooth / planned
        return [Verdict("ok", f"speed {100 * share:.0f} % of the prediction")]
    return []


def _alerts(frame: Frame) -> list[Verdict]:
    latest = frame.view.latest
    span = max(20, latest.max_steps // 50) if latest else 20
    newest: dict[str, Verdict] = {}
    for alert in frame.view.alerts:
        is_old = alert.step is not None and latest is not None and latest.step - alert.step > span
        if alert.level == "info" or is_old:
            newest.pop(alert.code, None)
            continue
        newest[alert.code] = Verdict("!!", safe(alert.message), is_serious=alert.level == "error")
    return list(newest.values())


def measured_bytes(frame: Frame) -> int | None:
    """Return the most that tensors held on a device, of all ranks that told."""
    told = [peak.allocated_bytes for peak in frame.view.peaks.values() if peak.allocated_bytes is not None]
    latest = frame.view.latest
    if latest is not None and latest.device_peak_bytes is not None:
        told.append(latest.device_peak_bytes)
    return max(told, default=None)


def _memory(frame: Frame) -> list[Verdict]:
    said: list[Verdict] = []
    measured = measured_bytes(frame)
    planned = frame.facts.predicted.allocated_bytes if frame.facts.predicted else None
    if measured is not None and planned:
        off = measured / planned - 1
        text = f"peak {size(measured)}, {100 * off:+.0f} % of the planned"
        said.append(Verdict("!!" if off > 0.15 else "ok", text))  # noqa: PLR2004 - more than plans allow for
    free = [
        (reading.memory_total_bytes - reading.memory_used_bytes, reading)
        for _, reading in all_readings(frame)
        if reading.memory_total_bytes and reading.memory_used_bytes is not None
    ]
    if free:
        least, reading = min(free, key=lambda item: item[0])
        is_full = least < (1 - _FULL_SHARE) * (reading.memory_total_bytes or 0)
        said.append(
            Verdict("!!" if is_full else "ok", f"{size(least // _STEP * _STEP)} or more free on each device")
        )
    return said


_STEP = 1 << 29
"""Half a GiB: a margin that is told more finely changes all the time."""


def all_readings(frame: Frame) -> list[tuple[int, DeviceReading]]:
    """Return every device with the node that it is in."""
    return [(node.number, reading) for node in frame.view.nodes for reading in node.sample.devices]


def _devices(frame: Frame) -> list[Verdict]:
    readings = all_readings(frame)
    said: list[Verdict] = []
    lost = [f"{reading.index}" for _, reading in readings if reading.is_lost]
    if lost:
        said.append(Verdict("!!", f"device {', '.join(lost)} does not answer", is_serious=True))
    heat = [(value, reading) for _, reading in readings if (value := reading.temperature_celsius) is not None]
    if heat:
        usual = median(value for value, _ in heat)
        most, reading = max(heat, key=lambda item: item[0])
        apart = most - usual > _APART_CELSIUS and len(heat) > 2  # noqa: PLR2004 - of two none is the usual one
        is_hot = most >= _HOT_CELSIUS or apart
        text = f"device {reading.index} has {most:.0f} °C" + (f", the others {usual:.0f}" if apart else "")
        said.append(Verdict("!!", text) if is_hot else Verdict("ok", f"no device above {_HOT_AGAIN:.0f} °C"))
    skew = rank_skew(frame)
    if skew is not None:
        text = (
            f"ranks are within {percent(_SKEW)} of each other"
            if skew <= _SKEW
            else f"rank skew {percent(skew)}"
        )
        said.append(Verdict("ok" if skew <= _SKEW else "!!", text))
    return said


def rank_skew(frame: Frame) -> float | None:
    """Return by what share the least busy device of the run falls behind the middle one."""
    busy = [
        reading.utilization_percent
        for _, reading in all_readings(frame)
        if reading.utilization_percent is not None and (reading.memory_used_bytes or 0) > _STEP
    ]
    if len(busy) < 2 or not median(busy):  # noqa: PLR2004 - one device has nobody to fall behind
        return None
    return max(0.0, 1 - min(busy) / median(busy)) if median(busy) > 20 else None  # noqa: PLR2004 - idle ones differ freely


def _kept(frame: Frame) -> list[Verdict]:
    saved = frame.view.checkpoints
    if not saved:
        return [] if frame.view.latest is None else [Verdict("--", "nothing saved yet")]
    total = sum(event.size_bytes for event in saved)
    return [Verdict("ok", f"saved step {saved[-1].step:,}; {len(saved)} written, {size(total)}")]
