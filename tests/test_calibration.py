"""The file of what was measured: what is written comes back, and nothing in it can do harm."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftwiz.engine import calibration
from ftwiz.engine.calibration import (
    Calibration,
    Usage,
    append_calibration,
    calibration_file,
    decode,
    encode,
    match,
    read_calibrations,
    workload_key,
)
from ftwiz.engine.models import spec_from_config
from ftwiz.engine.specs.workload import Sharding, Stack, Workload

ROW = Calibration(
    t=1_750_000_000.5,
    source="run",
    outcome="finished",
    ftwiz="0.1.0",
    device_kind="cuda",
    device_name="NVIDIA H200",
    device_bytes=150_754_820_096,
    driver="580.95",
    versions={"torch": "2.13.0"},
    strategy={"backend": "single", "num_processes": 1, "gradient_checkpointing": True},
    num_ranks=1,
    what="llama sft lora",
    key="abc",
    sequence_tokens=2048,
    micro_batch_size=2,
    batch_tokens=3000,
    predicted=Usage(allocated_bytes=10**10),
    measured=Usage(allocated_bytes=10**10 + 5, reserved_bytes=11**10, host_bytes=7),
    ranks=(Usage(allocated_bytes=5),),
    tokens_per_second=1234.5,
)
LLAMA = spec_from_config(
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


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "calibration.jsonl"


def test_what_is_appended_is_read(path: Path) -> None:
    rows = [replace(ROW, t=float(number)) for number in range(3)]
    for row in rows:
        append_calibration(path, row)
    assert read_calibrations(path) == tuple(rows)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_not_there_has_no_rows(path: Path) -> None:
    assert read_calibrations(path) == ()


def test_a_torn_line_costs_only_itself(path: Path) -> None:
    append_calibration(path, ROW)
    with path.open("ab") as file:
        file.write(encode(ROW)[:40])
    append_calibration(path, replace(ROW, t=9.0))
    assert [row.t for row in read_calibrations(path)] == [ROW.t, 9.0]


HOSTILE = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b"\x00\xff\xfe",
    b"[" * 60_000,
    b'{"a":' * 10_000,
    encode(ROW)[:-2],
    encode(ROW).replace(b'"source":"run"', b'"source":"rumour"'),
    encode(ROW).replace(b'"batch_tokens":3000', b'"batch_tokens":-1'),
    encode(ROW).replace(b'"batch_tokens":3000', b'"batch_tokens":' + b"9" * 5000),
    encode(ROW).replace(b'"batch_tokens":3000', b'"batch_tokens":1e999'),
    encode(ROW).replace(b'"tokens_per_second":1234.5', b'"tokens_per_second":NaN'),
    encode(ROW).replace(b'"t":1750000000.5', b'"t":Infinity'),
    encode(ROW).replace(b'"what":"llama sft lora"', b'"what":"' + b"x" * 900 + b'"'),
    encode(ROW).replace(b'"version":1', b'"version":2'),
    encode(ROW).replace(b'"cuda"', b'"\\ud800"'),
]


@pytest.mark.parametrize("line", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_line_is_passed_over(path: Path, line: bytes) -> None:
    assert decode(line) is None
    append_calibration(path, ROW)
    with path.open("ab") as file:
        file.write(line.replace(b"\n", b"") + b"\n")
    append_calibration(path, ROW)
    assert read_calibrations(path) == (ROW, ROW)


@given(st.binary(max_size=300))
def test_no_bytes_raise(line: bytes) -> None:
    assert decode(line) is None


def test_a_field_of_a_newer_version_is_ignored() -> None:
    body = json.loads(encode(ROW)) | {"colour": "blue"}
    assert decode(json.dumps(body).encode()) == ROW


@pytest.mark.parametrize("make", ["folder", "pipe", "zero"])
def test_a_file_that_is_none_has_no_rows_and_holds_up_nobody(tmp_path: Path, make: str) -> None:
    path = tmp_path / "calibration.jsonl"
    if make == "folder":
        path.mkdir()
    elif make == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    assert read_calibrations(path) == ()


def test_the_file_stays_within_its_bounds_and_keeps_the_newest(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "MAX_FILE_BYTES", 4 * len(encode(ROW)))
    for number in range(30):
        append_calibration(path, replace(ROW, t=float(number)))
    rows = read_calibrations(path)
    assert rows[-1].t == 29.0
    assert [row.t for row in rows] == sorted(row.t for row in rows)
    assert 4 <= len(rows) <= 11
    assert sorted(file.name for file in path.parent.iterdir()) == ["calibration.jsonl", "calibration.jsonl.1"]


WRITER = """
import sys
from pathlib import Path
from ftwiz.engine import calibration
row = calibration.decode(sys.stdin.buffer.read())
calibration.MAX_FILE_BYTES = 200_000
for _ in range(40):
    calibration.append_calibration(Path(sys.argv[1]), row)
"""


def test_writers_at_the_same_time_do_not_mix_or_lose_lines(path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdin=subprocess.PIPE) for _ in range(4)
    ]
    for writer in writers:
        writer.communicate(encode(ROW), timeout=60)
        assert writer.returncode == 0
    assert read_calibrations(path) == (ROW,) * 160


def test_the_file_is_beside_the_runs(tmp_path: Path) -> None:
    assert calibration_file({"FTWIZ_HOME": str(tmp_path)}) == tmp_path / "calibration.jsonl"
    assert calibration_file({}).name == "calibration.jsonl"
    assert calibration_file({}).parent.name == "ftwiz"


def workload(**changes: object) -> Workload:
    return replace(Workload(model=LLAMA, sequence_tokens=512), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "same", [{"sequence_tokens": 64}, {"micro_batch_size": 8}, {"gradient_accumulation_steps": 1}]
)
def test_tokens_do_not_change_the_key(same: dict[str, object]) -> None:
    assert workload_key(workload(**same)) == workload_key(workload())


@pytest.mark.parametrize(
    "other",
    [
        {"method": "full"},
        {"checkpointing": "none"},
        {"gradient_accumulation_steps": 2},
        {"optimizer": "sgd"},
        {"stack": Stack(torch="2.12.0")},
        {"sharding": Sharding(backend="ddp", num_ranks=2)},
        {"model": replace(LLAMA, vocab_size=101)},
    ],
    ids=str,
)
def test_whatever_else_costs_bytes_changes_the_key(other: dict[str, object]) -> None:
    assert workload_key(workload(**other)) != workload_key(workload())


def test_accumulation_counts_as_such_and_not_how_often() -> None:
    twice, often = (workload_key(workload(gradient_accumulation_steps=times)) for times in (2, 16))
    assert twice == often


def test_rows_match_by_workload_and_device() -> None:
    other_card = replace(ROW, device_name="NVIDIA A100")
    smaller = replace(ROW, device_bytes=80_000_000_000)
    unknown = replace(ROW, device_name=None, device_bytes=None)
    other_work = replace(ROW, key="xyz")
    rows = (ROW, other_card, smaller, unknown, other_work)
    found = match(rows, "abc", device_kind="cuda", device_name="NVIDIA H200", device_bytes=150_754_000_000)
    assert found == (ROW, unknown)
    assert match(rows, "abc", device_kind="cpu") == ()
    assert match(rows, "abc", device_kind="cuda") == (ROW, other_card, smaller, unknown)
