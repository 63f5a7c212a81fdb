"""DCUs by hy-smi: other keys, MiB instead of bytes, a table without memory."""

import json
from pathlib import Path
from typing import Any

from ftwiz.engine.hardware import hygon
from ftwiz.engine.hardware.amd import rocm_smi, rocminfo
from ftwiz.engine.hardware.amd.card import gpu_uuid

MIB = 1 << 20


def said(corpus: Path, name: str) -> str:
    return (corpus / "hardware" / "hygon" / name).read_text(encoding="utf8")


def card(unique: str, used: int) -> dict[str, str]:
    return {
        "Card Series": "DCU K100_AI",
        "Unique ID": unique,
        "HCU use (%)": "12",
        "Average Graphics Package Power (W)": "81.5",
        "Temperature (Sensor junction) (C)": "44.0",
        "vram Total Memory (MiB)": "65520",
        "vram Total Used Memory (MiB)": str(used),
    }


def test_the_recording_reads_as_expected_where_the_row_says_something(corpus: Path) -> None:
    """The row has None for memory, of a parser that knew AMD's keys only; the recording says 65520 MiB."""
    rows = json.loads((corpus / "hardware" / "EXPECTED.json").read_text(encoding="utf8"))
    [row] = rows["hygon/hy-smi_k100_dtk24.04.json"]["cards"]
    [found] = rocm_smi.parse_cards(said(corpus, "hy-smi_k100_dtk24.04.json"))
    assert (f"card{found.number}", found.name, found.architecture) == (row["card"], row["name"], row["gfx"])
    assert (found.uuid, found.utilization_percent) == (gpu_uuid(row["uuid"]), row["util"])
    assert (row["total"], row["used"]) == (None, None)
    assert (found.total_bytes, found.used_bytes) == (65520 * MIB, 2 * MIB)
    assert (found.power_watts, found.temperature_celsius) == (80.0, 39.0)


def test_rocminfo_of_the_dtk_gives_the_gfx_target(corpus: Path, box: Any) -> None:
    text = said(corpus, "rocminfo_k100_dtk24.04.txt")
    [agent] = rocminfo.parse_cards(text)
    assert (agent.architecture, agent.bus_id, agent.total_bytes) == ("gfx928", None, 65520 * MIB)
    tools = {"hy-smi": said(corpus, "hy-smi_k100_dtk24.04.json"), "rocminfo": text}
    [device] = hygon.inventory(box(tools=tools)).devices
    assert (device.name, device.architecture, device.supports_bf16) == ("DCU xxxx", "gfx928", None)


def test_the_plain_table_is_read(corpus: Path) -> None:
    cards = rocm_smi.parse_cards(said(corpus, "hy-smi_dcu_8x_table_flagperf.txt"))
    assert [found.number for found in cards] == list(range(8))
    assert (cards[3].temperature_celsius, cards[3].power_watts, cards[3].power_limit_watts) == (
        55.0,
        96.0,
        300.0,
    )
    assert {found.utilization_percent for found in cards} == {0.0}
    assert {found.total_bytes for found in cards} == {None}


def test_the_visible_ones_are_devices_with_links_and_readings(box: Any) -> None:
    cards = {"card0": card("7100fa88669040aa", 100), "card1": card("7100fa88669040ab", 300)}
    topology = {"system": {"(Topology) Link type between DRM devices 0 and 1": "XGMI"}}
    said = {"--showtopotype": json.dumps(topology), "-i": json.dumps(cards)}
    system = box(tools={"hy-smi": said}, environ={"HIP_VISIBLE_DEVICES": "1,0"})
    assert hygon.is_present(system)
    found = hygon.inventory(system)
    assert not found.problems
    first, second = found.devices
    assert (first.kind, first.vendor, first.uuid, first.physical_index) == (
        "cuda",
        "hygon",
        "GPU-7100fa88669040ab",
        1,
    )
    assert (first.total_bytes, first.free_bytes) == (65520 * MIB, 65220 * MIB)
    assert [(link.first, link.second, link.kind) for link in hygon.links(system, found.devices)] == [
        (0, 1, "xgmi")
    ]
    readings = hygon.usage(system, found.devices)
    assert [reading.memory_used_bytes for reading in readings] == [300 * MIB, 100 * MIB]
    assert (readings[1].utilization_percent, readings[1].power_watts) == (12.0, 81.5)
    assert second.index == 1


def test_without_a_tool_there_is_a_problem_and_no_device(box: Any) -> None:
    system = box(files={"/sys/class/drm/card0/device/vendor": "0x1d94\n"})
    assert hygon.is_present(system)
    found = hygon.inventory(system)
    assert not found.devices
    assert [problem.message for problem in found.problems] == ["hy-smi: not found"]


def test_an_output_that_cannot_be_read_is_one_line(box: Any) -> None:
    found = hygon.inventory(box(tools={"hy-smi": "驱动未加载\n\x00"}))
    assert not found.devices
    assert [problem.message for problem in found.problems] == ["hy-smi: no card in it"]
