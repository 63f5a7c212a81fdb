"""The model of torch's caching allocator, by the rules that its source states."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftwiz.engine.trace.allocator import MIB, Allocator


def _served(*sizes: int, expandable: bool = False) -> Allocator:
    allocator = Allocator(expandable=expandable)
    for uid, size in enumerate(sizes):
        allocator.malloc(uid, size)
    return allocator


@pytest.mark.parametrize(
    ("size", "reserved"),
    [(1, 2 * MIB), (MIB, 2 * MIB), (MIB + 1, 20 * MIB), (10 * MIB, 10 * MIB), (11 * MIB, 12 * MIB)],
)
def test_a_first_request_reserves_a_segment_of_its_class(size: int, reserved: int) -> None:
    assert _served(size).reserved == reserved


def test_small_requests_share_a_segment() -> None:
    allocator = _served(*[512] * 4096)
    assert allocator.reserved == 2 * MIB
    assert allocator.allocated == 2 * MIB


def test_a_rest_of_a_mebibyte_is_given_with_the_block() -> None:
    assert _served(19 * MIB + 512 * 1024).allocated == 20 * MIB


def test_freed_neighbours_become_one_block_again() -> None:
    allocator = _served(*[5 * MIB] * 4)
    for uid in (0, 2, 1, 3):
        allocator.free(uid)
    allocator.malloc(9, 20 * MIB)
    assert allocator.reserved == 20 * MIB


def test_the_smallest_block_that_fits_is_taken() -> None:
    allocator = _served(30 * MIB, 24 * MIB)
    allocator.free(0)
    allocator.free(1)
    allocator.malloc(2, 22 * MIB)
    allocator.malloc(3, 30 * MIB)
    assert allocator.reserved == 54 * MIB


@pytest.mark.parametrize("expandable", [False, True])
def test_a_stream_is_not_served_from_what_another_has_freed(expandable: bool) -> None:
    allocator = Allocator(expandable=expandable)
    allocator.malloc(0, 20 * MIB, stream=0)
    allocator.free(0)
    allocator.malloc(1, 20 * MIB, stream=1)
    assert allocator.reserved == 40 * MIB
    allocator.malloc(2, 20 * MIB, stream=0)
    assert allocator.reserved == 40 * MIB


def test_emptying_the_cache_returns_free_segments_only() -> None:
    allocator = _served(30 * MIB, 24 * MIB)
    allocator.free(0)
    allocator.empty_cache()
    assert allocator.reserved == 24 * MIB
    assert allocator.peak_reserved == 54 * MIB


def test_expandable_segments_are_filled_where_separate_ones_leave_gaps() -> None:
    """A block that grows each time fits into no segment that was left, but pages join."""

    def growing(*, expandable: bool) -> int:
        allocator = Allocator(expandable=expandable)
        for uid in range(10):
            allocator.malloc(uid, (20 + 2 * uid) * MIB)
            allocator.free(uid)
        return allocator.reserved

    assert growing(expandable=True) == 40 * MIB
    assert growing(expandable=False) == sum(20 + 2 * uid for uid in range(10)) * MIB


@given(
    st.lists(st.tuples(st.integers(1, 64 * MIB), st.integers(0, 8)), min_size=1, max_size=60), st.booleans()
)
def test_what_is_reserved_holds_what_is_given(requests: list[tuple[int, int]], expandable: bool) -> None:
    allocator = Allocator(expandable=expandable)
    live: list[int] = []
    for uid, (size, num_freed) in enumerate(requests):
        for _ in range(min(num_freed, len(live))):
            allocator.free(live.pop(len(live) // 2))
        allocator.malloc(uid, size)
        live.append(uid)
        assert allocator.reserved >= allocator.allocated
    for uid in live:
        allocator.free(uid)
    assert allocator.allocated == 0
    assert allocator.peak_reserved >= allocator.peak_allocated
