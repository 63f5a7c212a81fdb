"""``ftwiz data``: readable at 80 columns, true in figures, honest about what it does not know."""

import json
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml

ROW = {"messages": [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "4"}]}


class RunFtwiz(Protocol):
    """The fixture of tests/conftest.py."""

    def __call__(self, *arguments: str | Path, **more: Any) -> Any:
        """Run ``ftwiz`` to its end."""


def rows(path: Path, *lines: object) -> Path:
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf8")
    return path


def test_a_file_is_shown_at_80_columns(run_ftwiz: RunFtwiz, tiny_model: Path, tmp_path: Path) -> None:
    long = {"messages": [ROW["messages"][0], {"role": "assistant", "content": "four " * 60}], "id": 7}
    path = rows(tmp_path / "rows.jsonl", long, *[ROW] * 19)
    done = run_ftwiz("data", path, "--model", tiny_model, "--max-length", "100", env={"COLUMNS": "80"})
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "  format    messages: conversations, for stage sft" in lines
    assert "  columns   messages; not used: id" in lines
    assert "  rows      20 to train on" in lines
    assert "  cut       5.0% of the rows are longer than train.max_length 100" in lines
    learned = [line for line in lines if line.startswith("  | ")]
    assert learned[0].startswith("  | four four")
    assert "What is" not in "".join(learned)


def test_without_a_tokenizer_it_counts_characters_and_says_so(run_ftwiz: RunFtwiz, tmp_path: Path) -> None:
    done = run_ftwiz("data", rows(tmp_path / "rows.jsonl", ROW), "--model", "nobody/nothing")
    assert "  lengths   15 to 15 characters" in done.stdout
    assert "tokens are not counted: nobody/nothing is not on this machine" in done.stdout
    assert "  | assistant: 4" in done.stdout


def test_bad_rows_are_listed_and_end_with_2(run_ftwiz: RunFtwiz, tmp_path: Path) -> None:
    done = run_ftwiz("data", rows(tmp_path / "rows.jsonl", ROW, '{"messages', ROW, {"messages": []}))
    assert done.returncode == 2
    assert "bad rows (2 of 4, 50.0%):" in done.stdout
    assert "  line 2: not JSON: Unterminated string starting at (column 2)" in done.stdout
    assert "  line 4: messages has no turns" in done.stdout


def test_a_file_that_is_no_data_is_one_line(run_ftwiz: RunFtwiz, tmp_path: Path) -> None:
    done = run_ftwiz("data", rows(tmp_path / "rows.jsonl", {"foo": 1}))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {tmp_path}/rows.jsonl:1: columns fit no known format (found: foo)")


def test_json_says_all_of_it(run_ftwiz: RunFtwiz, tiny_model: Path, tmp_path: Path) -> None:
    path = rows(tmp_path / "rows.jsonl", ROW, "{")
    done = run_ftwiz("data", path, "--model", tiny_model, "--json")
    found = json.loads(done.stdout)
    [file] = found["files"]
    assert (found["version"], found["stage"], done.returncode) == (1, "sft", 2)
    assert (file["num_rows"], file["num_used"], file["num_bad"], file["bad_share"]) == (2, 1, 1, 0.5)
    assert (file["lengths"]["unit"], file["lengths"]["num_over"]) == ("tokens", 0)
    [[text]] = file["rows"]
    assert [piece["text"] for piece in text["pieces"] if piece["learned"]] == ["4<|end|>"]


def test_a_job_is_looked_at_with_its_model_and_stage(
    run_ftwiz: RunFtwiz, tiny_model: Path, tmp_path: Path
) -> None:
    pair = {"prompt": "Which?", "chosen": "this", "rejected": "that"}
    rows(tmp_path / "pairs.jsonl", pair, pair)
    rows(tmp_path / "held_out.jsonl", pair)
    job = {
        "model": {"name_or_path": str(tiny_model)},
        "data": {"path": ["pairs.jsonl"], "eval_path": "held_out.jsonl"},
        "stage": "rm",
        "train": {"max_length": 20},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job), encoding="utf8")
    done = run_ftwiz("data", tmp_path / "job.yaml", "--rows", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("for stage rm") == 2
    assert done.stdout.count("(chosen)") == 3
    assert "train.max_length 20" in done.stdout


def test_a_name_of_a_list_of_data_sets_is_taken(run_ftwiz: RunFtwiz, corpus: Path) -> None:
    done = run_ftwiz("data", corpus / "data" / "own" / "own_kto")
    assert done.returncode == 0, done.stderr
    assert "unpaired_sharegpt: rated answers (label), for stage kto" in " ".join(done.stdout.split())


@pytest.mark.parametrize("name", ["\x1b[2J", "\x1b]52;c;eA==\x07", "\u202e"])
def test_what_a_file_says_never_reaches_the_terminal_raw(
    run_ftwiz: RunFtwiz, tmp_path: Path, name: str
) -> None:
    row = {"messages": [{"role": "user", "content": name}, {"role": "assistant", "content": name}], name: 1}
    done = run_ftwiz("data", rows(tmp_path / "rows.jsonl", row, {"messages": [{"role": name}]}))
    assert not [letter for letter in done.stdout + done.stderr if not letter.isprintable() and letter != "\n"]
