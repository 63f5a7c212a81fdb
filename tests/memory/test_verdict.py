"""The verdict: never a false "fits", and a reason with its numbers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftwiz.engine.memory.verdict import (
    DRIVER_KEEPS_BYTES,
    place_verdict,
    shared_verdict,
    usable_bytes,
    verdict,
)
from ftwiz.engine.specs.estimate import PHASES, Estimate, Place, Term

GIB = 1 << 30


def term(num_bytes: int, place: Place = "device") -> Term:
    return Term(
        name=f"some {place} bytes",
        group="weights",
        num_bytes=num_bytes,
        phases=PHASES,
        formula=f"{num_bytes:,} B",
        source="here",
        place=place,
    )


def estimate(
    device: int = 0,
    *,
    reserved: int = 0,
    driver: int = 0,
    host: int = 0,
    disk: int = 0,
    uncertainty: float = 0.1,
) -> Estimate:
    places: dict[Place, int] = {
        "device": device,
        "reserved": reserved,
        "driver": driver,
        "host": host,
        "disk": disk,
    }
    terms = tuple(term(size, place) for place, size in places.items())
    return Estimate(tier="fast", terms=terms, uncertainty=uncertainty, basis="a test")


def test_what_leaves_its_margin_free_fits() -> None:
    found = verdict(estimate(10 * GIB), 11 * GIB)
    assert (found.word, found.needed_bytes, found.free_bytes) == ("fits", 11 * GIB, 11 * GIB)
    assert (
        found.text
        == "10.0 GiB and a margin of 1.0 GiB for what the estimate may be wrong by; 11.0 GiB are free"
    )


def test_what_fits_only_without_its_margin_is_tight() -> None:
    assert verdict(estimate(10 * GIB), 11 * GIB - 1).word == "tight"
    assert verdict(estimate(10 * GIB), 10 * GIB).word == "tight"


def test_more_than_is_free_does_not_fit() -> None:
    found = verdict(estimate(10 * GIB, driver=GIB), 10 * GIB)
    assert (found.word, found.text) == ("no", "11.0 GiB at least, and 10.0 GiB are free")


def test_a_surer_estimate_needs_less_margin() -> None:
    words = [verdict(estimate(10 * GIB, uncertainty=share), int(10.6 * GIB)).word for share in (0.1, 0.05)]
    assert words == ["tight", "fits"]


def test_what_the_allocator_can_give_back_makes_it_tight_and_not_impossible() -> None:
    assert verdict(estimate(10 * GIB, reserved=GIB), int(10.5 * GIB)).word == "tight"


def test_unknown_free_memory_is_an_unknown_verdict() -> None:
    found = verdict(estimate(GIB), None)
    assert (found.word, found.free_bytes) == ("unknown", None)


def test_of_a_card_that_is_only_written_down_the_driver_keeps_its_part() -> None:
    assert usable_bytes(None, 24 * GIB) == 24 * GIB - DRIVER_KEEPS_BYTES
    assert verdict(estimate(24 * GIB), None, 24 * GIB).word == "no"
    assert usable_bytes(5, 24 * GIB) == 5
    assert usable_bytes(None, 1) == 0


def test_ranks_that_share_one_memory_are_added_up() -> None:
    one = estimate(10 * GIB, host=5 * GIB, uncertainty=0)
    assert shared_verdict(one, 25 * GIB, num_ranks=2).word == "fits"
    assert shared_verdict(one, 25 * GIB - 1, num_ranks=2).word == "no"


def test_host_and_disk_have_verdicts_of_their_own() -> None:
    one = estimate(GIB, host=2_000 * GIB, disk=3 * GIB)
    assert place_verdict(one, "host", 256 * GIB).word == "no"
    assert place_verdict(one, "disk", 256 * GIB).word == "fits"
    assert place_verdict(one, "disk", None).word == "unknown"


@pytest.mark.parametrize("share", [math.nan, math.inf, -0.1])
def test_an_estimate_that_is_unsure_of_itself_never_fits(share: float) -> None:
    assert verdict(estimate(1, uncertainty=share), 80 * GIB).word == "unknown"


def test_an_estimate_that_counts_nothing_never_fits() -> None:
    assert verdict(estimate(0), 80 * GIB).word == "unknown"


sizes = st.integers(1, 1 << 60)


@given(device=sizes, reserved=sizes, driver=sizes, free=sizes, share=st.floats(0, 10))
def test_fits_means_that_process_and_margin_are_free(
    device: int, reserved: int, driver: int, free: int, share: float
) -> None:
    one = estimate(device, reserved=reserved, driver=driver, uncertainty=share)
    found = verdict(one, free)
    if found.word == "fits":
        assert one.process_bytes * (1 + share) <= free * (1 + 1e-9) + 1
    assert (found.word == "no") == (device + driver > free)


@given(device=sizes, free=sizes, more=sizes, share=st.floats(0, 10))
def test_more_free_memory_never_makes_a_verdict_worse(
    device: int, free: int, more: int, share: float
) -> None:
    order = ["no", "tight", "fits"]
    one = estimate(device, uncertainty=share)
    assert order.index(verdict(one, free + more).word) >= order.index(verdict(one, free).word)


@given(device=sizes, extra=sizes, free=sizes)
def test_a_bigger_estimate_never_gets_a_better_verdict(device: int, extra: int, free: int) -> None:
    order = ["no", "tight", "fits"]
    words = [verdict(estimate(size), free).word for size in (device, device + extra)]
    assert order.index(words[1]) <= order.index(words[0])
