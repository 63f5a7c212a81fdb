"""What the vendors with table tools share, and what becomes of any damage to their tables."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftwiz.engine.hardware import cambricon, habana, metax, mthreads
from ftwiz.engine.hardware.huawei import details, devices
from ftwiz.engine.hardware.huawei.table import read_table
from ftwiz.engine.hardware.system import System
from ftwiz.engine.hardware.tables import MIB, Card, ask, chosen, links_of, matrix, memory_bytes

EXAMPLES = int(os.environ.get("FTWIZ_FUZZ", "200"))
LABEL = re.compile(r"[NG]PU[0-9]{1,4}")
ASCEND = """\
| npu-smi 24.1.0                   Version: 24.1.0   |
| NPU   Name    | Health | Power(W) Temp(C) Hugepages-Usage(page) |
| Chip  Phy-ID  | Bus-Id | AICore(%) Memory-Usage(MB) HBM-Usage(MB) |
+=======+
| 0  910B3 | OK | 93.5  41  0 / 0 |
| 0  0     | 0000:C1:00.0 | 17  0 / 0  3402/ 65536 |
+=======+
| NPU Chip | Process id | Process name | Process memory(MB) | Process id in container |
| 0   0    | 485946     | pytest       | 5175               | NA |
| No running processes found in NPU 1 |
"""
A5 = """\
| NPU ID | Name        | Health | Power(W) Temp(C) Hugepages-Usage(page) |
|        |             | Bus-Id | NPU Util(%) Memory-Usage(MB) HBM-Usage(MB) |
| 0      | Ascend950DT | OK     | 377.2 48 0 / 0 |
|        |             | NA     | 0 0 / 0 4857 / 98304 |
"""
PLACES = "NPU ID   Chip ID   Chip Logic ID   Chip Name\n0   0   0   Ascend 910A\n0   4   -   Mcu\n"
USAGES = "NPU ID : 0\nHBM Capacity(MB) : 65536\nHBM Usage Rate(%) : 16\nChip ID : 0\n"
COMMON = "NPU ID : 1\nChip ID : 0\nHBM Usage Rate(%) : 91\nTemperature(C) : 46\nChip Name : mcu\n"
PROCESSES = "Process id:165 Process name:python     Process memory(MB):177\nChip ID : 0\n"
MATRIX = "     NPU0  NPU1  CPU Affinity\nNPU0  X   HCCS  0-23\nNPU1  HCCS  X   24-47\n"
GAUDI = """\
|   0  HL-225              N/A  | 0000:43:00.0     N/A |                   0  |
| N/A   30C   N/A    84W / 600W |    768MiB / 98304MiB |     0%           N/A |
| Compute Processes:                                               AIP Memory |
|   0       2006754     C   python
                                 31742Mib
"""
GAUDI_CSV = "index, module_id, name, memory.total\n0, 5, HL-225, 98304 MiB\n"
MLU = """\
| 0     /   MLU370-X8    v1.1.6 |         0000:39:00.0 | 0%                N/A |
|  0%   32C        106 W/ 250 W |     0 MiB/ 23374 MiB | N/A           Default |
|  0     /   4711    python train.py               2048 MiB |
"""
MUSA = """\
0    MTT S80        |00000000:04:00.0    |0%    2MiB(16384MiB)
     Physical       |4x(16x)             |49C   YES
