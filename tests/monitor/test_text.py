import math
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftwiz.tui.text import clock, count, duration, fit, number, percent, rate, safe, shorten, size, width_of

WILD = st.text(st.characters(exclude_categories=()), max_size=60)


@given(WILD)
def test_safe_text_holds_no_control_no_line_break_and_no_lone_surrogate(text: str) -> None:
    clean = safe(text)
    assert all(unicodedata.category(character) not in {"Cc", "Cs", "Zl", "Zp"} for character in clean)
    clean.encode("utf8")


@given(WILD)
def test_safe_text_holds_nothing_that_reorders_or_hides(text: str) -> None:
    bidirectional = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    assert not bidirectional & {unicodedata.bidirectional(character) for character in safe(text)}
    assert not set("\u200b\u200d\u200e\u200f\ufeff\ufe0f") & set(safe(text))


@given(WILD)
def test_making_safe_text_safe_changes_nothing(text: str) -> None:
    assert safe(safe(text)) == safe(text)


def test_text_of_people_stays_as_it_is() -> None:
    for text in (
        "plain",
        "naïve café",
        "模型 训练",
        "مرحبا",
        "हिन्दी",
        "Ünïcödé 🙂",
        "[/] [bold] [@click=app.quit]",
    ):
        assert safe(text) == text


def test_of_an_endless_text_only_the_beginning_is_kept() -> None:
    assert len(safe("x" * 10_000_000)) <= 4096


@given(WILD, st.integers(0, 40))
def test_fitted_text_takes_exactly_its_cells(text: str, width: int) -> None:
    assert width_of(fit(safe(text), width)) == width
    assert width_of(shorten(safe(text), width)) <= width


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "n/a"),
        (math.nan, "NaN"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (0.0, "0"),
        (1.08424, "1.084"),
        (0.001234, "0.001234"),
        (14210.4, "14,210"),
        (1.62e-5, "1.62e-5"),
        (3.2e9, "3.20e9"),
    ],
)
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


@given(st.floats())
def test_every_number_can_be_written(value: float) -> None:
    for write in (number, rate, count, percent, duration):
        assert write(value)


def test_quantities() -> None:
    assert [size(None), size(0), size(1023), size(1536), size(80 * 2**30), size(2**50)] == [
        "n/a",
        "0 B",
        "1023 B",
        "1.5 KiB",
        "80.0 GiB",
        "1024 TiB",
    ]
    assert [duration(0.24), duration(59.6), duration(72), duration(9371), duration(273_900)] == [
        "0.24 s",
        "1:00",
        "1:12",
        "2:36:11",
        "3 d 04:05",
    ]
    assert [clock(7), clock(90_000)] == ["0:00:07", "1 d 1:00:00"]
    assert [percent(0.941), count(14_210.0), rate(2e-4), rate(0.0)] == ["94 %", "14,210", "2.00e-4", "0"]
