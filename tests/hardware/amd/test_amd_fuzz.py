"""Whatever AMD's tools print, a parser reads what it can or says ValueError."""

import json
import os
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftwiz.engine.hardware.amd import amd_smi, kfd, rocm_smi, rocminfo
from ftwiz.engine.hardware.amd.visibility import visible

EXAMPLES = int(os.environ.get("FTWIZ_FUZZ", "150"))
STATIC = (
    '{"gpu_data": [{"gpu": 0, "asic": {"market_name": "X", "device_id": "0x74a1", "asic_serial": "0x6F1F"},'
    ' "bus": {"bdf": "0000:83:00.0", "pcie_interface_version": "Gen 5"}, "partition": {"partition_id": 1},'
    ' "vram": {"size": {"value": 196592, "unit": "MB"}}, "links": [{"bdf": "0000:84:00.0",'
    ' "link_type": "XGMI"}],'
    ' "process_list": [{"process_info": {"pid": 4, "memory_usage": {"vram_mem": "7.3 GB"}}}]}]}'
)
TEXT = "GPU: 0\n    BUS:\n        BDF: 0000:05:00.0\n    POWER:\n        SOCKET_POWER: 234 W\n"
TABLES = "LINK TYPE TABLE:\n   0000:05:00.0 0000:26:00.0\n0000:05:00.0 SELF XGMI\n"
MONITOR = "GPU  POWER  GPU_TEMP  GFX_UTIL\n  0  182 W     42 C      83 %\n"
ROCM = (
    '{"card0": {"VRAM Total Memory (B)": "123", "Unique ID": "0x5c88", "GPU use (%)": "7", "PCI Bus": "0"}}'
)
LINES = "GPU[0]\t\t: VRAM Total Memory (B): 34342961152\nGPU[1]\t\t: GFX Version: \t\tgfx906\n"
TABLE = "Device  Temp   Power  Perf  PwrCap  GPU%\n0     34.0C  43.0W  auto  300.0W  0%\n     MI210\n"
INFO = "Agent 2\n  Name:  gfx1101\n  Uuid:  GPU-5c88\n  Device Type: GPU\n  BDFID: 768\n  Size: 670(0x3) KB\n"
LINK = json.dumps({"system": {"(Topology) Link type between DRM devices 0 and 1": "XGMI"}})
VALID = (STATIC, TEXT, TABLES, MONITOR, ROCM, LINES, TABLE, INFO, LINK)
PARSERS: tuple[Callable[[str], object], ...] = (
    amd_smi.parse_cards,
    amd_smi.parse_monitor,
    amd_smi.parse_processes,
    amd_smi.parse_topology,
    rocm_smi.parse_cards,
    rocm_smi.parse_links,
    rocminfo.parse_cards,
    kfd.parse_properties,
)
PIECES = st.sampled_from(
    [
        "N/A",
        "null",
        "[",
        "]",
        "{}",
        '"',
        "\x00",
        "-1",
        "9" * 400,
        "1e999",
        "NaN",
        "\n",
        "GPU: ",
        ":",
        "²",
        "٣",
        "true",
    ]
)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A valid output with a piece cut out and something else in its place, or any text at all."""
    text = draw(st.sampled_from(VALID) | st.text(max_size=200))
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, len(text)))
    middle = draw(PIECES | st.text(max_size=20) | st.just(text[:end] * 2))
    return text[:start] + middle + draw(st.sampled_from([text[end:], ""]))


@pytest.mark.parametrize(
    "parse", PARSERS, ids=lambda parse: f"{parse.__module__.rpartition('.')[2]}.{parse.__name__}"
)
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
        st.sampled_from(["HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"]),
        st.text(alphabet="0123,-+xGPUgpu abf\n²", max_size=30),
    )
)
def test_any_value_of_the_variables_picks_devices_that_exist_and_none_twice(environ: dict[str, str]) -> None:
    chosen = visible(environ, ["GPU-000000000000000a", "GPU-000000000000000b", None]).positions
    assert set(chosen) <= {0, 1, 2}
    assert len(set(chosen)) == len(chosen)
