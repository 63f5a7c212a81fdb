"""Real files of the corpus: what each was found to be, checked by eye once."""

from pathlib import Path

import pytest

from ftwiz.engine.data import inspect, load_rows
from ftwiz.engine.errors import BadInput
from ftwiz.engine.specs.job import Data

USED = {
    "real/gsm8k_train_first1000.jsonl": ("prompt_completion", 1000),
    "real/gsm8k_test.jsonl": ("prompt_completion", 1319),
    "real/HumanEval.jsonl": ("prompt_completion", 164),
    "real/fastchat_dummy_conversation.json": ("sharegpt", 500),
    "real/lf_identity.json": ("alpaca", 91),
    "own/sft_alpaca.json": ("alpaca", 40),
    "own/sft_alpaca_history.json": ("alpaca", 39),
    "own/sft_messages.jsonl": ("messages", 40),
    "own/sft_sharegpt.json": ("sharegpt", 20),
    "own/sft_prompt_completion.jsonl": ("prompt_completion", 40),
    "own/sft_prompt_completion_chat.jsonl": ("prompt_completion", 40),
    "own/sft_qa.csv": ("prompt_completion", 40),
    "own/pt_text.jsonl": ("text", 40),
    "own/bad/bom.jsonl": ("text", 2),
    "own/bad/kto_label_strings.jsonl": ("prompt_completion", 2),
}
REFUSED = {
    "real/lf_dpo_en_demo.json": ":2: rows are preference pairs",
    "real/lf_kto_en_demo.json": ":2: rows are rated answers (label)",
    "real/lf_glaive_toolcall_en_demo.json": ":2: conversations[3].from is function_call",
    "real/mt_bench_question.jsonl": ":1: columns fit no known format",
    "real/self_instruct_seed_tasks.jsonl": ":1: columns fit no known format",
    "real/tinyshakespeare.txt": ": unknown kind of file '.txt'",
    "own/stepwise.jsonl": ":1: rows are rated steps",
    "own/mm_trl.jsonl": ":1: rows have images",
    "own/bad/dpo_equal_pair.jsonl": ":1: rows are preference pairs",
    "own/bad/empty.jsonl": ": is empty",
    "own/bad/image_count_mismatch.json": ":2: rows have images",
    "own/bad/image_missing.json": ":2: rows have images",
    "own/bad/messages_no_assistant.jsonl": ":1: the conversation has no assistant message",
    "own/bad/messages_wrong_order.jsonl": ":1: the conversation starts with the assistant",
    "own/bad/mixed_rows.jsonl": ":2: no column 'text' (found: messages)",
    "own/bad/not_utf8.jsonl": ":1: not UTF-8",
    "own/bad/sharegpt_two_humans.json": ":2: the conversation has no assistant message",
    "own/bad/truncated.jsonl": ":2: not JSON",
    "own/bad/unknown_columns.jsonl": ":1: columns fit no known format (found: foo, bar)",
}


@pytest.mark.parametrize("name", USED)
def test_a_real_file_is_recognised_and_read_whole(corpus: Path, name: str) -> None:
    data = Data(path=str(corpus / "data" / name))
    summary, rows = inspect(data), load_rows(data)
    assert (summary.format, summary.num_rows) == USED[name]
    assert (rows.format, len(rows.train)) == USED[name]
    assert rows.train[0] == summary.first_row


@pytest.mark.parametrize("name", REFUSED)
def test_a_real_file_for_something_else_is_refused_with_its_reason(corpus: Path, name: str) -> None:
    path = corpus / "data" / name
    for reader in (inspect, load_rows):
        with pytest.raises(BadInput) as caught:
            reader(Data(path=str(path)))
        assert caught.value.message.startswith(f"{path}{REFUSED[name]}")


def test_every_bad_file_of_the_corpus_is_listed_here(corpus: Path) -> None:
    bad = {f"own/bad/{path.name}" for path in (corpus / "data" / "own" / "bad").iterdir()}
    assert bad <= USED.keys() | REFUSED.keys()


def test_what_is_not_used_is_noted(corpus: Path) -> None:
    note = inspect(Data(path=str(corpus / "data" / "own" / "bad" / "kto_label_strings.jsonl"))).note
    assert note == "not used: label"
