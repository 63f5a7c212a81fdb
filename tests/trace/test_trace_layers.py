"""What repeats among a model's layers, and which layers stand for all."""

import pytest

from ftwiz.engine.trace.layers import depths_of


@pytest.mark.parametrize(
    ("kinds", "shallow", "deep", "missing"),
    [
        ("a" * 32, 3, 5, 14.5),
        ("ab" * 16, 4, 6, 14),
        ("b" + "a" * 30, 4, 6, 13.5),  # the first layer is another
        ("aaab" * 6, 4, 8, 5),
        ("aaaaab" * 5 + "aa", 8, 14, 4),  # a group that the end cuts off
    ],
)
def test_the_shallow_models_are_cut_from_what_repeats(
    kinds: str, shallow: int, deep: int, missing: float
) -> None:
    found = depths_of(list(kinds))
    assert found is not None
    assert (len(found.shallow), len(found.deep), found.missing) == (shallow, deep, missing)
    assert len(found.shallow) + (len(found.deep) - len(found.shallow)) * found.missing == len(kinds)


@pytest.mark.parametrize("kinds", ["aaaa", "abcdefgh", "ab"])
def test_a_model_in_which_too_little_repeats_is_traced_whole(kinds: str) -> None:
    assert depths_of(list(kinds)) is None


def test_both_shallow_models_keep_the_kinds_in_their_order() -> None:
    kinds = list("b" + "aaab" * 8)
    found = depths_of(kinds)
    assert found is not None
    text = "".join(kinds[number] for number in found.deep)
    assert "".join(kinds).startswith(text[:-1])
