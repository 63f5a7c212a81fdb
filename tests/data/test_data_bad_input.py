"""Whatever is wrong with a data file is said in one line that names the file and the line."""

import contextlib
import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftwiz.engine.data import inspect, load_rows
from ftwiz.engine.errors import BadInput
from ftwiz.engine.specs.job import Data

GOOD = '{"question": "2 + 2?", "answer": "4"}\n'
LONG = "x" * 300_000

# name of the file, its bytes, what the error says after the path
FILES = [
    ("empty.jsonl", b"", ": is empty"),
    ("blank.jsonl", b"\n \n\n", ": is empty"),
    ("list.json", b"[]", ": is an empty list"),
    ("open.json", b"[", ":1: not JSON: Expecting value (column 2)"),
    ("object.json", b"{}", ":1: row has no columns"),
    ("object.jsonl", b"{}\n", ":1: row has no columns"),
    ("one.json", b'{\n "data": []\n}', ":1: holds one object; a list of rows is expected"),
    ("number.json", b"[1]", ":1: row is a number, not an object with columns"),
    ("number.jsonl", b"7\n", ":1: row is a number, not an object with columns"),
    ("latin.jsonl", GOOD.encode() + b'{"text": "caf\xe9"}\n', ":2: not UTF-8 (byte 0xe9)"),
    ("latin.json", b'[{"text": "x"},\n {"text": "caf\xe9"}]', ":2: not UTF-8 (byte 0xe9)"),
    ("wide.jsonl", GOOD.encode("utf-16"), ":1: is UTF-16"),
    ("cut.jsonl", GOOD.encode() * 30 + b'{"question": "2', ":31: not JSON: Unterminated string"),
    ("cut.json", b'[\n{"text": "x"},\n{"text": "y"}\n', ":4: the list is cut off"),
    ("comma.json", b'[\n{"text": "x"}\n{"text": "y"}]', ":3: not JSON: ',' or ']' expected"),
    ("tail.json", b'[{"text": "x"}]\n{"text": "y"}', ":1: more text after the list of rows"),
    ("deep.jsonl", b'{"text": ' + b"[" * 100_000, ":1: nested too deeply"),
    ("deep.json", b"[" * 100_000, ":1: nested too deeply"),
    ("digits.jsonl", b'{"text": ' + b"9" * 5000 + b"}", ":1: holds a number that is too long"),
    ("binary.jsonl", b"PAR1\x00\x01\x02", ":1: is a binary file, not text"),
    ("missing.jsonl", GOOD.encode() + b'{"question": "x"}', ":2: no column 'answer' (found: question)"),
    ("null.jsonl", GOOD.encode() + b'{"question": "x", "answer": null}', ":2: answer is null"),
    ("mixed.jsonl", GOOD.encode() + b'{"question": "x", "answer": 4}', ":2: answer is a number, not text"),
    (
        "mute.jsonl",
        b'{"question": "x", "answer": ""}\n' * 3,
        ":1: question or answer is empty, as in all of the first 3 rows",
    ),
    ("mute1.jsonl", b'{"question": "x", "answer": ""}\n', ":1: question or answer is empty"),
    ("half.jsonl", b'{"text": "\\ud83d"}', ":1: text holds half a character (\\ud83d)"),
    ("prompts.jsonl", b'{"prompt": "x"}', ":1: rows are prompts without answers, and stage sft"),
    ("pairs.jsonl", b'{"prompt": "x", "chosen": "a", "rejected": "b"}', ":1: rows are preference pairs"),
    ("turns.jsonl", b'{"messages": []}', ":1: columns fit no known format"),
    (
        "role.jsonl",
        b'{"messages": [{"role": "owl", "content": "hu"}]}',
        ":1: messages[0].role is owl",
    ),
    (
        "who.jsonl",
        b'{"messages": [{"role": null, "content": "hu"}]}',
        ":1: messages[0].role is None",
    ),
    (
        "photo.jsonl",
        b'{"messages": [{"role": "user", "content": [{"type": "image"}]}]}',
        ":1: messages[0]",
    ),
    ("header.csv", b"question,answer\n", ": has a header and no rows"),
    ("short.csv", b'question,answer\n"a\nb",c\nd\n', ":4: 1 columns, the header has 2"),
    ("twice.csv", b"answer,answer\n1,2\n", ":1: two columns have the same name"),
    ("quote.csv", b'question,answer\na,"b\n', ":2: not CSV: unexpected end of data"),
    ("columns.csv", b"foo,bar\n1,2\n", ":2: columns fit no known format (found: foo, bar)"),
    ("table.parquet", b"PAR1", ":1: not parquet: "),
    ("other.parquet", b"text", ": is no parquet file: it does not begin with PAR1"),
    ("table.xlsx", b"PK", ": unknown kind of file '.xlsx'"),
]


