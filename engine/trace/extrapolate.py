"""From traces of two depths to the full depth: within a moment the peak grows by the same bytes per layer."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from .tracer import Event, Held, Trace

GROUPS = ("weights", "gradients", "optimizer", "activations", "logits", "buffers")
NUM_BIGGEST = 12


@dataclass(frozen=True, slots=True)
class Peak:
    """What is held at the peak of a moment, in bytes."""

    groups: Mapping[str, float]
    biggest: tuple[tuple[str, int, int, str], ...] = field(default=())
    """Op with shape and type, how many such tensors, their bytes together, their group."""

    @property
    def total(self) -> float:
        """All groups together."""
        return sum(self.groups.values())


def peaks(trace: Trace) -> dict[str, Peak]:
    """Return the peak of every moment."""
    held, top = 0, dict[str, tuple[int, int]]()
    for number, event in enumerate(trace.events):
        held += event.num_bytes
        if held > top.get(event.phase, (-1, 0))[0]:
            top[event.phase] = held, number
    at = {number: phase for phase, (_, number) in top.items()}
    return {phase: _peak(trace, live) for phase, live in _live_at(trace.events, at)}


def _live_at(events: list[Event], at: Mapping[int, str]) -> list[tuple[str, list[int]]]:
    live: dict[int, None] = {}
    found = []
    for number, event in enumerate(events):
        if event.num_bytes > 0:
            live[event.uid] = None
        elif event.num_bytes < 0:
            live.pop(event.uid, None)
        if number in at:
            found.append((at[number], list(live)))
    return found


def _peak(trace: Trace, live: list[int]) -> Peak:
    groups = dict.fromkeys(GROUPS, 0.0)
    same: dict[tuple[str, str], tuple[int, int]] = {}
    for uid in live:
        held = trace.held[uid]
        groups[held.group] += held.num_bytes
        key = _words(held), held.group
        count, num_bytes = same.get(key, (0, 0))
        same[key] = count + 1, num_bytes + held.num_bytes
    largest = sorted(same.items(), key=lambda item: -item[1][1])[:NUM_BIGGEST]
    return Peak(groups, tuple((what, count, size, group) for (what, group), (count, size) in largest))


def _words(held: Held) -> str:
    if held.group == "weights":
        return f"parameters {held.dtype}"
    return f"{held.op.removesuffix('.default')} {list(held.shape)} {held.dtype}"


def at_full_depth(shallow: Mapping[str, Peak], deep: Mapping[str, Peak], missing: float) -> dict[str, Peak]:
    """Return the peaks of a model whose layers repeat ``missing`` times the difference of two.

    The value is shallow + (deep - shallow) x missing, group by group.
    """
    return {
        phase: Peak(
            {
                group: _line(shallow[phase].groups[group], value, missing)
                for group, value in peak.groups.items()
            },
            peak.biggest,
        )
        for phase, peak in deep.items()
        if phase in shallow
    }


def _line(shallow: float, deep: float, missing: float) -> float:
    return shallow + (deep - shallow) * missing
