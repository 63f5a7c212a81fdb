"""From measurements to a line, and from the line to an estimate: arithmetic on written rows."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftwiz.engine.calibration import Calibration, Usage, workload_key
from ftwiz.engine.errors import BadInput
from ftwiz.engine.known import fit_of, probe_estimate
from ftwiz.engine.known.fit import REPEATABILITY
from ftwiz.engine.models import spec_from_config
from ftwiz.engine.specs.estimate import Estimate, Term
from ftwiz.engine.specs.workload import Sharding, Workload

MIB = 1 << 20
MODEL = spec_from_config(
    {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 100,
    },
    where="config.json",
)
WORK = Workload(model=MODEL, sequence_tokens=1024)
KEY = workload_key(WORK)


def row(tokens: int, *, key: str | None = KEY, **changes: Any) -> Calibration:
    """A probe of 1000 MiB and 1 MiB for every token, as a GPU tells it."""
    allocated = (1000 + tokens) * MIB
    steps = Usage(
        allocated_bytes=allocated,
        reserved_bytes=allocated + 50 * MIB,
        process_bytes=allocated + 450 * MIB,
        host_bytes=3000 * MIB,
        grown_bytes=1000 * MIB,
    )
    made = Calibration(
        t=1_750_000_000.0 + tokens,
        source="probe",
        outcome="finished",
        ftwiz="0",
        device_kind="cuda",
        device_name="card",
        num_ranks=1,
        key=key,
        sequence_tokens=tokens,
        micro_batch_size=1,
        batch_tokens=tokens,
        load=Usage(allocated_bytes=900 * MIB, reserved_bytes=910 * MIB, process_bytes=1300 * MIB),
        steps=steps,
    )
    return replace(made, **changes)


def test_two_probes_make_a_line_through_both() -> None:
    fit = fit_of([row(512), row(1024)])
    assert fit.tokens == (512, 1024)
    assert fit.scatter == 0
    line = fit.lines["allocated_bytes"]
    assert line.fixed_bytes == pytest.approx(1000 * MIB)
    assert line.bytes_per_token == pytest.approx(MIB)
    assert line.at(2048) == 3048 * MIB


@given(
    st.floats(0, 1e12),
    st.floats(0, 1e8),
    st.lists(st.integers(8, 10**6), min_size=2, max_size=6, unique=True),
)
def test_a_line_is_found_again(fixed: float, slope: float, tokens: list[int]) -> None:
    rows = [row(count, steps=Usage(allocated_bytes=round(fixed + slope * count))) for count in tokens]
    fit = fit_of(rows)
    for one in rows:
        assert one.steps is not None
        assert one.steps.allocated_bytes is not None
        found = fit.lines["allocated_bytes"].at(one.tokens)
        assert found == pytest.approx(one.steps.allocated_bytes, rel=1e-6, abs=3)


def test_memory_that_does_not_grow_is_constant_at_its_highest() -> None:
    rows = [
        row(512, steps=Usage(allocated_bytes=100)),
        row(1024, steps=Usage(allocated_bytes=90)),
    ]
    line = fit_of(rows).lines["allocated_bytes"]
    assert (line.at(10), line.at(10**6)) == (100, 100)


def test_two_probes_are_counted_from_one_start() -> None:
    """Of a process's start only what it has read of its libraries differs from time to time."""
    rows = [
        row(512, steps=Usage(host_bytes=1500, grown_bytes=900)),
        row(1024, steps=Usage(host_bytes=2000, grown_bytes=1390)),
    ]
    line = fit_of(rows).lines["grown_bytes"]
    assert (line.at(512), line.at(1024)) == (900, 1400)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row(512)],
        [row(512), row(512)],
        [row(512), row(1024, outcome="failed")],
        [row(512), row(1024, source="run")],
        [row(512), row(1024, steps=None)],
    ],
    ids=["none", "one", "one length", "a failure", "a run", "nothing measured"],
)
def test_without_two_good_probes_there_is_no_line(rows: list[Calibration]) -> None:
    with pytest.raises(BadInput, match="two token counts"):
        fit_of(rows)


