"""Moore Threads GPUs by mthreads-gmi: recordings as the corpus says, and boxes of our own."""

import json
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine.hardware import mthreads

MIB = 1 << 20
RECORDINGS = ("mthreads-gmi_s5000_2.3.2_head.txt", "mthreads-gmi_s80_1.14.0_head.txt")
HEAD = "    mthreads-gmi:2.0.0           Driver Version:3.0.0\nID   Name           |PCIe        |%GPU  Mem\n"
PROCESSES = (
    "Processes:\nID   PID       Process name                         GPU Memory\n"
    "1    1123      /usr/bin/python3 -m train                    134MiB\n"
)


def card(index: int, used: int, name: str = "MTT S4000") -> str:
    return (
        f"{index}    {name}        |00000000:0{index}:00.0    |7%    {used}MiB(49152MiB)\n"
        "     Physical       |4x(16x)             |49C   YES\n"
        "                                         |      N/A\n"
    )


def said(corpus: Path, name: str) -> str:
    return (corpus / "hardware" / "mthreads" / name).read_text(encoding="utf8")


def test_every_row_of_the_corpus_is_tested_here(corpus: Path) -> None:
    rows = json.loads((corpus / "hardware" / "EXPECTED.json").read_text(encoding="utf8"))
    assert {name for name in rows if name.startswith("mthreads/")} == {f"mthreads/{n}" for n in RECORDINGS}


@pytest.mark.parametrize("name", RECORDINGS)
def test_the_recordings_read_as_expected(corpus: Path, name: str) -> None:
    rows = json.loads((corpus / "hardware" / "EXPECTED.json").read_text(encoding="utf8"))
    found = [
        {
            "index": one.index,
            "name": one.name,
            "bus": one.bus_id,
            "util": one.utilization_percent,
            "used": None if one.used_bytes is None else one.used_bytes // MIB,
            "total": None if one.total_bytes is None else one.total_bytes // MIB,
        }
        for one in mthreads.read_table(said(corpus, name))
    ]
    assert found == rows[f"mthreads/{name}"]["dev"]


def test_the_recorded_temperatures_are_read(corpus: Path) -> None:
    cards = mthreads.read_table(said(corpus, RECORDINGS[0]))
    assert [one.temperature_celsius for one in cards] == [52.0, 51.0, 52.0]


def test_devices_have_memory_lanes_and_processes(box: Any) -> None:
    found = mthreads.inventory(box(tools={"mthreads-gmi": HEAD + card(0, 2) + card(1, 200) + PROCESSES}))
    one, other = found.devices
    assert (one.kind, one.vendor, one.total_bytes, one.pcie_width) == ("musa", "mthreads", 49152 * MIB, 16)
    assert (one.supports_bf16, one.processes, found.problems) == (True, (), ())
    [process] = other.processes
    assert (process.pid, process.name, process.used_bytes) == (1123, "/usr/bin/python3 -m train", 134 * MIB)


@pytest.mark.parametrize(
    ("name", "bf16"), [("MTT S80", False), ("MTT S4000", True), ("MTT S5000", True), ("MTT X300", None)]
)
def test_bf16_is_what_its_makers_said(box: Any, name: str, bf16: bool | None) -> None:
    [one] = mthreads.inventory(box(tools={"mthreads-gmi": HEAD + card(0, 2, name)})).devices
    assert (one.name, one.supports_bf16) == (name, bf16)


def test_the_environment_chooses(box: Any) -> None:
    tools = {"mthreads-gmi": HEAD + card(0, 2) + card(1, 200)}
    [one] = mthreads.inventory(box(tools=tools, environ={"MUSA_VISIBLE_DEVICES": "1"})).devices
    assert (one.index, one.physical_index) == (0, 1)


def test_usage_is_read_and_a_card_that_fell_out_is_lost(box: Any) -> None:
    devices = mthreads.inventory(box(tools={"mthreads-gmi": HEAD + card(0, 2) + card(1, 200)})).devices
    lost, one = mthreads.usage(box(tools={"mthreads-gmi": HEAD + card(1, 300) + PROCESSES}), devices)
    assert (one.memory_used_bytes, one.utilization_percent, one.pids) == (300 * MIB, 7.0, (1123,))
    assert (lost.is_lost, lost.memory_total_bytes) == (True, 49152 * MIB)
    assert mthreads.usage(box(), ()) == ()


def test_presence_is_the_tool_a_node_or_the_card(box: Any) -> None:
    assert not mthreads.is_present(box())
    assert mthreads.is_present(box(files={"/dev/mtgpu.0": ""}))
    assert mthreads.inventory(box()).problems[0].message == "mthreads-gmi: not found"
    assert mthreads.links(box(), ()) == ()
