"""What goes wrong is one line in the alert and in the exit record; the traceback stays in the rank's log."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine.rundir import RunFolder
from ftwiz.engine.specs.events import AlertEvent, EndEvent

pytestmark = [pytest.mark.train, pytest.mark.timeout(120)]


def failure(lab: Any, run: RunFolder, *, ranks: int = 1, resume_from: str | None = None) -> tuple[str, str]:
    """Run a worker that must fail; return the code and the line that everybody sees."""
    done = lab.work(run, ranks=ranks, resume_from=resume_from)
    assert done.returncode == 1
    (alert,) = lab.events(run, AlertEvent)
    assert alert.level == "error"
    assert "\n" not in alert.message
    record = lab.exit_record(run)
    assert (record["status"], record["code"], record["error"]) == ("failed", 1, alert.message)
    end = lab.events(run, EndEvent)[-1]
    assert (end.status, end.message) == ("failed", alert.message)
    assert "Traceback" in run.rank_log(0).read_text()
    if ranks == 1:
        assert (done.stdout, done.stderr) == ("", "")
    return alert.code, alert.message


def test_a_hub_model_without_a_network(lab: Any) -> None:
    code, line = failure(lab, lab.make(model={"name_or_path": "some-body/some-model"}))
    assert code == "refused"
    assert line.startswith("some-body/some-model: the tokenizer is not on this machine and the hub cannot be")


def test_a_name_that_is_neither_folder_nor_hub_id(lab: Any) -> None:
    code, line = failure(lab, lab.make(model={"name_or_path": "no/such/folder/here"}))
    assert code == "badinput"
    assert line.startswith("no/such/folder/here: neither a local folder nor a model on the hub")


def test_a_folder_without_a_tokenizer(lab: Any, tmp_path: Path) -> None:
    code, line = failure(
        lab, lab.make(model={"name_or_path": str(partly(lab.model, tmp_path, "config.json"))})
    )
    assert code == "badinput"
    assert "the tokenizer cannot be loaded" in line


def test_a_folder_without_weights(lab: Any, tmp_path: Path) -> None:
    wanted = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    code, line = failure(lab, lab.make(model={"name_or_path": str(partly(lab.model, tmp_path, *wanted))}))
    assert code == "badinput"
    assert "the model cannot be loaded" in line


def test_weights_that_are_cut_off(lab: Any, tmp_path: Path) -> None:
    folder = partly(lab.model, tmp_path, *(path.name for path in lab.model.iterdir()))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    code, line = failure(lab, lab.make(model={"name_or_path": str(folder)}))
    assert code == "badinput"
    assert "the model cannot be loaded" in line


def test_an_unknown_trainer_argument_is_found_before_the_model_is_looked_for(lab: Any) -> None:
    run = lab.make(model={"name_or_path": "/nowhere"}, train={"extra": {"adam_beta_2": 0.9}})
    code, line = failure(lab, run)
    assert code == "badinput"
    assert line == (
        "train.extra: the installed trl has no trainer argument 'adam_beta_2' (did you mean 'adam_beta2'?)"
    )


def test_a_value_that_the_trainer_refuses(lab: Any) -> None:
    _, line = failure(lab, lab.make(train={"extra": {"logging_strategy": "sometimes"}}))
    assert line.startswith("the trainer refuses its arguments: sometimes is not a valid IntervalStrategy")


def test_questions_that_fill_the_length_leave_nothing_to_learn(lab: Any) -> None:
    _, line = failure(lab, lab.make(train={"max_length": 8}))
    assert "train.max_length 8" in line


def test_one_process_where_two_were_planned(lab: Any) -> None:
    code, line = failure(lab, lab.make("ddp"))
    assert code == "refused"
    assert line.startswith("the launcher started 1 ranks, and the plan is 2")


def test_another_engine_than_planned_is_found_by_every_rank(lab: Any) -> None:
    run = lab.make("ddp")
    plan = json.loads(run.plan_file.read_text())
    plan["strategy"]["backend"] = "single"
    run.plan_file.write_text(json.dumps(plan))
    _, line = failure(lab, run, ranks=2)
    assert line.startswith(
        "rank 0 is not what was planned: its model is a DistributedDataParallel, and the backend is single"
    )


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "optimizer.pt").unlink(), "optimizer.pt is missing"),
        (lambda folder: (folder / "manifest.json").unlink(), "no manifest.json: it was never finished"),
    ],
)
def test_a_damaged_checkpoint_is_not_resumed(lab: Any, damage: Callable[[Path], None], reason: str) -> None:
    run = lab.train(train={"max_steps": 2})
    damage(run.checkpoints / "checkpoint-2")
    run.events_file.unlink()
    code, line = failure(lab, run, resume_from="checkpoint-2")
    assert code == "badinput"
    assert line.startswith(f"checkpoint-2: not a whole checkpoint: {reason}")


def test_a_checkpoint_is_a_name_and_not_a_path(lab: Any) -> None:
    _, line = failure(lab, lab.make(), resume_from="../elsewhere")
    assert line.startswith("../elsewhere: not a whole checkpoint: not a name")


def test_a_folder_that_is_no_run_has_no_plan(lab: Any, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    done = lab.work(RunFolder(folder))
    assert done.returncode == 1
    assert "train.yaml: not there" in lab.exit_record(RunFolder(folder))["error"]


def test_wrong_arguments_are_a_usage_error_and_leave_nothing(lab: Any, tmp_path: Path) -> None:
    done = lab.python("-m", "ftwiz.engine.worker", str(tmp_path / "nowhere"), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path / 'nowhere'}: no such folder\n"
    assert not (tmp_path / "nowhere").exists()


def partly(model: Path, folder: Path, *names: str) -> Path:
    """Copy some files of a model folder."""
    copy = folder / "partly"
    copy.mkdir()
    for name in names:
        (copy / name).write_bytes((model / name).read_bytes())
    return copy
