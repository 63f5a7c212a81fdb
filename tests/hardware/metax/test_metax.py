"""MetaX GPUs by mx-smi: recordings as the corpus says, the older layout, and boxes of our own."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine.hardware import metax
from ftwiz.engine.hardware.tables import matrix

MIB = 1 << 20
TABLE = "mx-smi_C500_8x.txt"
TOPOLOGY = "mx-smi-topo-m_C500_8x.txt"
PROCESSES = (
    "| Process:                                                                        |\n"
    "|  GPU                    PID         Process Name                 GPU Memory     |\n"
    "|                                                                  Usage(MiB)     |\n"
    "|  0                  3496691         python3.10                   4066           |\n"
    "|  1                    22854         ray::RayWorkerW              59584          |\n"
)
LISTED = "".join(
    f"GPU#{at}    MXC500      0000:0{at}:00.0   Available (UUID: GPU-{at}abc-def)\n" for at in range(2)
)


def new(*used: int) -> str:
    return "| MX-SMI 2.2.9            Kernel Mode Driver Version: 3.4.4            |\n" + "".join(
        f"| {at + 4}     MetaX C500 | {at}           Off | 0000:0{at}:00.0        | 12%          Disabled |\n"
        f"| 57W / 350W       | 35C          P0 | {one}/65536 MiB       | Available            |\n"
        "+------------------+-----------------+---------------------+----------------------+\n"
        for at, one in enumerate(used)
    )


def old(*used: int) -> str:
    return "| MX-SMI 2.1.12           Kernel Mode Driver Version: 2.12.13         |\n" + "".join(
        f"| {at}           MXC500                 | 0000:0{at}:00.0        | 12%                  |\n"
        f"| 35C         57W                    | {one}/65536 MiB      |                      |\n"
        "+------------------------------------+---------------------+----------------------+\n"
        for at, one in enumerate(used)
    )


def said(corpus: Path, name: str) -> str:
    return (corpus / "hardware" / "metax" / name).read_text(encoding="utf8")


def test_every_row_of_the_corpus_is_tested_here(corpus: Path) -> None:
    rows = json.loads((corpus / "hardware" / "EXPECTED.json").read_text(encoding="utf8"))
    assert {name for name in rows if name.startswith("metax/")} == {f"metax/{TABLE}", f"metax/{TOPOLOGY}"}


def test_the_recorded_table_reads_as_expected(corpus: Path) -> None:
    rows = json.loads((corpus / "hardware" / "EXPECTED.json").read_text(encoding="utf8"))
    row = rows[f"metax/{TABLE}"]
    cards = metax.read_table(said(corpus, TABLE))
    assert len(cards) == row["n"]
    [first] = row["first"]
    assert (cards[0].index, cards[0].name) == (first["index"], first["name"])
    assert (cards[0].used_bytes, cards[0].total_bytes) == (first["used"] * MIB, first["total"] * MIB)
    assert [(one.index, one.bus_id) for one in cards][-1] == (7, "0000:38:00.0")
    assert (cards[3].power_watts, cards[3].temperature_celsius) == (60.0, 35.0)


def test_the_recorded_matrix_has_two_groups_of_four(corpus: Path) -> None:
    rows = json.loads((corpus / "hardware" / "EXPECTED.json").read_text(encoding="utf8"))
    words = matrix(said(corpus, TOPOLOGY), re.compile(r"GPU[0-9]+"))
    assert len({first for first, _ in words}) == rows[f"metax/{TOPOLOGY}"]["n"]
    assert {words["GPU0", f"GPU{n}"] for n in (1, 2, 3)} == {"MX"}
    assert {words["GPU0", f"GPU{n}"] for n in (4, 5, 6, 7)} == {rows[f"metax/{TOPOLOGY}"]["worst"]}


def test_the_recorded_box_is_linked_as_its_matrix_says(box: Any, corpus: Path) -> None:
    tools = {"mx-smi": {"topo -m": said(corpus, TOPOLOGY), "-L": "", "": said(corpus, TABLE)}}
    system = box(tools=tools, environ={"CUDA_VISIBLE_DEVICES": "4,5,0"})
    devices = metax.inventory(system).devices
    assert [one.physical_index for one in devices] == [4, 5, 0]
    found = [(link.first, link.second, link.kind) for link in metax.links(system, devices)]
    assert found == [(0, 1, "mxlink"), (0, 2, "node"), (1, 2, "node")]


@pytest.mark.parametrize("table", [new(826, 60534), old(826, 60534)], ids=["2.2", "2.1"])
def test_both_layouts_give_the_same(box: Any, table: str) -> None:
    found = metax.inventory(box(tools={"mx-smi": {"-L": LISTED, "": table + PROCESSES}}))
    one, other = found.devices
    assert (one.kind, one.vendor, one.architecture) == ("cuda", "metax", "maca")
    assert (one.free_bytes, one.uuid) == ((65536 - 826) * MIB, "GPU-0abc-def")
    assert [(p.pid, p.name, p.used_bytes) for p in other.processes] == [
        (22854, "ray::RayWorkerW", 59584 * MIB)
    ]
    readings = metax.usage(box(tools={"mx-smi": table}), found.devices)
    assert [(r.utilization_percent, r.power_watts, r.temperature_celsius) for r in readings] == [
        (12, 57, 35)
    ] * 2


@pytest.mark.parametrize(
    ("value", "physical"), [("1", [1]), ("GPU-1", [1]), ("GPU-", []), ("1,1", []), ("0,-1,1", [0])]
)
def test_the_environment_chooses_as_for_cuda(box: Any, value: str, physical: list[int]) -> None:
    tools = {"mx-smi": {"-L": LISTED, "": new(1, 2)}}
    found = metax.inventory(box(tools=tools, environ={"CUDA_VISIBLE_DEVICES": value})).devices
    assert [one.physical_index for one in found] == physical


def test_a_card_that_fell_out_is_lost_and_without_the_tool_nothing_is_known(box: Any) -> None:
    devices = metax.inventory(box(tools={"mx-smi": {"-L": "", "": new(1, 2)}})).devices
    one, lost = metax.usage(box(tools={"mx-smi": new(5)}), devices)
    assert (one.memory_used_bytes, lost.is_lost) == (5 * MIB, True)
    assert metax.usage(box(), ()) == ()
    assert metax.links(box(), ()) == ()


def test_presence_is_the_tool_a_node_or_the_card(box: Any) -> None:
    assert not metax.is_present(box())
    alias = "pci:v00009999d00004000sv00009999sd00004000bc03sc80i00"
    assert metax.is_present(box(files={"/sys/bus/pci/devices/0000:0e:00.0/modalias": alias}))
    assert metax.inventory(box()).problems[0].message == "mx-smi: not found"
