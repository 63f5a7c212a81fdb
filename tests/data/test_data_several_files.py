"""Several files, mixed by shares, and the names of LLaMA-Factory's dataset_info.json."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftwiz.engine.data import inspect, load_rows
from ftwiz.engine.data.mixing import Mixing, shares, taken, woven
from ftwiz.engine.errors import BadInput
from ftwiz.engine.specs.job import Data

CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}


def questions(path: Path, word: str, number: int) -> str:
    rows = [{"question": f"{word} {n}", "answer": str(n)} for n in range(number)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
    return str(path)


def asked(rows: list[dict[str, object]]) -> Counter[str]:
    return Counter(row["prompt"][0]["content"].split()[0] for row in rows)  # type: ignore[index]


@pytest.fixture
def two(tmp_path: Path) -> tuple[str, str]:
    return questions(tmp_path / "a.jsonl", "a", 30), questions(tmp_path / "b.jsonl", "b", 10)


def test_several_files_are_read_one_after_the_other(two: tuple[str, str]) -> None:
    rows, summary = load_rows(Data(path=two)), inspect(Data(path=two))
    assert asked(rows.train) == {"a": 30, "b": 10}
    assert (summary.num_rows, summary.format, summary.paths) == (40, "prompt_completion", two)


@pytest.mark.parametrize(
    ("weights", "mixing", "expected"),
    [
        ((1, 1), "first_exhausted", {"a": 10, "b": 10}),
        ((1, 1), "all_exhausted", {"a": 30, "b": 30}),
        ((0.2, 0.8), "first_exhausted", {"a": 2, "b": 10}),
        ((9, 1), "first_exhausted", {"a": 30, "b": 3}),
    ],
)
def test_files_are_mixed_by_shares(
    two: tuple[str, str], weights: tuple[float, ...], mixing: Mixing, expected: dict[str, int]
) -> None:
    data = Data(path=two, weights=weights, mixing=mixing)
    rows, summary = load_rows(data), inspect(data)
    assert asked(rows.train) == expected
    assert summary.num_rows == len(rows.train)
    used = f"a.jsonl: 30 rows, {expected['a']} used; b.jsonl: 10 rows, {expected['b']} used"
    assert rows.note == summary.note == used


def test_what_is_held_out_is_never_mixed_in(two: tuple[str, str]) -> None:
    rows = load_rows(Data(path=two, weights=(1, 4), mixing="all_exhausted", eval_fraction=0.2))
    assert asked(rows.eval) == {"a": 6, "b": 2}
    assert not [row for row in rows.eval if row in rows.train]
    assert asked(rows.train) == {"a": 24, "b": 96}


def test_pairs_are_held_out_whole(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    pairs = [{"prompt": f"q{n}", "chosen": "yes", "rejected": "no"} for n in range(10)]
    path.write_text("".join(json.dumps(row) + "\n" for row in pairs), encoding="utf8")
    data = Data(path=str(path), eval_fraction=0.2)
    rows, summary = load_rows(data, stage="kto"), inspect(data, stage="kto")
    assert (len(rows.train), len(rows.eval)) == (summary.num_rows, summary.num_eval_rows) == (16, 4)
    assert [row["label"] for row in rows.eval] == [True, False] * 2


def test_questions_join_conversations_and_texts_do_not(two: tuple[str, str], tmp_path: Path) -> None:
    chats, texts = tmp_path / "chats.jsonl", tmp_path / "texts.txt"
    chats.write_text(json.dumps(CHAT), encoding="utf8")
    texts.write_text("one\ntwo\n", encoding="utf8")
    data = Data(path=(two[1], str(chats)))
    rows, summary = load_rows(data), inspect(data)
    assert (rows.shape, rows.format, summary.format) == ("messages", "mixed", "mixed")
    assert rows.train[-1] == CHAT
    assert rows.train[0] == summary.first_row == {
        "messages": [{"role": "user", "content": "b 0"}, {"role": "assistant", "content": "0"}]
    }  # fmt: skip
    with pytest.raises(BadInput, match=r"texts\.txt: is text, and b\.jsonl is prompt_completion"):
        load_rows(Data(path=(two[1], str(texts))))


def test_shares_that_do_not_fit_the_files_are_refused(two: tuple[str, str]) -> None:
    for reader in (inspect, load_rows):
        with pytest.raises(BadInput, match=r"data\.weights: 3 shares for 2 files"):
            reader(Data(path=two, weights=(1, 1, 1)))


NUMS = st.lists(st.integers(1, 500), min_size=1, max_size=5)


@given(nums=NUMS, data=st.data(), mixing=st.sampled_from(["first_exhausted", "all_exhausted"]))
def test_shares_are_kept_to_a_row(nums: list[int], data: st.DataObject, mixing: Mixing) -> None:
    weights = data.draw(st.lists(st.floats(0.01, 100), min_size=len(nums), max_size=len(nums)))
    found = shares(nums, weights, mixing)
    scale = (min if mixing == "first_exhausted" else max)(n / w for n, w in zip(nums, weights, strict=True))
    for num, weight, used in zip(nums, weights, found, strict=True):
        assert abs(used - max(1, scale * weight)) <= 1
        assert used <= num or mixing == "all_exhausted"
        assert used >= num or mixing == "first_exhausted"


@given(nums=NUMS)
def test_weaving_keeps_every_row_in_its_order(nums: list[int]) -> None:
    parts = [[(which, n) for n in range(num)] for which, num in enumerate(nums)]
    whole = woven(parts)
    assert [[one for one in whole if one[0] == which] for which in range(len(nums))] == parts


@given(num=st.integers(1, 50), wanted=st.integers(1, 200))
def test_rows_are_taken_evenly(num: int, wanted: int) -> None:
    counts = Counter(taken(range(num), wanted))
    assert counts.total() == wanted
    assert max(counts.values()) - min(counts[n] for n in range(num)) <= 1


LISTED = [
    ("own_alpaca", "sft", "alpaca", 40),
    ("own_alpaca_history", "sft", "alpaca", 39),
    ("own_sharegpt", "sft", "sharegpt", 20),
    ("own_messages", "sft", "messages", 40),
    ("own_prompt_completion", "sft", "alpaca", 40),
    ("own_text", "pt", "text", 40),
    ("own_qa_csv", "sft", "alpaca", 40),
    ("own_dpo_alpaca", "dpo", "preference_alpaca", 40),
    ("own_dpo_sharegpt", "rm", "preference_sharegpt", 40),
    ("own_kto", "kto", "unpaired_sharegpt", 80),
    ("own_tools_sharegpt", "sft", "sharegpt", 8),
]


@pytest.mark.parametrize(("name", "stage", "format_", "num_rows"), LISTED)
def test_a_name_in_a_list_stands_for_its_file(
    corpus: Path, name: str, stage: str, format_: str, num_rows: int
) -> None:
    data = Data(path=str(corpus / "data" / "own" / name))
    rows = load_rows(data, stage=stage)
    assert (rows.format, len(rows.train)) == (format_, num_rows)
    assert inspect(data, stage=stage).num_rows == num_rows


def listed(folder: Path, entry: object, rows: list[dict[str, Any]]) -> Data:
    (folder / "rows.json").write_text(json.dumps(rows), encoding="utf8")
    (folder / "dataset_info.json").write_text(json.dumps({"mine": entry}), encoding="utf8")
    return Data(path=str(folder / "mine"))


def test_columns_that_a_list_does_not_name_are_not_read(tmp_path: Path) -> None:
    entry = {"file_name": "rows.json", "columns": {"prompt": "instruction", "response": "output"}}
    data = listed(tmp_path, entry, [{"instruction": "Add.", "input": "1 1", "output": "2"}])
    assert load_rows(data).train[0]["prompt"] == [{"role": "user", "content": "Add."}]
    assert inspect(data).note == "not used: input"


def test_speakers_of_a_list_are_known_by_their_names(tmp_path: Path) -> None:
    entry = {
        "file_name": "rows.json", "formatting": "sharegpt", "num_samples": 2,
        "columns": {"messages": "talk"}, "tags": {"user_tag": "pupil", "assistant_tag": "teacher"},
    }  # fmt: skip
    talk = {"talk": [{"from": "pupil", "value": "hi"}, {"from": "teacher", "value": "ho"}]}
    assert load_rows(listed(tmp_path, entry, [talk] * 3)).train == [CHAT, CHAT]


BAD_ENTRIES: list[tuple[object, str]] = [
    ("rows.json", "mine: is not in the list"),
    ({}, "mine: has no file"),
    ({"hf_hub_url": "a/b"}, "mine: comes from elsewhere"),
    ({"file_name": "gone.json"}, "mine: its file is not there"),
    ({"file_name": "rows.json", "columns": ["a"]}, "mine: its columns are no names"),
    ({"file_name": "rows.json", "columns": {"images": "images"}}, "mine: has images"),
    ({"file_name": "rows.json", "columns": {"promt": "q"}}, "columns: promt is no column"),
    (
        {"file_name": "rows.json", "formatting": "sharegpt", "tags": {"role_tag": "who"}},
        "tags: messages of who",
    ),
]


@pytest.mark.parametrize(("entry", "reason"), BAD_ENTRIES)
def test_an_entry_that_cannot_be_used_is_refused(tmp_path: Path, entry: object, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        load_rows(listed(tmp_path, entry, [{"instruction": "a", "output": "b"}]))


def test_a_folder_with_a_list_is_asked_for_a_name(tmp_path: Path) -> None:
    data = listed(tmp_path, {"file_name": "rows.json"}, [{"instruction": "a", "output": "b"}])
    with pytest.raises(BadInput, match="is a folder of data sets; name one") as caught:
        inspect(Data(path=str(tmp_path)))
    assert caught.value.hint == "it has mine"
    with pytest.raises(BadInput, match="the list says how its rows are read, and so does the job"):
        inspect(data.model_copy(update={"format": "alpaca"}))
    (tmp_path / "dataset_info.json").write_text("[", encoding="utf8")
    with pytest.raises(BadInput, match=r"dataset_info\.json: is not JSON"):
        inspect(data)
