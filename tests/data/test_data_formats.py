"""Every layout that a row may have becomes the trainer's form, and nothing else does."""

import json
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine.data import inspect, load_rows
from ftwiz.engine.errors import BadInput
from ftwiz.engine.specs.job import Data

Q, A = "What is 2 + 2?", "4"
USER, ASSISTANT = {"role": "user", "content": Q}, {"role": "assistant", "content": A}
PAIR = {"prompt": [USER], "completion": [ASSISTANT]}
CHAT = {"messages": [USER, ASSISTANT]}


def rows_file(folder: Path, *rows: object, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
    return path


SPELLINGS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("messages", CHAT, CHAT),
    ("messages", {"conversation": [USER, ASSISTANT]}, CHAT),
    ("messages", {"messages": [{"role": "human", "content": Q}, {"role": "bot", "content": A}]}, CHAT),
    (
        "messages",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": Q}]}, ASSISTANT]},
        CHAT,
    ),
    ("sharegpt", {"conversations": [{"from": "human", "value": Q}, {"from": "gpt", "value": A}]}, CHAT),
    ("alpaca", {"instruction": Q, "input": "", "output": A}, PAIR),
    ("alpaca", {"instruction": Q, "input": None, "output": A}, PAIR),
    ("alpaca", {"instruction": Q, "response": A}, PAIR),
    ("prompt_completion", {"prompt": Q, "completion": A}, PAIR),
    ("prompt_completion", PAIR, PAIR),
    ("prompt_completion", {"prompt": [USER], "answer": A}, PAIR),
    ("prompt_completion", {"question": Q, "answer": A}, PAIR),
    ("prompt_completion", {"Question": Q, "Answer": A}, PAIR),
    ("prompt_completion", {"input": Q, "output": A}, PAIR),
    ("text", {"text": Q}, {"text": Q}),
    ("text", {"content": Q}, {"text": Q}),
]


@pytest.mark.parametrize(("format_", "row", "expected"), SPELLINGS)
def test_a_row_is_recognised_by_its_columns(
    tmp_path: Path, format_: str, row: dict[str, Any], expected: dict[str, Any]
) -> None:
    path = rows_file(tmp_path, row, row)
    summary = inspect(Data(path=str(path)))
    rows = load_rows(Data(path=str(path)))
    assert (summary.format, summary.num_rows, summary.first_row) == (format_, 2, expected)
    assert (rows.format, rows.train, rows.eval) == (format_, [expected, expected], [])
    assert rows.shape == summary.shape
    assert set(expected) == ({"prompt", "completion"} if "prompt" in expected else {summary.shape})


def test_alpaca_joins_instruction_and_input_and_keeps_the_history(tmp_path: Path) -> None:
    row = {"instruction": "Add.", "input": "1 1", "output": "2", "history": [["Hi", "Hello"]]}
    [found] = load_rows(Data(path=str(rows_file(tmp_path, row)))).train
    assert found["prompt"] == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Add.\n1 1"},
    ]


def test_the_system_message_is_put_first_where_a_row_has_none(tmp_path: Path) -> None:
    own = {"role": "system", "content": "Be long."}
    path = rows_file(tmp_path, CHAT, {"messages": [own, USER, ASSISTANT]}, {"system": "Be odd.", **CHAT})
    rows = load_rows(Data(path=str(path), system="Be brief.")).train
    assert [row["messages"][0]["content"] for row in rows] == ["Be brief.", "Be long.", "Be brief."]  # type: ignore[index]


def test_a_system_column_wins_over_the_jobs_system_message(tmp_path: Path) -> None:
    path = rows_file(tmp_path, {"question": Q, "answer": A, "system": "Be odd."})
    [row] = load_rows(Data(path=str(path), system="Be brief.")).train
    assert row["prompt"] == [{"role": "system", "content": "Be odd."}, USER]


def test_columns_of_other_names_are_named_in_the_job(tmp_path: Path) -> None:
    path = rows_file(tmp_path, {"frage": Q, "antwort": A})
    data = Data(path=str(path), columns={"prompt": "frage", "completion": "antwort"})
    assert inspect(data).columns == {"prompt": "frage", "completion": "antwort"}
    assert load_rows(data).train == [PAIR]


def test_a_format_that_is_asked_for_is_obeyed(tmp_path: Path) -> None:
    path = rows_file(tmp_path, {"text": "long text", "question": Q, "answer": A})
    assert inspect(Data(path=str(path))).format == "prompt_completion"
    summary = inspect(Data(path=str(path), format="text"))
    assert summary.format == "text"
    assert summary.note == "not used: question, answer"


def test_only_the_first_rows_are_used_when_asked(qa_rows: Path) -> None:
    data = Data(path=str(qa_rows), num_rows=7)
    assert inspect(data).num_rows == len(load_rows(data).train) == 7


def test_held_out_rows_are_spread_evenly_and_the_same_every_time(qa_rows: Path) -> None:
    data = Data(path=str(qa_rows), eval_fraction=0.1)
    rows, again, summary = load_rows(data), load_rows(data), inspect(data)
    assert rows == again
    answers = [row["completion"][0]["content"] for row in rows.eval]  # type: ignore[index]
    assert answers == ["18", "38", "58", "78"]
    assert (summary.num_rows, summary.num_eval_rows) == (len(rows.train), len(rows.eval)) == (36, 4)
    assert not [row for row in rows.train if row in rows.eval]


def test_a_small_share_still_holds_out_one_row(tmp_path: Path) -> None:
    rows = load_rows(Data(path=str(rows_file(tmp_path, PAIR, PAIR, PAIR)), eval_fraction=0.01))
    assert (len(rows.train), len(rows.eval)) == (2, 1)


def test_one_row_cannot_be_split(tmp_path: Path) -> None:
    data = Data(path=str(rows_file(tmp_path, PAIR)), eval_fraction=0.5)
    for reader in (inspect, load_rows):
        with pytest.raises(BadInput, match="one row cannot be split"):
            reader(data)


def test_held_out_rows_may_come_from_another_file_of_the_same_format(qa_rows: Path, tmp_path: Path) -> None:
    held_out = rows_file(tmp_path, PAIR, name="eval.jsonl")
    data = Data(path=str(qa_rows), eval_path=str(held_out))
    assert load_rows(data).eval == [PAIR]
    assert (inspect(data).num_rows, inspect(data).num_eval_rows) == (40, 1)
    texts = rows_file(tmp_path, {"text": Q}, name="texts.jsonl")
    with pytest.raises(BadInput, match=r"texts\.jsonl: is text, and rows\.jsonl is prompt_completion"):
        inspect(Data(path=str(qa_rows), eval_path=str(texts)))


def test_rows_with_an_empty_answer_are_left_out_and_counted(tmp_path: Path) -> None:
    path = rows_file(tmp_path, PAIR, {"prompt": Q, "completion": "  "}, {"prompt": "", "completion": A}, PAIR)
    rows = load_rows(Data(path=str(path)))
    assert len(rows.train) == 2
    assert rows.note == "rows.jsonl: rows left out, because question or answer is empty: 2"


def test_a_last_message_that_nobody_answers_is_left_out_and_counted(tmp_path: Path) -> None:
    rows = load_rows(Data(path=str(rows_file(tmp_path, {"messages": [USER, ASSISTANT, USER]}))))
    assert rows.train == [CHAT]
    assert rows.note == "rows.jsonl: last messages left out, because nobody answers them: 1"
