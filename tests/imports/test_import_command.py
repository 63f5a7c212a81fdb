"""``ftwiz import`` as a user types it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Written = Callable[..., Path]

LLAMAFACTORY = """model_name_or_path: ftwiz:demo
stage: sft
finetuning_type: full
template: default
cutoff_len: 64
max_steps: 5
learning_rate: 1.0e-3
per_device_train_batch_size: 4
"""


def test_the_job_goes_to_stdout_and_the_diff_to_stderr(
    run_ftwiz: Callable, written: Written, rows: Path
) -> None:
    done = run_ftwiz("import", written(LLAMAFACTORY), "--data", rows)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# A job for ftwiz.")
    assert "max_length: 64" in done.stdout
    assert "   5  cutoff_len: 64" in done.stderr
    assert "-> train.max_length: 64" in done.stderr
    assert "-- the tokenizer's own chat template is used" in done.stderr


def test_the_written_job_plans(run_ftwiz: Callable, written: Written, rows: Path, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    done = run_ftwiz("import", written(LLAMAFACTORY), "--data", rows, "-o", job)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines()[-1] == f"wrote {job}; next: ftwiz plan {job}"
    assert run_ftwiz("plan", job, "--machine", "2x4090").returncode == 0


def test_nothing_is_written_over_unless_one_says_so(
    run_ftwiz: Callable, written: Written, rows: Path, tmp_path: Path
) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("mine", encoding="utf8")
    theirs = written(LLAMAFACTORY)
    done = run_ftwiz("import", theirs, "--data", rows, "-o", job)
    assert (done.returncode, job.read_text(encoding="utf8")) == (2, "mine")
    assert done.stderr.splitlines()[0] == f"error: {job}: is there already"
    assert run_ftwiz("import", theirs, "--data", rows, "-o", job, "--force").returncode == 0
    assert "max_length: 64" in job.read_text(encoding="utf8")


def test_json_holds_every_change_and_the_job(run_ftwiz: Callable, written: Written, rows: Path) -> None:
    done = run_ftwiz("import", written(LLAMAFACTORY), "--data", rows, "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert answer["tools"] == ["LLaMA-Factory"]
    assert answer["refused"] == []
    assert "max_length: 64" in answer["job"]
    cutoff = next(change for change in answer["changes"] if change["key"] == "cutoff_len")
    assert (cutoff["line"], cutoff["how"], cutoff["ours"]) == (5, "taken", "train.max_length: 64")


@pytest.mark.parametrize(
    ("line", "code", "error"),
    [
        ("use_llama_pro: true", 3, "use_llama_pro: true: block expansion is not there yet"),
        ("lora_rnak: 3", 2, "LLaMA-Factory has no key 'lora_rnak'; did you mean 'lora_rank'?"),
    ],
)
def test_a_refusal_is_two_lines_after_the_diff_and_writes_nothing(
    run_ftwiz: Callable, written: Written, rows: Path, tmp_path: Path, *, line: str, code: int, error: str
) -> None:
    job = tmp_path / "job.yaml"
    done = run_ftwiz("import", written(f"{LLAMAFACTORY}{line}\n"), "--data", rows, "-o", job)
    assert (done.returncode, done.stdout) == (code, "")
    assert not job.exists()
    first, hint = done.stderr.splitlines()[-2:]
    assert first.startswith("error: ")
    assert error in first
    assert hint.startswith("hint: ")
    as_json = run_ftwiz("import", written(f"{LLAMAFACTORY}{line}\n"), "--data", rows, "--json")
    assert as_json.returncode == code
    assert json.loads(as_json.stdout)["refused"][0]["exit_code"] == code
    assert json.loads(as_json.stdout)["job"] is None


def test_control_characters_of_a_file_do_not_reach_the_terminal(
    run_ftwiz: Callable, written: Written, rows: Path
) -> None:
    text = LLAMAFACTORY.replace("template: default", r'template: "\e]52;c;eA\a\ud800"')
    done = run_ftwiz("import", written(text), "--data", rows)
    assert done.returncode == 0
    assert "\x1b" not in done.stderr + done.stdout
    assert "\a" not in done.stderr + done.stdout


def test_importing_takes_no_training_stack(run_ftwiz: Callable, written: Written, rows: Path) -> None:
    done = run_ftwiz(
        "import", written(LLAMAFACTORY), "--data", rows, env={"PYTHONPROFILEIMPORTTIME": "1"}
    )  # fmt: skip
    assert done.returncode == 0
    loaded = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "pydantic" in loaded
    assert loaded & {"torch", "transformers", "trl", "datasets", "accelerate", "deepspeed"} == set()
