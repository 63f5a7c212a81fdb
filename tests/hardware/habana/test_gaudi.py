"""Gaudis by hl-smi: recordings as the corpus says, and boxes of our own."""

import json
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine.hardware import habana
from ftwiz.engine.hardware.tables import Card

MIB = 1 << 20
TABLES = ("hl-smi_HL-205_8x_1.6.0_busy.txt", "hl-smi_HL-225_8x_1.12.1_idle.txt")
CSV = "hl-smi-Q_HL-325L_2x_1.22.1.csv"
CSV_COLUMNS = (
    *("index", "uuid", "name", "driver_version", "memory.total", "memory.used", "memory.free"),
    *("power.draw", "power.max", "temperature.aip", "utilization.aip"),
)
HEAD = "index, module_id, uuid, name, bus_id, memory.total [MiB], memory.used [MiB], power.draw [W]\n"
ROWS = (
    "0, 5, 01P4-A, HL-225, 0000:43:00.0, 98304 MiB, 768 MiB, 84 W\n"
    "1, 4, 01P4-B, HL-225, 0000:44:00.0, 98304 MiB, 60000 MiB, N/A\n"
    "2, 7, 01P4-C, HL-225, 0000:1a:00.0, N/A, N/A, 90 W\n"
)
PROCESSES = (
    "| Compute Processes:                       AIP Memory |\n"
    "|   0        N/A   N/A    N/A               N/A        |\n"
    "|   1       2006754     C   python\n                         58112MiB\n"
    "|   1       2006755     C   /opt/a tool      12MiB     |\n"
)


def said(corpus: Path, name: str) -> str:
    return (corpus / "hardware" / "gaudi" / name).read_text(encoding="utf8")