Processes:
0    1123      /usr/lib/xorg/Xorg                       134MiB
"""
MACA = """\
| 0     MetaX C500 | 0           Off | 0000:0e:00.0        | 0%          Disabled |
| 57W / 350W       | 35C          P0 | 826/65536 MiB       | Available            |
|  0                  3496691         python3.10                   4066           |
GPU#0    MXC500      0000:0e:00.0   Available (UUID: GPU-0abc)
"""
VALID = (
    *(ASCEND, A5, PLACES, USAGES, COMMON, PROCESSES, MATRIX),
    *(GAUDI, GAUDI_CSV, MLU, MUSA, MACA),
)


def ascend_devices(text: str) -> object:
    """Everything that is made of a table, up to devices."""
    box = devices.Box(system=System(), table=read_table(text), places={})
    return [devices.device(at, at, chip, box) for at, chip in enumerate(box.by_logic_id())]


PARSERS: tuple[Callable[[str], object], ...] = (
    ascend_devices,
    details.read_places,
    lambda text: [details.activity(fields) for fields in details.read_details(text).chips.values()],
    lambda text: details.read_processes(text, 0),
    lambda text: links_of(matrix(text, LABEL), {"NPU0": 0, "NPU1": 1}, {"HCCS": "hccs"}),
    habana.read_table,
    habana.read_csv,
    habana.read_processes,
    cambricon.read_table,
    mthreads.read_table,
    metax.read_table,
    metax.read_uuids,
)
PIECES = st.sampled_from(
    [
        "|",
        "||",
        "/",
        "\n",
        "\n|",
        "\x00",
        "\x1b[4m",
        "9" * 400,
        "-1",
        "²",
        "٣",
        "NA",
        "-",
        ":",
        '"',
        " " * 500,
        "\uff1a",
    ]
)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A valid output with up to three pieces exchanged for something else, or any text at all."""
    text = draw(st.sampled_from(VALID))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 80)))
        text = text[:start] + draw(PIECES | st.text(max_size=8)) + text[end:]
    return draw(st.just(text) | st.just(text[: len(text) // 2]) | st.text(max_size=200))


@pytest.mark.timeout(900)
@given(damaged())
@settings(max_examples=EXAMPLES, deadline=2000, suppress_health_check=[HealthCheck.too_slow])
def test_no_damage_to_a_table_raises(text: str) -> None:
    for parser in PARSERS:
        parser(text)


def test_what_is_not_damaged_is_read_by_one_parser_at_least() -> None:
    for text in VALID:
        assert any(parser(text) for parser in PARSERS)


@pytest.mark.parametrize(
    "unit", ["| 0 ", " ", "9", "| 0  910B3 | OK | 93.5  41  0 / 0 |\n", "1" + " " * 4000, "\n"]
)
@pytest.mark.timeout(60)
def test_megabytes_of_nonsense_cost_seconds_at_most(unit: str) -> None:
    text = ASCEND + unit * ((4 << 20) // len(unit))
    for parser in PARSERS:
        parser(text)


@pytest.mark.parametrize(
    ("text", "memory"),
    [
        ("826/65536 MiB", (826 * MIB, 65536 * MIB)),
        ("  32454Mib / 32768Mib ", (32454 * MIB, 32768 * MIB)),
        ("0 MiB/ 23374 MiB", (0, 23374 * MIB)),
        ("0 / 0", (None, None)),
        ("N/A", (None, None)),
        ("", (None, None)),
    ],
)
def test_memory_is_used_of_total(text: str, memory: tuple[int | None, int | None]) -> None:
    assert memory_bytes(text) == memory


CARDS = tuple(Card(index=at, name="X", uuid=f"GPU-{at}abc") for at in range(3))


@pytest.mark.parametrize(
    ("value", "positions"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("2,0", [2, 0]),
        (" 1 , 2 ", [1, 2]),
        ("0,3,1", [0]),
        ("0,-1,1", [0]),
        ("1,1", []),
        ("GPU-2,GPU-0abc", [2, 0]),
        ("GPU-", []),
        ("²", []),
    ],
)
def test_a_list_chooses_as_cuda_does(value: str | None, positions: list[int]) -> None:
    assert chosen(value, CARDS) == positions


def test_a_matrix_of_one_device_has_no_link() -> None:
    words = matrix("       NPU0   CPU Affinity\nNPU0   X      0-23\n", LABEL)
    assert links_of(words, {"NPU0": 0}, {"X": "hccs"}) == ()


def test_a_tool_that_fails_halfway_gives_what_it_printed_and_a_problem(box: Any) -> None:
    both = MLU + MLU.replace("| 0     /", "| 1     /")
    before = cambricon.inventory(box(tools={"cnmon": both})).devices
    system = box()
    tool = Path(system.environ["PATH"]) / "cnmon"
    tool.write_text(f"#!/bin/sh\n/bin/cat <<'END'\n{MLU}END\nexit 3\n", encoding="utf8")
    answer = ask(system, "cnmon", read=cambricon.read_table)
    assert [card.name for card in answer.cards] == ["MLU370-X8"]
    assert answer.problems[0].message.startswith("cnmon: exit code 3")
    assert [one.is_lost for one in cambricon.usage(system, before)] == [False, False]


def test_the_same_index_twice_is_one_card(box: Any) -> None:
    answer = ask(box(tools={"cnmon": MLU + MLU}), "cnmon", read=cambricon.read_table)
    assert len(answer.cards) == 1
