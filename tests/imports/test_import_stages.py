"""Files for other stages than sft, and several data sets: what they become."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ftwiz.engine.data import load_rows
from ftwiz.engine.errors import BadInput, Refused
from ftwiz.engine.imports import Imported, Wishes, import_files
from ftwiz.engine.job import parse_job
from ftwiz.engine.specs.job import Job

Written = Callable[..., Path]
HEAD = """
model_name_or_path: Qwen/Qwen3-0.6B
finetuning_type: lora
template: qwen3
dataset: mine
"""
TRL = """
model_name_or_path: Qwen/Qwen3-0.6B
use_peft: true
dataset_name: pairs.jsonl
"""
PAIR = {"prompt": "Which?", "chosen": "this", "rejected": "that"}
QUESTION = {"instruction": "Add.", "output": "2"}


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    path.write_text(f"{json.dumps(PAIR)}\n" * 8, encoding="utf8")
    return path


def job_of(done: Imported) -> Job:
    assert done.job is not None, [problem.message for problem in done.problems]
    assert parse_job(done.text, name="job.yaml", base=Path("/")).job == done.job
    return done.job


def reasons(done: Imported) -> dict[str, str]:
    return {change.key: change.reason for change in done.changes}


def test_options_of_dpo_become_preferences(written: Written, pairs: Path) -> None:
    text = f"{HEAD}stage: dpo\npref_loss: hinge\npref_beta: 0.2\npref_ftx: 0.5\ntrain_on_prompt: true\n"
    done = import_files([written(text)], Wishes(data=pairs))
    job = job_of(done)
    assert (job.stage, job.preference.loss_type, job.preference.beta) == ("dpo", "hinge", 0.2)
    assert job.preference.sft_weight == 0.5
    assert reasons(done)["train_on_prompt"] == "counts only for pt, sft"


@pytest.mark.parametrize("loss", ["orpo", "simpo"])
def test_a_loss_that_needs_no_reference_is_a_stage(written: Written, pairs: Path, loss: str) -> None:
    job = job_of(import_files([written(f"{HEAD}stage: dpo\npref_loss: {loss}\n")], Wishes(data=pairs)))
    assert job.stage == loss
    if loss == "simpo":
        assert (job.preference.beta, job.preference.simpo_gamma) == (0.1, 0.5), "its own defaults, not ours"


def test_pairs_are_taken_by_stage_kto(written: Written, pairs: Path) -> None:
    done = import_files([written(f"{HEAD}stage: dpo\npref_loss: kto_pair\n")], Wishes(data=pairs))
    assert "stage kto takes pairs too" in done.problems[0].message
    job = job_of(import_files([written(f"{HEAD}stage: kto\nkto_chosen_weight: 1.2\n")], Wishes(data=pairs)))
    assert (job.stage, job.preference.desirable_weight) == ("kto", 1.2)


def test_what_a_stage_does_not_read_is_left_out_with_the_reason(written: Written, rows: Path) -> None:
    done = import_files([written(f"{HEAD}stage: sft\npref_beta: 0.2\npref_loss: orpo\n")], Wishes(data=rows))
    assert job_of(done).stage == "sft"
    assert reasons(done)["pref_beta"] == "counts only for dpo, kto, orpo, simpo"
    assert reasons(done)["pref_loss"] == "stage sft has one loss"


def test_pre_training_always_packs(written: Written, tmp_path: Path) -> None:
    text = tmp_path / "book.txt"
    text.write_text("One.\n\nTwo.\n", encoding="utf8")
    done = import_files([written(f"{HEAD}stage: pt\npacking: true\n")], Wishes(data=text))
    job = job_of(done)
    assert (job.stage, job.train.packing, reasons(done)["packing"]) == ("pt", True, "")


def test_data_for_another_stage_is_refused(written: Written, rows: Path) -> None:
    done = import_files([written(f"{HEAD}stage: dpo\n")], Wishes(data=rows))
    assert "rows are conversations, and stage dpo trains on preference pairs" in done.problems[0].message


def test_trl_says_the_stage_on_the_command_line(written: Written, pairs: Path) -> None:
    path = written(f"{TRL}beta: 0.3\nloss_type: ipo\n")
    assert pairs.is_file()
    done = import_files([path], Wishes())
    assert isinstance(done.problems[0], Refused)
    assert done.problems[0].hint == "say which: --stage dpo | kto | orpo | simpo | grpo | rloo"
    job = job_of(import_files([path], Wishes(stage="dpo")))
    assert (job.preference.beta, job.preference.loss_type) == (0.3, "ipo")
    assert job.train.learning_rate == 1e-6, "what TRL's DPOConfig takes"
    contrary = import_files([written(f"{HEAD}stage: kto\n")], Wishes(stage="dpo", data=pairs))
    assert "and --stage says dpo" in contrary.problems[0].message


def test_a_stage_of_sampling_needs_rewards_of_its_own(written: Written, tmp_path: Path) -> None:
    path, questions = written(f"{TRL}num_generations: 4\n"), tmp_path / "q.jsonl"
    questions.write_text(f"{json.dumps(QUESTION)}\n" * 8, encoding="utf8")
    done = import_files([path], Wishes(stage="grpo", data=questions))
    assert "stage grpo needs rewards, and none are named" in done.problems[0].message
    (tmp_path / "judge").mkdir()
    text = f"{path.read_text(encoding='utf8')}reward_model_name_or_path: {tmp_path}/judge\n"
    job = job_of(import_files([written(text)], Wishes(stage="grpo", data=questions)))
    assert (job.rollout.num_generations, job.rollout.reward_model) == (4, f"{tmp_path}/judge")


def listed(folder: Path, **entries: object) -> None:
    """Put data sets into a list: the names and their entries, each with a file of rows."""
    data = folder / "data"
    data.mkdir()
    for name, entry in entries.items():
        (data / f"{name}.json").write_text(json.dumps([QUESTION | PAIR] * 4), encoding="utf8")
        assert isinstance(entry, dict)
        entry["file_name"] = f"{name}.json"
    (data / "dataset_info.json").write_text(json.dumps(entries), encoding="utf8")


def test_several_data_sets_become_a_list(written: Written, tmp_path: Path) -> None:
    columns = {"prompt": "prompt", "response": "chosen"}
    listed(tmp_path, mine={"columns": columns}, yours={"columns": {**columns, "response": "rejected"}})
    job = job_of(import_files([written(f"{HEAD.replace('mine', 'mine, yours')}stage: sft\n")], Wishes()))
    assert job.data.path == (f"{tmp_path}/data/mine", f"{tmp_path}/data/yours")
    rows = load_rows(job.data).train
    assert {row["completion"][0]["content"] for row in rows} == {"this", "that"}  # type: ignore[index]


def test_ranked_data_is_looked_up_too(written: Written, tmp_path: Path) -> None:
    columns = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}
    listed(tmp_path, mine={"ranking": True, "columns": columns})
    job = job_of(import_files([written(f"{HEAD}stage: rm\n")], Wishes()))
    assert len(load_rows(job.data, stage=job.stage).train) == 4


def test_held_out_data_is_looked_up_too(written: Written, tmp_path: Path) -> None:
    listed(tmp_path, mine={"columns": {"prompt": "prompt", "response": "chosen"}}, tests={
        "columns": {"prompt": "prompt", "response": "rejected"}})  # fmt: skip
    job = job_of(import_files([written(f"{HEAD}stage: sft\neval_dataset: tests\n")], Wishes()))
    assert job.data.eval_path == f"{tmp_path}/data/tests"
    done = import_files([written(f"{HEAD}stage: sft\neval_dataset: gone\n")], Wishes())
    assert "eval_dataset: 'gone' is not in" in done.problems[0].message
    assert done.problems[0].hint == "--drop eval_dataset, and write data.eval_path into the job"


@pytest.mark.parametrize(
    ("lines", "mixing", "weights"),
    [
        ("mix_strategy: concat", "first_exhausted", ()),
        ("mix_strategy: interleave_once", "first_exhausted", ()),
        ("mix_strategy: interleave_under", "first_exhausted", (1, 1)),
        ("mix_strategy: interleave_over\ninterleave_probs: 0.7,0.3", "all_exhausted", (0.7, 0.3)),
    ],
)
def test_mixing_is_taken_over(
    written: Written, tmp_path: Path, lines: str, mixing: str, weights: tuple[float, ...]
) -> None:
    columns = {"prompt": "prompt", "response": "chosen"}
    listed(tmp_path, mine={"columns": columns}, yours={"columns": columns})
    text = f"{HEAD.replace('mine', 'mine,yours')}stage: sft\n{lines}\n"
    data = job_of(import_files([written(text)], Wishes())).data
    assert (data.mixing, data.weights) == (mixing, weights)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("mix_strategy: shaken", "mix_strategy is one of concat, interleave_under"),
        ("mix_strategy: interleave_over\ninterleave_probs: 1.0", "a share for each of 2 data sets"),
        ("mix_strategy: interleave_over\ninterleave_probs: a,b", "a share for each of 2 data sets"),
    ],
)
def test_mixing_that_makes_no_sense_is_an_error(
    written: Written, tmp_path: Path, lines: str, reason: str
) -> None:
    listed(tmp_path, mine={}, yours={})
    text = f"{HEAD.replace('mine', 'mine,yours')}stage: sft\n{lines}\n"
    done = import_files([written(text)], Wishes())
    assert isinstance(done.problems[0], BadInput)
    assert reason in done.problems[0].message