@pytest.mark.parametrize(("name", "content", "reason"), FILES, ids=[name for name, _, _ in FILES])
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    for reader in (inspect, load_rows):
        with pytest.raises(BadInput) as caught:
            reader(Data(path=str(path)))
        message = caught.value.message
        wanted = reason.partition(", as in")[0] if reader is load_rows else reason
        assert message.startswith(f"{path}{wanted}")
        assert "\n" not in message
        assert len(message) < len(str(path)) + 160


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    fifo, unreadable = tmp_path / "pipe.jsonl", tmp_path / "secret.jsonl"
    os.mkfifo(fifo)
    unreadable.write_text(GOOD, encoding="utf8")
    unreadable.chmod(0)
    cases = {tmp_path: "is a folder", fifo: "not a regular file", tmp_path / "none.json": "No such file"}
    if os.geteuid() != 0:  # root reads everything
        cases[unreadable] = "Permission denied"
    for path, reason in cases.items():
        with pytest.raises(BadInput, match=reason):
            inspect(Data(path=str(path)))
    with pytest.raises(BadInput, match="null byte"):
        inspect(Data(path="a\0b.jsonl"))


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    for name, text in {
        "a.jsonl": GOOD,
        "b.json": f"[{GOOD}]",
        "c.csv": "question,answer\n2 + 2?,4\n",
    }.items():
        path = tmp_path / name
        path.write_text(text, encoding="utf-8-sig")
        assert inspect(Data(path=str(path))).columns == {"prompt": "question", "completion": "answer"}
        assert len(load_rows(Data(path=str(path))).train) == 1


def test_json_files_that_hold_one_object_a_line_are_read(tmp_path: Path) -> None:
    path = tmp_path / "lines.json"
    path.write_text("\n" + GOOD * 3, encoding="utf8")
    assert inspect(Data(path=str(path))).num_rows == len(load_rows(Data(path=str(path))).train) == 3


def test_csv_of_other_countries_and_long_cells_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f'question;answer\n"two\nlines";{LONG}\n', encoding="utf8")
    [row] = load_rows(Data(path=str(path))).train
    assert row["completion"] == [{"role": "assistant", "content": LONG}]


def test_rows_after_the_last_wanted_one_are_not_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl"
    path.write_text(GOOD * 60 + '{"question', encoding="utf8")
    assert len(load_rows(Data(path=str(path), num_rows=60)).train) == 60
    with pytest.raises(BadInput, match=r"cut\.jsonl:61: "):
        load_rows(Data(path=str(path)))


def test_a_large_list_is_looked_into_but_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.json"
    path.write_text(json.dumps([{"text": f"row {n}"} for n in range(2000)], indent=1), encoding="utf8")
    monkeypatch.setattr("ftwiz.engine.data.read.COUNT_LIMIT_BYTES", 10_000)
    summary = inspect(Data(path=str(path), eval_fraction=0.1))
    assert (summary.format, summary.num_rows, summary.num_eval_rows) == ("text", None, None)
    assert len(load_rows(Data(path=str(path))).train) == 2000


def test_columns_that_no_format_has_are_refused(qa_rows: Path) -> None:
    with pytest.raises(BadInput, match=r"no format has the columns 'frage'"):
        inspect(Data(path=str(qa_rows), columns={"frage": "question"}))
    with pytest.raises(BadInput, match=r"rows\.jsonl:1: no column 'reply' \(found: question, answer\)"):
        inspect(Data(path=str(qa_rows), columns={"completion": "reply"}))
    with pytest.raises(BadInput, match=r"rows\.jsonl:1: format text needs text \(found: question, answer\)"):
        inspect(Data(path=str(qa_rows), format="text"))


NAMES = st.sampled_from([
    "messages", "conversations", "role", "from", "content", "value", "prompt", "completion", "text", "type",
    "instruction", "output", "input", "history", "system", "question", "answer", "columns", "tool_calls",
])  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.dictionaries(NAMES, VALUES, max_size=5), min_size=1, max_size=3))
def test_any_row_is_either_used_or_refused(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    path = tmp_path / "any.json"
    path.write_text(json.dumps(rows), encoding="utf8")
    loaded = None
    with contextlib.suppress(BadInput):
        loaded = load_rows(Data(path=str(path)))
    assert loaded is None or 0 < len(loaded.train) <= len(rows)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60), suffix=st.sampled_from([".json", ".jsonl", ".csv"]))
def test_any_bytes_are_either_read_or_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"any{suffix}"
    path.write_bytes(content)
    with pytest.raises(BadInput):  # no such bytes are rows of a known format
        load_rows(Data(path=str(path)))
    assert stat.S_ISREG(path.stat().st_mode)
