"""Every recording of npu-smi reads as the corpus says."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine.hardware.huawei.details import activity, read_details, read_places, read_processes
from ftwiz.engine.hardware.huawei.table import Chip, read_table
from ftwiz.engine.hardware.tables import matrix

MIB = 1 << 20
TABLES = (
    "npu-smi-info_310P3_22.0.2.txt",
    "npu-smi-info_910B4_26.0.rc1_wide.txt",
    "npu-smi-info_910B4_busy_partial.txt",
    "npu-smi-info_910ProB_8x_24.1.0_idle.txt",
    "npu-smi-info_A3_Ascend910_16chip_24.1.rc3.7_idle.txt",
    "npu-smi-info_A5_Ascend950DT_8x_idle.txt",
    "npu-smi-info_atlas800-3000_1.0.10.txt",
    "npu-smi-info_atlas800-3000_1.0.15.txt",
    "npu-smi-info_atlas800-9010_24.1.RC2.txt",
    "npu-smi-info_atlas800-9010_6.0.RC1.txt",
)
DETAILS = (
    "npu-smi-info-t-common_910B_busy.txt",
    "npu-smi-info-t-usages_910ProA_1chip.txt",
    "npu-smi-info-t-usages_A3_2chip_busy.txt",
)
PLACES = (
    "npu-smi-info-m_atlas800-3000_1.0.10.txt",
    "npu-smi-info-m_atlas800-3000_1.0.15.txt",
    "npu-smi-info-m_atlas800-9010_24.1.RC2.txt",
    "npu-smi-info-m_atlas800-9010_6.0.RC1.txt",
)
TOPOLOGY = "npu-smi-info-t-topo_910B3_8x.txt"


def said(corpus: Path, name: str) -> str:
    return (corpus / "hardware" / "ascend" / name).read_text(encoding="utf8")


def expected(corpus: Path, name: str) -> dict[str, Any]:
    rows = json.loads((corpus / "hardware" / "EXPECTED.json").read_text(encoding="utf8"))
    row = rows[f"ascend/{name}"]
    assert isinstance(row, dict)
    return row


def as_expected(chip: Chip) -> list[object]:
    """Our reading in the words of EXPECTED.json."""
    used, total = chip.used_bytes, chip.total_bytes
    assert used is not None
    assert total is not None
    memory = [used // MIB, total // MIB]
    return [chip.npu, chip.chip, chip.physical, chip.name, *memory, chip.power_watts, chip.health]


def test_every_row_of_the_corpus_is_tested_here(corpus: Path) -> None:
    rows = json.loads((corpus / "hardware" / "EXPECTED.json").read_text(encoding="utf8"))
    ours = {f"ascend/{name}" for name in (*TABLES, *DETAILS, *PLACES, TOPOLOGY)}
    assert {name for name in rows if name.startswith("ascend/")} == ours


@pytest.mark.parametrize("name", TABLES)
def test_one_parser_reads_every_layout_of_the_table(corpus: Path, name: str) -> None:
    row = expected(corpus, name)
    table = read_table(said(corpus, name))
    assert (table.version, len(table.chips), len(table.processes)) == (row["version"], row["n"], row["procs"])
    assert [as_expected(chip) for chip in table.chips[: len(row["dev"])]] == row["dev"]
    assert all(chip.temperature_celsius is not None for chip in table.chips)
    assert all(chip.utilization_percent == 0 for chip in table.chips)


@pytest.mark.parametrize("name", DETAILS)
def test_details_belong_to_the_chip_that_is_named_before_or_after_them(corpus: Path, name: str) -> None:
    row = expected(corpus, name)
    details = read_details(said(corpus, name))
    assert (details.npu, details.num_chips) == tuple(int(value) for value in row["top"].values())
    keys = ("HBM Capacity(MB)", "HBM Usage Rate(%)", "Aicore Usage Rate(%)")
    found = [[str(chip), *(fields.get(key) for key in keys)] for chip, fields in details.chips.items()]
    assert found == row["chips"]


def test_the_figures_of_a_busy_chip_leave_the_controller_out(corpus: Path) -> None:
    now = activity(read_details(said(corpus, DETAILS[0])).chips[0])
    assert (now.temperature_celsius, now.power_watts, now.clock_mhz) == (46.0, 130.4, 1800.0)
    assert (now.memory_percent, now.utilization_percent, now.total_bytes) == (91.0, 6.0, None)


@pytest.mark.parametrize("name", PLACES)
def test_logic_ids_are_read_and_the_controller_is_passed_over(corpus: Path, name: str) -> None:
    row = expected(corpus, name)
    places = read_places(said(corpus, name))
    found = [{"npu": p.npu, "chip": p.chip, "logic": p.logic, "name": p.name} for p in places]
    assert len(found) == row["n"]
    assert found[: len(row["rows"])] == row["rows"]


def test_the_matrix_joins_all_by_hccs(corpus: Path) -> None:
    row = expected(corpus, TOPOLOGY)
    words = matrix(said(corpus, TOPOLOGY), re.compile(r"NPU[0-9]+"))
    assert len({first for first, _ in words}) == row["n"]
    assert {word for (first, second), word in words.items() if first != second} == {row["worst"]}


def test_processes_of_proc_mem_stand_above_their_chip(corpus: Path) -> None:
    [process] = read_processes(said(corpus, "npu-smi-info-t-proc-mem_910B.txt"), 0)
    assert (process.npu, process.chip, process.pid, process.name) == (0, 0, 1654497, "python")
    assert process.used_bytes == 177 * MIB


def test_the_processes_of_a_busy_table_are_those_of_their_chip(corpus: Path) -> None:
    table = read_table(said(corpus, "npu-smi-info_910B4_busy_partial.txt"))
    found = [(one.npu, one.pid, one.name, (one.used_bytes or 0) // MIB) for one in table.processes]
    assert found == [(0, 1406630, "mindie_llm_back", 21835), (0, 60575, "python", 2122)]
    assert table.told == {0, 1}
