"""A file of measurements is read with distrust: whole files are refused, rows get a reason."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine.accuracy.row import NotScored, Row, read_rows
from ftwiz.engine.accuracy.score import score
from ftwiz.engine.errors import BadInput

LLAMA = {
    "h": 4096, "L": 32, "f": 11008, "nh": 32, "kv": 32, "hd": 128, "V": 32000, "tied": False, "gated": True,
}  # fmt: skip
ROW: dict[str, Any] = {
    "id": "made-up",
    "engine": "fsdp_qlora",
    "kind": "train",
    "method": "lora",
    "quant": None,
    "arch": "llama-2-7b",
    "arch_dims": LLAMA,
    "lora_r": 64,
    "lora_targets": ["q", "v"],
    "seq_len": 512,
    "micro_batch": 1,
    "grad_ckpt": True,
    "attn": "flash/sdpa",
    "stage": "FSDP1 FULL_SHARD",
    "offload": "none",
    "n_gpus": 2,
    "counter": "peak reserved per GPU",
    "measured_bytes": 10**10,
    "fully_specified": True,
}
"""No published row: the measurement is made up."""


def outcome_of(**changes: Any) -> Any:
    fields = {name: value for name, value in (ROW | changes).items() if value != "absent"}
    (found,) = score([Row(id="made-up", fields=fields)])
    return found


def test_a_whole_row_is_scored() -> None:
    found = outcome_of()
    assert found.not_scored is None
    assert found.counter == "reserved"
    assert found.error == found.predicted_bytes / 10**10 - 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"seq_len": float("nan")}, "seq_len is nan"),
        ({"seq_len": -3}, "seq_len is out of bounds"),
        ({"seq_len": 10**15}, "seq_len is out of bounds"),
        ({"seq_len": "2k"}, "seq_len is no number"),
        ({"seq_len": 1.5}, "seq_len is no whole number"),
        ({"seq_len": None}, "seq_len was not published"),
        ({"micro_batch": True}, "micro_batch is no number"),
        ({"n_gpus": float("inf")}, "n_gpus is inf"),
        ({"lora_r": 0}, "lora_r is out of bounds"),
        ({"lora_targets": 3}, "lora_targets is no list of names"),
        ({"lora_targets": []}, "lora_targets was not published"),
        ({"method": ["lora"], "engine": {}}, "engine is no text"),
        ({"method": "absent"}, "method was not published"),
        ({"method": "peft:vera"}, "vera is not modelled: ftwiz does not train it"),
        ({"engine": "nobody"}, "engine 'nobody' is not known"),
        ({"engine": "absent"}, "engine was not published"),
        ({"kind": "inference"}, "inference, not a training step"),
        ({"kind": None}, "kind was not published"),
        ({"quant": "fp3"}, "quant 'fp3' is not known"),
        ({"grad_ckpt": "sometimes"}, "grad_ckpt is not known"),
        ({"stage": "ZeRO-9"}, "stage 'zero-9' is not known"),
        ({"counter": "ESTIMATE, not measured"}, "an estimate, no measurement"),
        ({"measured_bytes": 0}, "measured_bytes is out of bounds"),
        ({"measured_bytes": 1e30}, "measured_bytes is out of bounds"),
        ({"measured_bytes": None, "measured": 9, "unit": "firkin"}, "unit 'firkin' is not known"),
        ({"measured_bytes": None, "measured": 9}, "unit was not published"),
        ({"arch_dims": None}, "the widths of the model were not published"),
        ({"arch_dims": LLAMA | {"L": -3}}, "arch_dims.L is out of bounds"),
        ({"arch_dims": LLAMA | {"V": 10**15}}, "arch_dims.V is out of bounds"),
        ({"arch_dims": "big"}, "arch_dims is no object"),
        ({"fully_specified": False, "seq_len": None}, "seq_len not published"),
    ],
)
def test_a_row_that_cannot_be_scored_says_which_field(changes: dict[str, Any], reason: str) -> None:
    found = outcome_of(**changes)
    assert found.predicted_bytes is None
    assert found.not_scored.startswith(reason)


@pytest.mark.parametrize("value", [3, None, "text", [], {}, [[]]])
def test_what_is_no_row_is_listed_by_its_place(value: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([ROW, value]), encoding="utf8")
    found = list(score(read_rows(path)))
    assert [one.id for one in found] == ["made-up", "row 2"]
    assert found[0].not_scored is None
    assert found[1].not_scored


GARBAGE: list[Any] = [
    None, float("nan"), -1, 0, 10**30, 1.5, True, "", "x", "ZeRO-3", "FSDP2", "full", "max_context", [], [1],
    ["all-linear"], {}, {"h": 1},
]  # fmt: skip


@pytest.mark.parametrize("field", ROW)
def test_no_value_of_a_field_ends_the_others(field: str) -> None:
    for value in GARBAGE:
        found = outcome_of(**{field: value})
        assert (found.error is None) == bool(found.not_scored)
        assert "estimator failed" not in (found.not_scored or ""), (field, value)


def test_a_row_that_is_not_fully_specified_is_shown_and_not_counted(
    tmp_path: Path, run_ftwiz: Callable[..., Any]
) -> None:
    row = ROW | {"engine": "hf-raw-loop", "n_gpus": 1, "lora_targets": ["q_proj"]}
    found = outcome_of(**row)
    assert found.error is None
    assert found.shown_error == found.predicted_bytes / 10**10 - 1
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([row]), encoding="utf8")
    (printed,) = json.loads(run_ftwiz("accuracy", path, "--json").stdout)
    assert "error" not in printed
    assert printed["shown_error"] == pytest.approx(found.shown_error)
    assert printed["not_scored"].startswith("not fully specified")
    assert "shown for honesty and not counted" in run_ftwiz("accuracy", path).stdout


def test_units_are_what_they_say() -> None:
    for unit, size in (("GB", 10**9), ("GiB", 2**30), ("MiB", 2**20), ("bytes", 1)):
        assert Row(id="a", fields={"measured": 3, "unit": unit}).measured_bytes == 3 * size
    with pytest.raises(NotScored):
        _ = Row(id="a", fields={"measured": "3", "unit": "GB"}).measured_bytes


BROKEN = {
    "empty": "",
    "text": "not json",
    "object": '{"id": 1}',
    "number": "3",
    "no rows": "[]",
    "deep": "[" * 100_000,
    "long number": "[" + "9" * 100_000 + "]",
    "not utf8": b"\xff\xfe[",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_refused_at_once(text: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    start = time.perf_counter()
    with pytest.raises(BadInput):
        read_rows(path)
    assert time.perf_counter() - start < 1


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(BadInput):
            read_rows(path)


def test_the_command_prints_json_and_exits_2_on_a_broken_file(
    tmp_path: Path, run_ftwiz: Callable[..., Any]
) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([ROW, {"id": "b", "kind": "train"}]), encoding="utf8")
    done = run_ftwiz("accuracy", path, "--json")
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    assert first["error"] == pytest.approx(first["predicted_bytes"] / first["measured_bytes"] - 1)
    assert second == {"id": "b", "not_scored": "engine was not published"}
    path.write_text("{", encoding="utf8")
    done = run_ftwiz("accuracy", path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {path}:1: not JSON")
    assert len(done.stderr.splitlines()) == 2


def test_the_command_shows_a_table_and_the_reasons(tmp_path: Path, run_ftwiz: Callable[..., Any]) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([ROW, ROW | {"kind": "inference\u001b[31m"}]), encoding="utf8")
    done = run_ftwiz("accuracy", path)
    assert done.returncode == 0
    assert "Answer.AI fsdp_qlora" in done.stdout
    assert "1 of 2 rows are not scored" in done.stdout
    assert "\x1b" not in done.stdout
