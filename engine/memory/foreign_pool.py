"""What torch's allocator maps for the tensors of a tape in one expandable segment. Pure.

Source: torch 2.13, c10/cuda/CUDACachingAllocator.cpp: the smallest free block that is large enough is taken,
its rest stays free, free neighbours become one, and pages are added behind the last block only.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable

from .lines import rounded
from .tape_sizes import Part

PAGE_BYTES = 20 << 20


class Pool:
    """One segment that grows at its end."""

    def __init__(self) -> None:
        self.mapped = 0
        self._free: list[tuple[int, int]] = []
        """Size and place of free blocks."""
        self._starts: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        """Of free blocks: place -> size; end -> place."""

    def take(self, size: int) -> int:
        """Return the place of a new block."""
        found = bisect_left(self._free, (size, -1))
        if found == len(self._free):
            self._grow(size)
            found = bisect_left(self._free, (size, -1))
        whole, place = self._free[found]
        self._forget(place)
        if whole > size:
            self._add(place + size, whole - size)
        return place

    def give(self, place: int, size: int) -> None:
        """Take a block back."""
        after = self._starts.get(place + size)
        if after is not None:
            self._forget(place + size)
            size += after
        before = self._ends.get(place)
        if before is not None:
            size += self._starts[before]
            self._forget(before)
            place = before
        self._add(place, size)

    def _grow(self, size: int) -> None:
        last = self._ends.get(self.mapped)
        missing = size - (self._starts[last] if last is not None else 0)
        pages = -(-missing // PAGE_BYTES) * PAGE_BYTES
        place, self.mapped = self.mapped, self.mapped + pages
        self.give(place, pages)

    def _add(self, place: int, size: int) -> None:
        insort(self._free, (size, place))
        self._starts[place], self._ends[place + size] = size, place

    def _forget(self, place: int) -> None:
        size = self._starts.pop(place)
        del self._ends[place + size]
        del self._free[bisect_left(self._free, (size, place))]


def mapped_bytes(trail: Iterable[tuple[int, Part]], tokens: int, sequence: int) -> int:
    """Return what is mapped in the end for tensors that are made and dropped in this order."""
    pool, places = Pool(), dict[int, tuple[int, int]]()
    for number, part in trail:
        if number > 0:
            size = max(512, rounded(part.size.at(tokens, sequence)))
            places[number] = (pool.take(size), size)
        elif -number in places:
            pool.give(*places.pop(-number))
    return pool.mapped
