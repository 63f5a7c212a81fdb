"""DeepSpeed ZeRO for real: two gloo ranks on the CPU, started by each of the launchers."""

import json
import math
from pathlib import Path
from typing import Any

import psutil
import pytest

from ftwiz.engine.checkpoints import newest_whole, verify
from ftwiz.engine.specs.events import AlertEvent, CheckpointEvent, EndEvent, RankEvent, SampleEvent, StepEvent

pytestmark = [pytest.mark.train, pytest.mark.timeout(300)]
pytest.importorskip("deepspeed", reason="deepspeed is not installed")

SAMPLES = {"num_samples": 2, "sample_max_new_tokens": 3}


def processes_in(folder: Path) -> list[psutil.Process]:
    """Return the processes that a run left behind."""
    left = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()) == folder:
                left.append(process)
        except (psutil.Error, OSError):
            continue
    return left


@pytest.mark.parametrize(("stage", "launcher"), [(1, "deepspeed"), (2, "accelerate"), (3, "torchrun")])
def test_two_ranks_learn_what_one_learns_and_share_what_the_stage_splits(
    lab: Any, whole: Any, same_weights: Any, stage: int, launcher: str
) -> None:
    run = lab.make("zero", strategy={"zero_stage": stage}, train={"eval_steps": 2}, run=SAMPLES)
    done = lab.launch(run, "zero", launcher)
    assert done.returncode == 0, done.stderr + run.rank_log(0).read_text()
    assert lab.losses(run) == pytest.approx(whole["full"].losses, rel=1e-5)
    ranks = lab.events(run, RankEvent)
    assert [event.rank for event in ranks] == [0, 1]
    total = ranks[0].num_parameters
    for event in ranks:
        assert (event.engine, event.sharding, event.num_shards) == ("DeepSpeedEngine", f"zero-{stage}", 2)
        assert event.num_optimizer_parameters == math.ceil(total / 2)
        assert event.num_local_parameters == (math.ceil(total / 2) if stage == 3 else total)
        assert event.parameter_bytes == {"float32": 4 * event.num_local_parameters}
    assert [event.step for event in lab.events(run, SampleEvent)] == [0, 0, 2, 2, 4, 4, 6, 6]
    (saved,) = lab.events(run, CheckpointEvent)
    assert verify(run.path / saved.path) is None
    same_weights(run.final_model, whole["full"].model)
    assert [lab.exit_record(run, rank)["status"] for rank in (0, 1)] == ["finished"] * 2
    assert processes_in(run.path) == []
    assert not (lab.folder / ".cache" / "torch_extensions").exists()  # nothing was compiled for it


@pytest.mark.parametrize(("stage", "kind"), [(2, "full"), (3, "lora")])
def test_stopped_and_resumed_goes_on_as_if_never_stopped(
    lab: Any, whole: Any, same_weights: Any, stage: int, kind: str
) -> None:
    run = lab.make("zero", strategy={"zero_stage": stage}, method={"kind": kind})
    run.stop_request.touch()
    assert lab.work(run, ranks=2).returncode == 0, run.rank_log(0).read_text()
    assert lab.events(run, EndEvent)[-1].status == "stopped"
    checkpoint = newest_whole(run.checkpoints)
    assert checkpoint is not None
    parts = {path.name for path in checkpoint.rglob("*optim_states.pt")}
    assert len(parts) == 2, parts
    run.stop_request.unlink()
    assert lab.work(run, ranks=2, resume_from=checkpoint.name).returncode == 0, run.rank_log(0).read_text()
    assert [event.step for event in lab.events(run, StepEvent)] == [1, 2, 3, 4, 5, 6]
    assert lab.losses(run) == pytest.approx(whole[kind].losses, rel=1e-5)
    same_weights(run.final_model, whole[kind].model)


def test_offloading_changes_nothing_but_the_place(lab: Any, whole: Any) -> None:
    offload = {"zero_stage": 3, "offload_optimizer": "cpu", "offload_parameters": "cpu"}
    run = lab.make("zero", strategy=offload | {"gradient_checkpointing": True})
    assert lab.work(run, ranks=2).returncode == 0, run.rank_log(0).read_text()
    assert lab.losses(run) == pytest.approx(whole["full"].losses, rel=1e-5)


def test_another_stage_than_the_planned_one_is_refused_by_every_rank(lab: Any) -> None:
    run = lab.make("zero", strategy={"zero_stage": 3})
    path = run.path / "deepspeed.json"
    settings = json.loads(path.read_text())
    settings["zero_optimization"]["stage"] = 1
    path.write_text(json.dumps(settings))
    assert lab.work(run, ranks=2).returncode == 1
    for rank in (0, 1):
        record = lab.exit_record(run, rank)
        assert record["status"] == "failed"
        assert "it runs zero-1, and zero-3 is planned" in record["error"]
    assert [event.level for event in lab.events(run, AlertEvent)] == ["error"]
    assert lab.events(run, StepEvent) == []
