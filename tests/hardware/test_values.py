"""Readers of single values, on what vendor tools and broken drivers say."""

import math

import pytest

from ftwiz.engine.hardware.values import number, share, whole, word


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (42, 42.0),
        ("42 W", 42.0),
        ("(500Mhz)", 500.0),
        ({"value": 42, "unit": "W"}, 42.0),
        (True, None),
        ("N/A", None),
        (None, None),
        (math.nan, None),
        (math.inf, None),
        (10**400, None),
        (-(10**400), None),
    ],
    ids=lambda value: str(value)[:16],
)
def test_a_number_is_read_and_nonsense_is_unknown(value: object, expected: float | None) -> None:
    assert number(value) == expected


def test_counts_are_not_negative_and_shares_end_at_a_hundred() -> None:
    assert (whole(-1), whole("7 MB")) == (None, 7)
    assert (share(65535), share("31 %")) == (None, 31.0)


def test_a_word_is_one_printable_line() -> None:
    assert word("a\x1b[31m\nb") == "a [31m b"
    assert word("N/A") is None
