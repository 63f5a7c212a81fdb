"""Real files of the corpus: what each was found to be, checked by eye once."""

from pathlib import Path

import pytest

from ftwiz.engine.data import inspect, load_rows
from ftwiz.engine.errors import BadInput
from ftwiz.engine.specs.job import Data

# file -> stage, format, rows to train on
USED = [
    ("real/gsm8k_train_first1000.jsonl", "sft", "prompt_completion", 1000),
    ("real/gsm8k_test.jsonl", "sft", "prompt_completion", 1319),
    ("real/gsm8k_test.jsonl", "grpo", "prompt_completion", 1319),
    ("real/HumanEval.jsonl", "sft", "prompt_completion", 164),
    ("real/HumanEval.jsonl", "rloo", "prompt_completion", 164),
    ("real/fastchat_dummy_conversation.json", "sft", "sharegpt", 500),
    ("real/lf_glaive_toolcall_en_demo.json", "sft", "sharegpt", 300),
    ("real/lf_identity.json", "sft", "alpaca", 91),
    ("real/lf_dpo_en_demo.json", "dpo", "preference_sharegpt", 299),
    ("real/lf_dpo_en_demo.json", "kto", "preference_sharegpt", 598),
    ("real/lf_kto_en_demo.json", "kto", "unpaired_messages", 300),
    ("real/mt_bench_question.jsonl", "grpo", "prompt_only", 80),
    ("real/self_instruct_seed_tasks.jsonl", "sft", "self_instruct", 175),
    ("real/self_instruct_user_oriented_252.jsonl", "sft", "self_instruct", 252),
    ("own/sft_alpaca.json", "sft", "alpaca", 40),
    ("own/sft_alpaca_history.json", "sft", "alpaca", 39),
    ("own/sft_messages.jsonl", "sft", "messages", 40),
    ("own/sft_messages.jsonl", "grpo", "messages", 40),
    ("own/sft_sharegpt.json", "sft", "sharegpt", 20),
    ("own/sft_prompt_completion.jsonl", "sft", "prompt_completion", 40),
    ("own/sft_prompt_completion_chat.jsonl", "sft", "prompt_completion", 40),
    ("own/sft_qa.csv", "sft", "prompt_completion", 40),
    ("own/tools_openai.jsonl", "sft", "messages", 8),
    ("own/tools_sharegpt.json", "sft", "sharegpt", 8),
    ("own/pt_text.jsonl", "pt", "text", 40),
    ("own/pt_text.jsonl", "sft", "text", 40),
    ("own/dpo_alpaca.json", "dpo", "preference_alpaca", 40),
    ("own/dpo_chat.jsonl", "rm", "preference", 40),
    ("own/dpo_chat_implicit.jsonl", "orpo", "preference_implicit", 40),
    ("own/dpo_mixed_prompt.jsonl", "simpo", "preference", 40),
    ("own/dpo_sharegpt.json", "dpo", "preference_sharegpt", 40),
    ("own/dpo_standard.jsonl", "dpo", "preference", 40),
    ("own/dpo_standard.jsonl", "kto", "preference", 80),
    ("own/kto_chat.jsonl", "kto", "unpaired", 80),
    ("own/kto_sharegpt.json", "kto", "unpaired_sharegpt", 80),
    ("own/kto_standard.jsonl", "kto", "unpaired", 80),
    ("own/grpo_prompt_only.jsonl", "grpo", "prompt_completion", 40),
    ("own/bad/bom.jsonl", "pt", "text", 2),
    ("own/bad/kto_label_strings.jsonl", "sft", "prompt_completion", 2),
]
REFUSED = [
    ("real/lf_dpo_en_demo.json", "sft", ":2: rows are preference pairs"),
    ("real/lf_kto_en_demo.json", "sft", ":2: rows are rated answers (label)"),
    ("real/lf_kto_en_demo.json", "dpo", ":2: rows are rated answers (label), and stage dpo trains on pref"),
    ("real/mt_bench_question.jsonl", "sft", ":1: rows are prompts without answers"),
    ("real/lf_identity.json", "pt", ":2: rows are questions with answers, and stage pt trains on plain text"),
    ("own/sft_messages.jsonl", "dpo", ":1: rows are conversations, and stage dpo trains on preference pairs"),
    ("own/stepwise.jsonl", "sft", ":1: rows are rated steps"),
    ("own/mm_trl.jsonl", "sft", ":1: rows have images"),
    ("own/mm_sharegpt.json", "sft", ":2: rows have images"),
    ("own/bad/dpo_equal_pair.jsonl", "dpo", ":1: chosen and rejected are the same"),
    ("own/bad/dpo_equal_pair.jsonl", "kto", ":1: chosen and rejected are the same"),
    ("own/bad/dpo_equal_pair.jsonl", "sft", ":1: rows are preference pairs"),
    ("own/bad/empty.jsonl", "sft", ": is empty"),
    ("own/bad/image_count_mismatch.json", "sft", ":2: rows have images"),
    ("own/bad/image_missing.json", "sft", ":2: rows have images"),
    ("own/bad/kto_label_strings.jsonl", "kto", ":1: label is good; it must be true or false"),
    ("own/bad/messages_no_assistant.jsonl", "sft", ":1: the conversation has no assistant message"),
    ("own/bad/messages_wrong_order.jsonl", "sft", ":1: the conversation starts with the assistant"),
    ("own/bad/mixed_rows.jsonl", "sft", ":2: no column 'text' (found: messages)"),
    ("own/bad/not_utf8.jsonl", "sft", ":1: not UTF-8"),
    ("own/bad/sharegpt_two_humans.json", "sft", ":2: the conversation has no assistant message"),
    ("own/bad/truncated.jsonl", "sft", ":2: not JSON"),
    ("own/bad/unknown_columns.jsonl", "sft", ":1: columns fit no known format (found: foo, bar)"),
]


@pytest.mark.parametrize(("name", "stage", "format_", "num_rows"), USED)
def test_a_real_file_is_recognised_and_read_whole(
    corpus: Path, name: str, stage: str, format_: str, num_rows: int
) -> None:
    data = Data(path=str(corpus / "data" / name))
    summary, rows = inspect(data, stage=stage), load_rows(data, stage=stage)
    assert (summary.format, rows.format, len(rows.train)) == (format_, format_, num_rows)
    assert summary.shape == rows.shape
    assert rows.train[0] == summary.first_row


@pytest.mark.parametrize(("name", "stage", "reason"), REFUSED)
def test_a_real_file_for_something_else_is_refused_with_its_reason(
    corpus: Path, name: str, stage: str, reason: str
) -> None:
    path = corpus / "data" / name
    for reader in (inspect, load_rows):
        with pytest.raises(BadInput) as caught:
            reader(Data(path=str(path)), stage=stage)
        assert caught.value.message.startswith(f"{path}{reason}")


def test_every_file_of_the_corpus_is_listed_here(corpus: Path) -> None:
    listed = {name for name, *_ in (*USED, *REFUSED)}
    folders = [corpus / "data" / name for name in ("own", "own/bad", "real")]
    files = {path.relative_to(corpus / "data").as_posix() for folder in folders for path in folder.iterdir()}
    other = {"own/bad", "own/images", "own/make_own.py", "own/dataset_info.json"}
    other |= {"own/pt_text.txt", "real/tinyshakespeare.txt"}
    assert files - other <= listed


def test_what_is_not_used_is_noted(corpus: Path) -> None:
    note = inspect(Data(path=str(corpus / "data" / "own" / "bad" / "kto_label_strings.jsonl"))).note
    assert note == "not used: label"
