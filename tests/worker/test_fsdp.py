"""FSDP 2 for real: gloo ranks on the CPU that hold split weights, seen in memory and in what they save."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine.checkpoints import newest_whole
from ftwiz.engine.specs.events import EndEvent, RankEvent, SampleEvent, StepEvent

pytestmark = [pytest.mark.train, pytest.mark.timeout(300)]

SAMPLES = {"num_samples": 2, "sample_max_new_tokens": 3}
READ_SHARDS = """
import json, sys
from torch.distributed.checkpoint import FileSystemReader

found = FileSystemReader(sys.argv[1]).read_metadata().state_dict_metadata
print(json.dumps({name: [list(about.size), [list(chunk.sizes) for chunk in about.chunks]]
                  for name, about in found.items()}))
"""


def shards_in(lab: Any, checkpoint: Path) -> dict[str, tuple[list[int], list[list[int]]]]:
    """Return the shape of every saved weight and the shapes of its parts, as torch reads them."""
    done = lab.python("-c", READ_SHARDS, str(checkpoint / "pytorch_model_fsdp_0"), cwd=lab.folder)
    assert done.returncode == 0, done.stderr
    found: dict[str, tuple[list[int], list[list[int]]]] = json.loads(done.stdout)
    return found


def check_split(events: list[RankEvent], shards: int) -> None:
    """Every weight is a DTensor, and each rank holds its part and no more."""
    for event in events:
        assert event.engine.startswith("FSDP")
        assert (event.sharding, event.num_shards) == ("fsdp2", shards)
        assert event.num_local_parameters == pytest.approx(event.num_parameters / shards, rel=0.01)
        assert event.num_optimizer_parameters == pytest.approx(
            event.num_trainable_parameters / shards, rel=0.01
        )
    assert sum(event.num_local_parameters or 0 for event in events[:shards]) == events[0].num_parameters


@pytest.mark.parametrize(
    ("launcher", "kind", "reshards", "checkpointing"),
    [("torchrun", "full", True, False), ("accelerate", "lora", False, True)],
)
def test_two_ranks_learn_what_one_learns_with_half_of_the_weights_each(
    lab: Any, whole: Any, same_weights: Any, launcher: str, kind: str, reshards: bool, checkpointing: bool
) -> None:
    strategy = {"reshard_after_forward": reshards, "gradient_checkpointing": checkpointing}
    run = lab.make("fsdp", strategy=strategy, method={"kind": kind}, train={"eval_steps": 3}, run=SAMPLES)
    done = lab.launch(run, "fsdp", launcher)
    assert done.returncode == 0, done.stderr + run.rank_log(0).read_text()
    assert lab.losses(run) == pytest.approx(whole[kind].losses, rel=1e-5)
    ranks = lab.events(run, RankEvent)
    check_split(ranks, 2)
    assert all(event.parameter_bytes == {"float32": 4 * event.num_local_parameters} for event in ranks)
    assert [event.step for event in lab.events(run, SampleEvent)] == [0, 0, 3, 3, 6, 6]
    same_weights(run.final_model, whole[kind].model)
    assert [lab.exit_record(run, rank)["status"] for rank in (0, 1)] == ["finished"] * 2


@pytest.mark.parametrize(("state_dict", "kind"), [("sharded", "full"), ("full", "lora")])
def test_stopped_and_resumed_goes_on_as_if_never_stopped(
    lab: Any, whole: Any, same_weights: Any, state_dict: str, kind: str
) -> None:
    run = lab.make("fsdp", strategy={"state_dict": state_dict}, method={"kind": kind})
    run.stop_request.touch()
    assert lab.work(run, ranks=2).returncode == 0, run.rank_log(0).read_text()
    assert lab.events(run, EndEvent)[-1].status == "stopped"
    checkpoint = newest_whole(run.checkpoints)
    assert checkpoint is not None
    assert (checkpoint / "optimizer_0").is_dir() == (state_dict == "sharded")
    if state_dict == "sharded":
        for size, parts in shards_in(lab, checkpoint).values():
            rows = math.ceil(size[0] / 2)
            assert parts == [[rows, *size[1:]], [size[0] - rows, *size[1:]]]
    run.stop_request.unlink()
    assert lab.work(run, ranks=2, resume_from=checkpoint.name).returncode == 0, run.rank_log(0).read_text()
    assert [event.step for event in lab.events(run, StepEvent)] == [1, 2, 3, 4, 5, 6]
    assert lab.losses(run) == pytest.approx(whole[kind].losses, rel=1e-5)
    same_weights(run.final_model, whole[kind].model)


def test_two_groups_of_two_hold_a_copy_each(lab: Any, whole: Any) -> None:
    run = lab.make("fsdp", strategy={"num_processes": 4, "micro_batch_size": 1, "shard_size": 2})
    assert lab.work(run, ranks=4).returncode == 0, run.rank_log(0).read_text()
    assert lab.losses(run) == pytest.approx(whole["full"].losses, rel=1e-5)
    ranks = lab.events(run, RankEvent)
    assert [event.world_size for event in ranks] == [4] * 4
    check_split(ranks, 2)


def test_offloading_changes_nothing_but_the_place(lab: Any, whole: Any) -> None:
    run = lab.make("fsdp", strategy={"offload_parameters": "cpu", "offload_optimizer": "cpu"})
    assert lab.work(run, ranks=2).returncode == 0, run.rank_log(0).read_text()
    assert lab.losses(run) == pytest.approx(whole["full"].losses, rel=1e-5)


def test_in_16_bits_what_is_trained_stays_in_32(lab: Any) -> None:
    run = lab.make("fsdp", strategy={"mixed_precision": "bf16"}, method={"kind": "lora"})
    assert lab.work(run, ranks=2).returncode == 0, run.rank_log(0).read_text()
    losses = lab.losses(run)
    assert losses[-1] < losses[0]
    ranks = lab.events(run, RankEvent)
    check_split(ranks, 2)
    assert all(event.parameter_bytes["float32"] == 4 * event.num_optimizer_parameters for event in ranks)


def test_ranks_that_split_nothing_are_refused(lab: Any) -> None:
    run = lab.make("fsdp")
    assert lab.work(run, ranks=2, ACCELERATE_USE_FSDP="false").returncode == 1
    for rank in (0, 1):
        record = lab.exit_record(run, rank)
        assert record["status"] == "failed"
        assert "DistributedDataParallel, and the backend is fsdp" in record["error"]
    assert lab.events(run, StepEvent) == []
