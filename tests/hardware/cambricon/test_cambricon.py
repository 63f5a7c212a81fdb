"""MLUs by cnmon: recordings of v4 and v5 as the corpus says, and boxes of our own."""

import json
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine.hardware import cambricon

MIB = 1 << 20
RECORDINGS = ("cnmon_mlu370x4_3x_v4.20.11.txt", "cnmon_mlu370x8_2x_v5.10.13.txt")
LINE = "+-------------------------------+----------------------+-----------------------+\n"


def table(*used: int, name: str = "MLU590-M9") -> str:
    chips = "".join(
        f"| {at}     /   {name}    v1.1.6 |         0000:3{at}:00.0 | 42%               N/A |\n"
        f"|  0%   39C        106 W/ 250 W | {one} MiB/ 98304 MiB | N/A           Default |\n{LINE}"
        for at, one in enumerate(used)
    )
    rows = (
        "|  Card  MI  PID     Command Line                             MLU Memory Usage |\n"
        "|  1     /   4711    python train.py --steps 10               2048 MiB |\n"
    )
    return (
        "| CNMON v5.10.22                                               Driver v5.10.22 |\n"
        + LINE
        + chips
        + rows
    )


def said(corpus: Path, name: str) -> str:
    return (corpus / "hardware" / "cambricon" / name).read_text(encoding="utf8")


def test_every_row_of_the_corpus_is_tested_here(corpus: Path) -> None:
    rows = json.loads((corpus / "hardware" / "EXPECTED.json").read_text(encoding="utf8"))
    assert {name for name in rows if name.startswith("cambricon/")} == {f"cambricon/{n}" for n in RECORDINGS}


@pytest.mark.parametrize("name", RECORDINGS)
def test_the_recordings_read_as_expected(corpus: Path, name: str) -> None:
    rows = json.loads((corpus / "hardware" / "EXPECTED.json").read_text(encoding="utf8"))
    cards = cambricon.read_table(said(corpus, name))
    found = [
        {
            "index": card.index,
            "name": card.name,
            "used": None if card.used_bytes is None else card.used_bytes // MIB,
            "total": None if card.total_bytes is None else card.total_bytes // MIB,
        }
        for card in cards
    ]
    assert found == rows[f"cambricon/{name}"]["dev"]
    assert all(card.utilization_percent == 0 for card in cards)
    assert [card.temperature_celsius for card in cards] == ([32, 33, 30] if len(cards) == 3 else [32, 39])


def test_v5_tells_bus_and_power(corpus: Path) -> None:
    card = cambricon.read_table(said(corpus, RECORDINGS[1]))[1]
    assert (card.bus_id, card.power_watts, card.power_limit_watts) == ("0000:3D:00.0", 106.0, 250.0)


def test_devices_have_their_memory_and_processes(box: Any) -> None:
    found = cambricon.inventory(box(tools={"cnmon": table(0, 4096)}))
    one, other = found.devices
    assert (one.kind, one.vendor, one.free_bytes, one.processes) == ("mlu", "cambricon", 98304 * MIB, ())
    assert (one.architecture, one.supports_bf16) == ("mlu590", True)
    [process] = other.processes
    assert (process.pid, process.name, process.used_bytes) == (4711, "python train.py --steps 10", 2048 * MIB)
    assert found.problems == ()


def test_bf16_begins_with_the_five_hundreds(box: Any) -> None:
    [one] = cambricon.inventory(box(tools={"cnmon": table(0, name="MLU370-X8")})).devices
    assert (one.architecture, one.supports_bf16) == ("mlu370", False)


@pytest.mark.parametrize(
    ("environ", "physical"),
    [
        ({}, [0, 1, 2]),
        ({"MLU_VISIBLE_DEVICES": "2,0"}, [2, 0]),
        ({"MLU_VISIBLE_DEVICES": " 1 ,x,2"}, [1]),
        ({"MLU_VISIBLE_DEVICES": "1,1"}, []),
        ({"MLU_VISIBLE_DEVICES": "0,7"}, [0]),
        ({"MLU_VISIBLE_DEVICES": ""}, []),
        ({"CN_VISIBLE_DEVICES": "1", "MLU_VISIBLE_DEVICES": "2"}, [1]),
        ({"CUDA_VISIBLE_DEVICES": "2"}, [2]),
    ],
)
def test_visible_are_those_that_torch_mlu_counts(
    box: Any, environ: dict[str, str], physical: list[int]
) -> None:
    found = cambricon.inventory(box(tools={"cnmon": table(0, 0, 0)}, environ=environ)).devices
    assert [one.physical_index for one in found] == physical
    assert [one.index for one in found] == list(range(len(physical)))


def test_uuids_cannot_be_told_by_the_table(box: Any) -> None:
    environ = {"MLU_VISIBLE_DEVICES": "20000000-0000-0000-0000-100201000000"}
    found = cambricon.inventory(box(tools={"cnmon": table(0, 0)}, environ=environ))
    assert len(found.devices) == 2
    assert "UUID" in found.problems[0].message


def test_usage_is_read_and_a_card_that_fell_out_is_lost(box: Any) -> None:
    devices = cambricon.inventory(box(tools={"cnmon": table(0, 4096)})).devices
    one, lost = cambricon.usage(box(tools={"cnmon": table(5)}), devices)
    assert (one.memory_used_bytes, one.power_watts, one.utilization_percent) == (5 * MIB, 106.0, 42.0)
    assert lost.is_lost
    assert cambricon.usage(box(), ()) == ()


def test_presence_is_the_tool_a_node_or_the_card(box: Any) -> None:
    assert not cambricon.is_present(box())
    assert cambricon.is_present(box(files={"/dev/cambricon_dev0": ""}))
    [problem] = cambricon.inventory(box()).problems
    assert problem.message == "cnmon: not found"
    assert "driver" in (problem.advice or "")
    assert cambricon.links(box(), ()) == ()
