"""Whatever xpu-smi prints and the variables hold, we read what we can or say ValueError."""

import os
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftwiz.engine.hardware.intel import xpu_smi
from ftwiz.engine.hardware.intel.visibility import visible

EXAMPLES = int(os.environ.get("FTWIZ_FUZZ", "150"))
VALID = (
    '{"device_list": [{"device_id": 0, "device_name": "X [0x020a]", "memory_physical_size_byte": "12"}]}',
    (
        '{"device_level": [{"metrics_type": "XPUM_STATS_POWER", "value": 3}], "tile_level": [{"tile_id": 0,'
        ' "data_list": [{"metrics_type": "XPUM_STATS_MEMORY_USED", "value": 229.1}]}]}'
    ),
    '{"device_util_by_proc_list": [{"device_id": 0, "process_id": 7, "process_name": "p", "mem_size": 5}]}',
    "| 0         | Device Name: Arc |\n|           | Memory Physical Size: 32768.00 MiB |\n",
    "| GPU Power (W) | 15 |\n| GPU Memory Used (MiB) | 24 |\n",
    "         GPU 0/0|GPU 0/1|CPU\nGPU 0/0 |S |MDF |0\nGPU 0/1 |MDF |S |0\n",
)
PARSERS: tuple[Callable[[str], object], ...] = (
    xpu_smi.parse_discovery,
    xpu_smi.parse_stats,
    xpu_smi.parse_processes,
    xpu_smi.parse_topology,
)
PIECES = st.sampled_from(
    ["null", "[", "{}", '"', "\x00", "-1", "9" * 400, "1e999", "NaN", "\n", "|", ":", "²", "true"]
)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A valid output with a piece cut out and something else in its place, or any text at all."""
    text = draw(st.sampled_from(VALID) | st.text(max_size=200))
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, len(text)))
    middle = draw(PIECES | st.text(max_size=20) | st.just(text[:end] * 2))
    return text[:start] + middle + draw(st.sampled_from([text[end:], ""]))


@pytest.mark.parametrize("parse", PARSERS, ids=lambda parse: parse.__name__)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(output=damaged())
def test_a_parser_reads_or_refuses_whatever_it_gets(parse: Callable[[str], object], output: str) -> None:
    try:
        result = parse(output)
    except ValueError:
        return
    assert result is not None


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["ZE_AFFINITY_MASK", "ONEAPI_DEVICE_SELECTOR", "ZE_FLAT_DEVICE_HIERARCHY"]),
        st.text(alphabet="012.,:;!*levl_zroCOMPSITEgpu ²", max_size=30) | st.just("COMPOSITE"),
    )
)
def test_any_value_of_the_variables_picks_places_that_exist_and_none_twice(environ: dict[str, str]) -> None:
    places = visible(environ, (2, 1)).places
    assert set(places) <= {(0, None), (0, 0), (0, 1), (1, None)}
    assert len(set(places)) == len(places)
