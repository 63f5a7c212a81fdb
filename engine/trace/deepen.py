"""Makes the events of a full-depth run from those of a shallow one, by repeating a window of its layers.

A trace is a list of segments: the forward or backward pass of one layer, or something flat (loading, the
head, the update). In passes the window's segments are repeated; in flat segments its events are, layer by
layer, since every storage knows whose it is. The allocator needs this: what it reserves does not grow evenly.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, groupby

from .tracer import Event, Segment, Trace

Key = tuple[int, int | None, int]
"""Run of segments, layer at full depth, place among the storages that the layer makes there."""
_NEAR = 1
"""A layer drops its own storages and its neighbours'; anything farther is not relative to it."""


class DifferentLayersError(Exception):
    """The layers of the window do not do the same in every copy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Layers ``[start, stop)`` of the shallow run that are there ``copies`` times more at full depth."""

    start: int
    stop: int
    copies: int

    @property
    def period(self) -> int:
        """Layers of the window."""
        return self.stop - self.start

    def __contains__(self, layer: object) -> bool:
        return isinstance(layer, int) and self.start <= layer < self.stop

    def shift(self, layer: int | None) -> int:
        """How far a layer behind the window moves."""
        return 0 if layer is None or layer < self.stop else self.copies * self.period


def deepened(trace: Trace, window: Window) -> Trace:
    """Return the trace of the full depth.

    Raises:
        DifferentLayersError: A storage would be dropped that is not there.
    """
    made = _Deeper(trace, window)
    by_segment = {number: list(events) for number, events in groupby(trace.events, key=lambda e: e.segment)}
    for run in _runs(trace.segments):
        for number, shift in _order(trace.segments, run, window):
            events = by_segment.get(number, [])
            if trace.segments[number].layer is None:
                made.flat(events)
            else:
                made.layered(number, events, shift)
    return made.result


def _runs(segments: list[Segment]) -> Iterator[list[int]]:
    """Segments of one pass belong together; a flat one stands alone."""
    for _, numbers in groupby(range(len(segments)), key=lambda number: segments[number].run):
        yield list(numbers)


def _order(segments: list[Segment], run: list[int], window: Window) -> Iterator[tuple[int, int]]:
    """Yield segments with the layers that they move by, the window's again and again."""
    inside = [number for number in run if segments[number].layer in window]
    if len(inside) < window.period:
        yield from ((number, window.shift(segments[number].layer)) for number in run)
        return
    first, last = run.index(inside[0]), run.index(inside[-1])
    is_backward = (segments[run[0]].layer or 0) > (segments[run[-1]].layer or 0)
    turns = range(window.copies + 1)
    yield from ((number, window.shift(segments[number].layer)) for number in run[:first])
    for turn in reversed(turns) if is_backward else turns:
        yield from ((number, turn * window.period) for number in run[first : last + 1])
    yield from ((number, window.shift(segments[number].layer)) for number in run[last + 1 :])


@dataclass(slots=True)
class _Deeper:
    """Writes the deeper trace event by event."""

    trace: Trace
    window: Window
    result: Trace = field(default_factory=Trace)
    _keys: dict[int, Key] = field(default_factory=dict)
    """Storage of the shallow run -> where it was made, its layer, its place there."""
    _places: dict[tuple[int, int | None], int] = field(default_factory=dict)
    _live: dict[Key, int] = field(default_factory=dict)
    _uids: Iterator[int] = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        self.result.segments = self.trace.segments
        for event in self.trace.events:
            if event.num_bytes > 0:
                segment = self.trace.segments[event.segment]
                layer = self.trace.held[event.uid].layer
                where = (event.segment, layer)
                place = self._places.get(where, 0)
                self._places[where] = place + 1
                self._keys[event.uid] = segment.run, layer, place

    def layered(self, number: int, events: list[Event], shift: int) -> None:
        """Repeat a layer's segment for the layer that lies ``shift`` deeper."""
        own = self.trace.segments[number].layer
        assert own is not None
        for event in events:
            layer = self.trace.held[event.uid].layer
            if layer is None or abs(layer - own) <= _NEAR:
                self._emit(event, shift)
            else:
                self._emit_flat(event)

    def flat(self, events: list[Event]) -> None:
        """Repeat what belongs to the window's layers, block by block."""
        for is_inside, block in groupby(events, key=lambda e: self.trace.held[e.uid].layer in self.window):
            if not is_inside:
                for event in block:
                    self._emit(event, self.window.shift(self.trace.held[event.uid].layer))
                continue
            repeated = list(block)
            for turn in range(self.window.copies + 1):
                for event in repeated:
                    self._emit(event, turn * self.window.period)

    def _emit_flat(self, event: Event) -> None:
        layer = self.trace.held[event.uid].layer
        turns = range(self.window.copies + 1) if layer in self.window else (0,)
        for turn in turns:
            self._emit(event, turn * self.window.period + self.window.shift(layer))

    def _emit(self, event: Event, shift: int) -> None:
        run, layer, place = self._keys[event.uid]
        key = run, None if layer is None else layer + shift, place
        if event.num_bytes > 0:
            uid = next(self._uids)
            self._live[key] = uid
            self.result.held[uid] = self.trace.held[event.uid]
        else:
            found = self._live.pop(key, None)
            if found is None:
                raise DifferentLayersError(str(key))
            uid = found
        size = self.result.held[uid].num_bytes
        signed = size if event.num_bytes > 0 else -size
        self.result.events.append(Event(uid, signed, event.phase, event.segment, event.stream))
