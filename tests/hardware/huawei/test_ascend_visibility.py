"""ASCEND_RT_VISIBLE_DEVICES as the CANN runtime reads it; the cases are those of its own unit tests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftwiz.engine.hardware.huawei.visibility import visible

LONG = "0,1,3,4,5,6,7,8,9," + ",".join(["1,2,3,4,5,6,7,8,9"] * 7)


@pytest.mark.parametrize(
    ("value", "count"),
    [
        ("", 0),
        (",0", 0),
        ("0,1,5,7", 2),
        ("1", 1),
        ("1,,", 1),
        ("1*", 1),
        ("1,", 1),
        ("0,1", 2),
        ("0,1$0,", 2),
        ("0#1,", 1),
        ("-1,3", 0),
        ("0,1,2", 3),
        ("0,1,2,0", 3),
        ("10,", 0),
        ("10", 0),
        ("1,-1", 1),
        ("0,1,1", 0),
        ("1,0,1", 0),
        ("1,1,0", 0),
        (LONG, 2),
        ("1234567891012345678910123456789", 0),
    ],
)
def test_of_three_devices_as_many_are_visible_as_the_runtime_counts(value: str, count: int) -> None:
    seen = visible(value, 3)
    assert len(seen.logic_ids) == count
    assert (seen.refused is None) == (count > 0)


def test_unset_is_all() -> None:
    assert visible(None, 3).logic_ids == (0, 1, 2)


def test_a_space_ends_the_list() -> None:
    assert visible("1, 2,3", 8).logic_ids == (1,)


@pytest.mark.parametrize(
    ("value", "reason"),
    [("3,1", "ascending order"), ("0,2,2", "there twice"), ("8", "none of the 8 devices")],
)
def test_a_refused_list_says_why(value: str, reason: str) -> None:
    assert reason in (visible(value, 8).refused or "")


@given(st.text(max_size=40) | st.from_regex(r"[0-9,]{0,20}", fullmatch=True), st.integers(0, 16))
def test_what_is_visible_is_there_once_and_ascending(value: str, count: int) -> None:
    ids = visible(value, count).logic_ids
    assert list(ids) == sorted(set(ids))
    assert all(0 <= logic < count for logic in ids)
