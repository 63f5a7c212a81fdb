"""What the launcher is given: the plan's arguments, and an environment that keeps it alive at a hang-up."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ftwiz.engine.errors import BadInput
from ftwiz.engine.rundir import create
from ftwiz.engine.supervise.launch import environment, joined, read_launch

WANTED = {"marker": "run@1", "num_processes": 2, "num_cpus": 9, "grace_seconds": 300.0}


def test_cpus_are_divided_among_the_ranks_unless_the_user_decided() -> None:
    assert environment({}, **WANTED)["OMP_NUM_THREADS"] == "4"
    assert environment({"OMP_NUM_THREADS": "7"}, **WANTED)["OMP_NUM_THREADS"] == "7"
    assert environment({}, **(WANTED | {"num_cpus": 1}))["OMP_NUM_THREADS"] == "1"


def test_the_users_paths_and_tokens_reach_the_ranks_unchanged() -> None:
    given = {"PYTHONPATH": "a:b", "HF_TOKEN": "secret"}
    assert given.items() <= environment(given, **WANTED).items()


def test_the_launcher_waits_longer_than_the_grace_period() -> None:
    assert int(environment({}, **WANTED)["PET_SHUTDOWN_TIMEOUT"]) > 300


@pytest.mark.train
def test_accelerate_hears_which_signals_torchs_launcher_may_take() -> None:
    code = (
        "from types import SimpleNamespace\n"
        "import torch.distributed.run\n"
        "from accelerate.utils.launch import _filter_args\n"
        "asked = ['--training_script', 'x', '--training_script_args', []]\n"
        "found = _filter_args(SimpleNamespace(), torch.distributed.run.get_args_parser(), asked)\n"
        "print(found.signals_to_handle, found.shutdown_timeout)\n"
    )
    environ = environment({}, **WANTED)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["SIGTERM,SIGINT", "360"]


BAD_PLANS = {
    "no launch": {"strategy": {"num_processes": 1}},
    "no strategy": {"launch": ["true"]},
    "an empty launch": {"launch": [], "strategy": {"num_processes": 1}},
    "a launch that would have to be split": {"launch": "true; false", "strategy": {"num_processes": 1}},
    "no ranks": {"launch": ["true"], "strategy": {"num_processes": 0}},
    "a list": [],
    "an environment that is none": {
        "launch": ["true"],
        "strategy": {"num_processes": 1},
        "environment": ["A"],
    },
}


@pytest.mark.parametrize("name", BAD_PLANS)
def test_a_plan_that_cannot_be_launched_is_bad_input(name: str, tmp_path: Path) -> None:
    run = create(tmp_path, "x", files={"plan.json": json.dumps(BAD_PLANS[name])})
    with pytest.raises(BadInput, match=r"plan\.json"):
        read_launch(run)


@pytest.mark.parametrize(
    ("host", "expected"), [(socket.gethostname(), {"CUDA_VISIBLE_DEVICES": "GPU-1"}), ("b", {})]
)
def test_the_planned_devices_are_shown_on_the_planned_host_only(
    host: str, expected: dict[str, str], tmp_path: Path
) -> None:
    plan = {
        "launch": ["true"],
        "strategy": {"num_processes": 1},
        "environment": {"CUDA_VISIBLE_DEVICES": "GPU-1"},
        "machine": {"host": {"name": host}},
    }
    run = create(tmp_path, "run", files={"plan.json": json.dumps(plan)})
    assert read_launch(run).environment == expected


def test_what_the_user_says_to_the_allocator_wins_over_the_plan() -> None:
    planned = {"PYTORCH_ALLOC_CONF": "expandable_segments:True", "CUDA_VISIBLE_DEVICES": "1"}
    assert joined({"HOME": "/h"}, planned) == {"HOME": "/h", **planned}
    user = {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64"}
    assert joined(user, planned) == {**user, "CUDA_VISIBLE_DEVICES": "1"}
