"""What a run leaves behind: real training of a tiny model on the CPU, in processes of its own."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine.checkpoints import newest_whole, verify
from ftwiz.engine.rundir import RunFolder
from ftwiz.engine.specs.events import (
    AlertEvent,
    CheckpointEvent,
    EndEvent,
    EvalEvent,
    LogEvent,
    RankEvent,
    SampleEvent,
    StepEvent,
)

pytestmark = [pytest.mark.train, pytest.mark.timeout(300)]
PLAIN_SCRIPT = Path(__file__).resolve().parents[2] / "bench" / "plain_trl.py"


def losses(lab: Any, run: RunFolder) -> list[float | None]:
    return [event.loss for event in lab.events(run, StepEvent)]


def signature(lab: Any, run: RunFolder) -> list[tuple[object, ...]]:
    """Everything of a step that must not depend on when or how often the run was interrupted."""
    return [
        (event.step, event.loss, event.grad_norm, event.learning_rate, event.num_tokens, event.epoch)
        for event in lab.events(run, StepEvent)
    ]


def plain_losses(lab: Any, run: RunFolder) -> list[float]:
    report = lab.folder / "plain.json"
    done = lab.python(str(PLAIN_SCRIPT), str(run.train_file), str(report), cwd=lab.folder)
    assert done.returncode == 0, done.stderr
    found: list[float] = json.loads(report.read_text())["losses"]
    return found


def test_a_run_tells_every_step_and_ends_with_a_model_and_a_whole_checkpoint(lab: Any) -> None:
    run = lab.make(
        train={"max_steps": 10, "lr_scheduler_type": "linear", "warmup_steps": 2, "eval_steps": 5},
        run={"num_samples": 3, "sample_max_new_tokens": 4},
    )
    done = lab.work(run)
    assert done.returncode == 0, run.rank_log(0).read_text()
    assert (done.stdout, done.stderr) == ("", "")
    steps = lab.events(run, StepEvent)
    assert [event.step for event in steps] == list(range(1, 11))
    rates = [0, 0.5, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
    assert [event.learning_rate for event in steps] == pytest.approx([1e-3 * rate for rate in rates])
    assert all(event.loss and event.grad_norm and event.tokens_per_second for event in steps)
    assert steps[-1].loss < steps[0].loss  # type: ignore[operator]
    assert [(event.step, event.num_rows) for event in lab.events(run, EvalEvent)] == [
        (0, None),
        (5, 8),
        (10, 8),
    ]
    assert [event.step for event in lab.events(run, SampleEvent)] == [0] * 3 + [5] * 3 + [10] * 3
    (end,) = lab.events(run, EndEvent)
    assert (end.status, end.step, end.max_steps) == ("finished", 10, 10)
    assert end.metrics["train_loss"] == pytest.approx(sum(losses(lab, run)) / 10, rel=1e-5)  # type: ignore[arg-type]
    (saved,) = lab.events(run, CheckpointEvent)
    assert saved.path == "checkpoints/checkpoint-10"
    assert verify(run.path / saved.path) is None
    assert (run.final_model / "model.safetensors").is_file()
    assert (run.final_model / "tokenizer.json").is_file()
    assert lab.exit_record(run, 0) == {"rank": 0, "status": "finished", "code": 0, "step": 10, "error": None}


def test_tokens_are_counted_without_padding(lab: Any, qa_rows: Path) -> None:
    """Bytes are tokens here: one for each role, the letters, and the end of the answer."""
    run = lab.make(data={"eval_fraction": 0.0}, train={"max_steps": None, "num_train_epochs": 1.0})
    assert lab.work(run).returncode == 0
    rows = [json.loads(line) for line in qa_rows.read_text().splitlines()]
    by_hand = sum(len("<") + len(row["question"]) + len("<") + len(row["answer"]) + len("<") for row in rows)
    steps = lab.events(run, StepEvent)
    assert len(steps) == len(rows) / 4
    assert steps[-1].num_tokens == by_hand
    assert steps[-1].epoch == 1.0
    assert lab.events(run, EvalEvent) == []
    assert not any("samples" in event.message for event in lab.events(run, LogEvent))


@pytest.mark.parametrize("method", [{"kind": "full"}, {"kind": "lora", "r": 4, "lora_dropout": 0.1}])
def test_the_losses_are_those_of_the_plain_script(lab: Any, method: dict[str, object]) -> None:
    run = lab.make(data={"eval_fraction": 0.0}, method=method, train={"max_steps": 8})
    assert lab.work(run).returncode == 0
    assert losses(lab, run) == plain_losses(lab, run)


def test_an_adapter_is_saved_alone_and_loads_onto_its_model(lab: Any) -> None:
    run = lab.make(method={"kind": "lora", "r": 4}, run={"num_samples": 2, "sample_max_new_tokens": 2})
    assert lab.work(run).returncode == 0
    assert (run.final_model / "adapter_model.safetensors").is_file()
    assert not (run.final_model / "model.safetensors").exists()
    (rank,) = lab.events(run, RankEvent)
    assert 0 < rank.num_trainable_parameters < rank.num_parameters
    code = (
        "import sys; from peft import AutoPeftModelForCausalLM as M;"
        "print(M.from_pretrained(sys.argv[1]).num_parameters())"
    )
    loaded = lab.python("-c", code, str(run.final_model), cwd=lab.folder)
    assert int(loaded.stdout) == rank.num_parameters


@pytest.mark.parametrize(
    ("backend", "ranks", "method"),
    [("single", 1, {"kind": "lora", "lora_dropout": 0.1}), ("ddp", 2, {"kind": "full"})],
)
def test_stopped_and_resumed_is_the_same_as_never_stopped(
    lab: Any, backend: str, ranks: int, method: dict[str, object]
) -> None:
    train = {"max_steps": 10, "eval_steps": 3}
    samples = {"num_samples": 2, "sample_max_new_tokens": 2}
    whole = lab.make(backend, train=train, run=samples, method=method)
    assert lab.work(whole, ranks=ranks).returncode == 0
    run = lab.make(backend, train=train, run=samples, method=method)
    run.stop_request.touch()
    assert lab.work(run, ranks=ranks).returncode == 0
    assert [lab.exit_record(run, rank)["status"] for rank in range(ranks)] == ["stopped"] * ranks
    assert lab.events(run, EndEvent)[-1].status == "stopped"
    assert not run.final_model.exists()
    checkpoint = newest_whole(run.checkpoints)
    assert checkpoint is not None
    assert checkpoint.name == "checkpoint-1"
    run.stop_request.unlink()
    assert lab.work(run, ranks=ranks, resume_from=checkpoint.name).returncode == 0
    assert signature(lab, run) == signature(lab, whole)
    assert [event.step for event in lab.events(run, SampleEvent)].count(0) == 2
    assert lab.events(run, EvalEvent)[-1].loss == lab.events(whole, EvalEvent)[-1].loss
    assert lab.events(run, EndEvent)[-1].status == "finished"


def test_two_ranks_learn_what_one_learns_at_the_same_global_batch(lab: Any) -> None:
    one, two = lab.make(train={"max_steps": 8}), lab.make("ddp", train={"max_steps": 8})
    assert lab.work(one).returncode == 0
    assert lab.work(two, ranks=2).returncode == 0
    assert losses(lab, two) == pytest.approx(losses(lab, one), rel=1e-4)
    assert [event.num_tokens for event in lab.events(two, StepEvent)] == [
        event.num_tokens for event in lab.events(one, StepEvent)
    ]
    ranks = lab.events(two, RankEvent)
    assert [event.rank for event in ranks] == [0, 1]
    assert {event.engine for event in ranks} == {"DistributedDataParallel"}
    assert len({event.pid for event in ranks}) == 2
    assert lab.exit_record(two, 1)["status"] == "finished"


def test_a_wanted_save_is_made_once_and_old_checkpoints_go(lab: Any) -> None:
    run = lab.make(train={"max_steps": 7, "save_steps": 2, "save_total_limit": 2})
    run.save_request.touch()
    assert lab.work(run).returncode == 0
    assert [event.step for event in lab.events(run, CheckpointEvent)] == [1, 2, 4, 6, 7]
    assert sorted(path.name for path in run.checkpoints.glob("checkpoint-*")) == [
        "checkpoint-6",
        "checkpoint-7",
    ]
    assert not run.save_request.exists()


def test_accumulated_micro_batches_are_one_step(lab: Any) -> None:
    run = lab.make(strategy={"micro_batch_size": 2, "gradient_accumulation_steps": 2}, train={"max_steps": 4})
    whole = lab.make(train={"max_steps": 4})
    assert lab.work(run).returncode == 0
    assert lab.work(whole).returncode == 0
    assert losses(lab, run) == pytest.approx(losses(lab, whole), rel=1e-4)


def test_a_loss_that_is_not_a_number_is_told_once_and_stays_readable(lab: Any) -> None:
    run = lab.make(train={"learning_rate": 10.0, "max_grad_norm": 0.0, "optim": "sgd", "max_steps": 12})
    settings = run.train_file.read_text()
    run.train_file.write_text(settings.replace("learning_rate: 10.0", "learning_rate: 1.0e+30"))
    assert lab.work(run).returncode == 0
    steps = lab.events(run, StepEvent)
    assert len(steps) == 12
    assert math.isnan(steps[-1].loss or 0)
    (alert,) = [event for event in lab.events(run, AlertEvent) if event.code == "nan_loss"]
    assert alert.step is not None


def test_real_question_and_answer_rows_train(lab: Any, corpus: Path) -> None:
    path = corpus / "data" / "real" / "gsm8k_train_first1000.jsonl"
    run = lab.make(
        data={"path": str(path), "num_rows": 40, "eval_fraction": 0.1},
        train={"max_steps": 4, "max_length": 256},
        run={"num_samples": 2, "sample_max_new_tokens": 8},
    )
    assert lab.work(run).returncode == 0, run.rank_log(0).read_text()
    assert len(lab.events(run, StepEvent)) == 4
    assert {event.prompt for event in lab.events(run, SampleEvent)} <= {
        json.loads(line)["question"] for line in path.read_text(encoding="utf8").splitlines()
    }


@pytest.mark.parametrize(
    ("strategy", "sections", "dtypes"),
    [
        ({"mixed_precision": "bf16"}, {"method": {"kind": "lora", "r": 2}}, {"bfloat16", "float32"}),
        ({"mixed_precision": "bf16", "gradient_checkpointing": True}, {}, {"float32"}),
        ({"gradient_checkpointing": True}, {"method": {"kind": "lora", "r": 2}}, {"float32"}),
    ],
)
def test_every_way_that_can_be_planned_on_this_machine_trains_and_answers(
    lab: Any, strategy: dict[str, Any], sections: dict[str, Any], dtypes: set[str]
) -> None:
    run = lab.train(strategy=strategy, run={"num_samples": 2, "sample_max_new_tokens": 2}, **sections)
    steps = lab.events(run, StepEvent)
    assert len(steps) == 6
    assert steps[-1].loss < steps[0].loss
    (rank,) = lab.events(run, RankEvent)
    assert set(rank.parameter_bytes) == dtypes
    assert len(lab.events(run, SampleEvent)) == 4
    assert lab.events(run, AlertEvent) == []
