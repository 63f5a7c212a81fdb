"""A model of torch's caching allocator: what it reserves when it serves the events of a trace.

Source: torch 2.13, c10/cuda/CUDACachingAllocator.cpp (get_free_block, should_split, try_merge_blocks,
release_cached_blocks) and c10/core/AllocatorConfig.h (constants).
"""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from .tracer import Event, rounded

MIB = 1 << 20
SMALL_REQUEST = MIB
"""Requests up to this come from the small pool."""
SMALL_SEGMENT = 2 * MIB
LARGE_SEGMENT = 20 * MIB
LARGE_REQUEST = 10 * MIB
"""Requests from this on get a segment of their own size, rounded up."""
ROUND_LARGE = 2 * MIB

Pool = tuple[bool, int]
"""Whether it is of large requests, and whose stream's: a block serves only the stream that asked for it."""


@dataclass(slots=True)
class _Block:
    segment: int
    num_bytes: int
    pool: Pool
    is_free: bool = True
    before: int | None = None
    after: int | None = None


@dataclass(slots=True)
class Allocator:
    """Serves requests; ``peak_reserved`` is torch.cuda.max_memory_reserved.

    With expandable segments each pool is one segment that grows by pages at its end.
    """

    expandable: bool = False
    reserved: int = 0
    peak_reserved: int = 0
    allocated: int = 0
    peak_allocated: int = 0
    _free: dict[Pool, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    _blocks: dict[int, _Block] = field(default_factory=dict)
    _given: dict[int, int] = field(default_factory=dict)
    _next: int = 0
    _ends: dict[Pool, int] = field(default_factory=dict)
    """Expandable: last block of each pool."""

    def replay(self, events: Iterable[Event]) -> None:
        """Serve a trace; an event without bytes empties the cache."""
        for event in events:
            if event.num_bytes == 0:
                self.empty_cache()
            elif event.num_bytes > 0:
                self.malloc(event.uid, event.num_bytes, event.stream)
            else:
                self.free(event.uid)

    def malloc(self, uid: int, num_bytes: int, stream: int = 0) -> None:
        """Give a block to a storage that a stream asks for."""
        size = rounded(max(1, num_bytes))
        pool = size > SMALL_REQUEST, stream
        key = self._best_fit(size, pool)
        if key is None:
            key = self._grow(size, pool) if self.expandable else self._segment(size, pool)
        block = self._blocks[key]
        rest = block.num_bytes - size
        if rest > 0 and self._splits(rest, is_large=pool[0]):
            self._split(key, size)
        block.is_free = False
        self._given[uid] = key
        self.allocated += block.num_bytes
        self.peak_allocated = max(self.peak_allocated, self.allocated)

    def free(self, uid: int) -> None:
        """Take a storage's block back and join it with free neighbours."""
        key = self._given.pop(uid)
        block = self._blocks[key]
        self.allocated -= block.num_bytes
        block.is_free = True
        for other in (block.before, block.after):
            if other is not None and self._blocks[other].is_free:
                self._forget(other)
                key = self._join(key, other)
        insort(self._free[block.pool], (self._blocks[key].num_bytes, key))

    def empty_cache(self) -> None:
        """Return whole free segments to the driver."""
        for pool in self._free.values():
            for size, key in list(pool):
                block = self._blocks[key]
                if block.before is None and block.after is None and not self.expandable:
                    pool.remove((size, key))
                    del self._blocks[key]
                    self.reserved -= size

    def _best_fit(self, size: int, pool: Pool) -> int | None:
        free = self._free[pool]
        place = bisect_left(free, (size, -1))
        return free.pop(place)[1] if place < len(free) else None

    def _splits(self, rest: int, *, is_large: bool) -> bool:
        return rest > SMALL_REQUEST if is_large and not self.expandable else rest > 0

    def _segment(self, size: int, pool: Pool) -> int:
        if not pool[0]:
            whole = SMALL_SEGMENT
        elif size < LARGE_REQUEST:
            whole = LARGE_SEGMENT
        else:
            whole = -(-size // ROUND_LARGE) * ROUND_LARGE
        return self._new(whole, pool)

    def _grow(self, size: int, pool: Pool) -> int:
        """Map pages behind the last block, or enlarge it when it is free."""
        page = LARGE_SEGMENT if pool[0] else SMALL_SEGMENT
        end = self._ends.get(pool)
        missing = size
        if end is not None and self._blocks[end].is_free:
            missing -= self._blocks[end].num_bytes
            self._forget(end)
        mapped = -(-missing // page) * page
        key = self._new(mapped, pool)
        if end is not None:
            self._blocks[end].after, self._blocks[key].before = key, end
            if self._blocks[end].is_free:
                key = self._join(end, key)
        self._ends[pool] = key
        return key

    def _new(self, size: int, pool: Pool) -> int:
        self._next += 1
        self._blocks[self._next] = _Block(self._next, size, pool)
        self.reserved += size
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        return self._next

    def _split(self, key: int, size: int) -> None:
        block = self._blocks[key]
        self._next += 1
        rest = _Block(block.segment, block.num_bytes - size, block.pool, before=key, after=block.after)
        if block.after is not None:
            self._blocks[block.after].before = self._next
        elif self.expandable:
            self._ends[block.pool] = self._next
        block.num_bytes, block.after = size, self._next
        self._blocks[self._next] = rest
        insort(self._free[block.pool], (rest.num_bytes, self._next))

    def _forget(self, key: int) -> None:
        block = self._blocks[key]
        free = self._free[block.pool]
        del free[bisect_left(free, (block.num_bytes, key))]

    def _join(self, one: int, other: int) -> int:
        """Make two neighbours one; returns the block that is left."""
        left, right = (one, other) if self._blocks[one].after == other else (other, one)
        gone = self._blocks.pop(right)
        kept = self._blocks[left]
        kept.num_bytes += gone.num_bytes
        kept.after = gone.after
        if gone.after is not None:
            self._blocks[gone.after].before = left
        elif self.expandable:
            self._ends[kept.pool] = left
        kept.is_free = True
        return left