def as_expected(card: Card) -> dict[str, Any]:
    """Our reading in the words of EXPECTED.json."""
    assert card.used_bytes is not None
    assert card.total_bytes is not None
    memory = {"used": card.used_bytes // MIB, "total": card.total_bytes // MIB}
    return {"index": card.index, "name": card.name, "bus": card.bus_id, **memory}


@pytest.mark.parametrize("name", TABLES)
def test_the_recorded_tables_read_as_expected(corpus: Path, name: str) -> None:
    rows = json.loads((corpus / "hardware" / "EXPECTED.json").read_text(encoding="utf8"))
    row = rows[f"gaudi/{name}"]
    cards = habana.read_table(said(corpus, name))
    assert len(cards) == row["n"]
    assert as_expected(cards[0]) == row["first"]
    assert as_expected(cards[-1]) == row["last"]


def test_every_row_of_the_corpus_is_tested_here(corpus: Path) -> None:
    rows = json.loads((corpus / "hardware" / "EXPECTED.json").read_text(encoding="utf8"))
    assert {name for name in rows if name.startswith("gaudi/")} == {f"gaudi/{name}" for name in TABLES}


def test_a_busy_gaudi_shows_its_figures_and_the_wrapped_process(corpus: Path) -> None:
    text = said(corpus, TABLES[0])
    first = habana.read_table(text)[0]
    assert (first.utilization_percent, first.temperature_celsius) == (63.0, 35.0)
    assert (first.power_watts, first.power_limit_watts) == (100.0, 350.0)
    [process] = habana.read_processes(text)[1]
    assert (process.pid, process.name, process.used_bytes) == (2006754, "python", 31742 * MIB)
    assert list(habana.read_processes(text)) == [1]


def test_the_recorded_values_have_no_headings(corpus: Path) -> None:
    one, other = habana.read_csv(said(corpus, CSV), CSV_COLUMNS)
    assert as_expected(one) == {"index": 0, "name": "HL-325L", "bus": None, "used": 672, "total": 131072}
    assert (one.uuid, one.power_watts, one.power_limit_watts) == (
        "01P4-HL3090A0-18-U4V193-22-07-00",
        226.0,
        850.0,
    )
    assert (other.index, other.temperature_celsius, other.utilization_percent) == (1, 39.0, 0.0)


def test_values_and_processes_make_devices(box: Any) -> None:
    found = habana.inventory(box(tools={"hl-smi": {"-Q": HEAD + ROWS, "": PROCESSES}}))
    one, other, unread = found.devices
    assert (one.kind, one.vendor, one.total_bytes, one.free_bytes) == (
        "hpu",
        "habana",
        98304 * MIB,
        97536 * MIB,
    )
    assert (one.architecture, one.supports_bf16, one.note, one.processes) == ("gaudi2", True, None, ())
    assert [(p.pid, p.name, p.used_bytes) for p in other.processes] == [
        (2006754, "python", 58112 * MIB),
        (2006755, "/opt/a tool", 12 * MIB),
    ]
    assert unread.free_bytes is None
    assert [problem.message for problem in found.problems] == ["hl-smi: memory of device 2 cannot be read"]


def test_an_old_tool_that_knows_not_the_fields_is_read_by_its_table(box: Any, corpus: Path) -> None:
    answers = {"-Q": "Unknown field module_id\n", "": said(corpus, TABLES[0])}
    found = habana.inventory(box(tools={"hl-smi": answers}))
    assert found.problems == ()
    assert [one.name for one in found.devices] == ["HL-205"] * 8
    assert found.devices[0].note == "no fp16: train in bf16"
    assert len(found.devices[1].processes) == 1


@pytest.mark.parametrize(
    ("value", "buses"),
    [
        ("5,4", ["43", "44"]),
        ("7", ["1a"]),
        ("4,9,5", ["44"]),
        ("4,4", ["44"]),
        ("", []),
        ("ALL", ["43", "44", "1a"]),
    ],
)
def test_modules_choose_devices_in_the_order_of_the_ranks(box: Any, value: str, buses: list[str]) -> None:
    environ = {"HABANA_VISIBLE_MODULES": value, "HABANA_VISIBLE_DEVICES": "0"}
    found = habana.inventory(box(tools={"hl-smi": {"-Q": HEAD + ROWS, "": ""}}, environ=environ)).devices
    assert [(one.bus_id or "")[5:7] for one in found] == buses
    assert [one.index for one in found] == list(range(len(buses)))


def test_without_module_ids_all_are_listed_with_a_problem(box: Any, corpus: Path) -> None:
    answers = {"-Q": "no such field", "": said(corpus, TABLES[1])}
    found = habana.inventory(box(tools={"hl-smi": answers}, environ={"HABANA_VISIBLE_MODULES": "0,1"}))
    assert len(found.devices) == 8
    assert "does not tell module ids" in found.problems[0].message


def test_a_device_that_falls_out_is_lost_and_the_others_are_read(box: Any) -> None:
    devices = habana.inventory(box(tools={"hl-smi": {"-Q": HEAD + ROWS, "": ""}})).devices
    rest = HEAD + "".join(ROWS.splitlines(keepends=True)[1:])
    lost, alive, _ = habana.usage(box(tools={"hl-smi": {"-Q": rest, "": ""}}), devices)
    assert (lost.is_lost, lost.memory_used_bytes) == (True, None)
    assert (alive.is_lost, alive.memory_used_bytes, alive.power_watts) == (False, 60000 * MIB, None)


def test_presence_is_the_tool_a_node_or_the_card(box: Any) -> None:
    assert not habana.is_present(box())
    alias = "pci:v00001DA3d00001020sv00001DA3sd00001020bc12sc00i00"
    assert habana.is_present(box(files={"/sys/bus/pci/devices/0000:43:00.0/modalias": alias}))
    found = habana.inventory(box())
    assert (found.devices, found.problems[0].message) == ((), "hl-smi: not found")


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("HL-205", "gaudi"),
        ("HL-100", "gaudi"),
        ("HL-225H", "gaudi2"),
        ("HL-325L", "gaudi3"),
        ("HL-900", None),
    ],
)
def test_the_generation_follows_from_the_board(box: Any, name: str, architecture: str | None) -> None:
    row = HEAD + ROWS.splitlines(keepends=True)[0].replace("HL-225", name)
    [one] = habana.inventory(box(tools={"hl-smi": {"-Q": row, "": ""}})).devices
    assert one.architecture == architecture
    assert one.supports_bf16 is (None if architecture is None else True)