def test_of_equal_token_counts_the_newest_counts() -> None:
    older = row(1024, steps=Usage(allocated_bytes=1))
    assert fit_of([row(512), older, row(1024)]).lines["allocated_bytes"].bytes_per_token > 0


def test_the_estimate_is_what_was_measured_where_it_was_measured() -> None:
    found = probe_estimate(WORK, fit_of([row(512), row(1024)]))
    assert found.tier == "probe"
    assert found.allocated_bytes == 2024 * MIB
    assert found.reserved_bytes == 2074 * MIB
    assert found.process_bytes == 2474 * MIB
    assert found.phase_bytes("load") == 900 * MIB
    assert found.phase_bytes("load", "driver") == 390 * MIB
    assert found.host_bytes == 3000 * MIB
    assert found.uncertainty == REPEATABILITY
    assert all(term.source.startswith("probe: card, 2025-06-15") for term in found.terms)


def test_what_the_probe_did_not_measure_is_kept_from_the_model() -> None:
    terms = tuple(
        Term(
            name=name,
            group="checkpoints",
            num_bytes=num_bytes,
            phases=("load", "forward", "save"),
            formula="",
            source="",
            place=place,  # type: ignore[arg-type]
        )
        for name, num_bytes, place in [
            ("on the device", 10**12, "device"),
            ("on the host", 5000 * MIB, "host"),
            ("on the disk", 777, "disk"),
        ]
    )
    modelled = Estimate(tier="fast", terms=terms, uncertainty=0.1, basis="")
    found = probe_estimate(WORK, fit_of([row(512), row(1024)]), modelled)
    assert found.allocated_bytes == 2024 * MIB
    assert found.disk_bytes == 777
    assert found.host_bytes == 5000 * MIB


def test_further_from_what_was_measured_it_is_less_sure_and_says_so() -> None:
    fit = fit_of([row(512), row(1024)])
    near, far = (probe_estimate(replace(WORK, sequence_tokens=tokens), fit) for tokens in (700, 4096))
    assert near.uncertainty < far.uncertainty
    assert not any("outside" in note for note in near.notes)
    assert any("4,096 tokens are outside" in note for note in far.notes)


def test_the_ranks_of_a_node_share_its_host() -> None:
    two = replace(WORK, sharding=Sharding(backend="ddp", num_ranks=2, ranks_per_node=2))
    fit = fit_of([row(tokens, key=workload_key(two)) for tokens in (512, 1024)])
    assert probe_estimate(two, fit).host_bytes == 2 * 3000 * MIB


def test_on_the_cpu_the_growth_of_the_process_is_the_device() -> None:
    work = replace(WORK, device_kind="cpu")
    rows = [
        row(
            tokens,
            key=workload_key(work),
            device_kind="cpu",
            load=Usage(grown_bytes=5 * MIB),
            steps=Usage(host_bytes=(600 + tokens) * MIB, grown_bytes=(100 + tokens) * MIB),
        )
        for tokens in (512, 1024)
    ]
    found = probe_estimate(work, fit_of(rows))
    assert found.allocated_bytes == found.process_bytes == 1124 * MIB
    assert found.host_bytes == 500 * MIB


@pytest.mark.parametrize("key", [None, "another"])
def test_a_probe_of_another_workload_is_refused(key: str | None) -> None:
    fit = fit_of([row(512, key=key), row(1024, key=key)])
    with pytest.raises(BadInput, match="another model"):
        probe_estimate(WORK, fit)


def test_a_fit_without_the_device_is_refused() -> None:
    rows = [row(tokens, steps=Usage(host_bytes=5)) for tokens in (512, 1024)]
    with pytest.raises(BadInput, match="nothing was measured"):
        probe_estimate(WORK, fit_of(rows))


@given(st.integers(8, 10**7), st.integers(8, 10**7))
def test_more_tokens_never_need_less(one: int, other: int) -> None:
    fit = fit_of([row(512), row(1024)])
    low, high = sorted((one, other))
    needed = [
        probe_estimate(replace(WORK, sequence_tokens=tokens), fit).process_bytes for tokens in (low, high)
    ]
    assert needed == sorted(needed)
