"""FSDP's file, read by accelerate: always version 2, and the plugin that comes out of it."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftwiz.engine.backends import fsdp
from ftwiz.engine.specs.job import Job, PlanPins
from ftwiz.engine.specs.plan import Strategy

JOB = Job.model_validate({"model": {"name_or_path": "m"}, "data": {"path": "d.jsonl"}})
EIGHT = Strategy(
    backend="fsdp",
    device_kind="cuda",
    num_processes=8,
    micro_batch_size=2,
    gradient_accumulation_steps=4,
    gradient_checkpointing=True,
    mixed_precision="bf16",
)
WAYS = [
    EIGHT,
    replace(EIGHT, reshard_after_forward=False),
    replace(EIGHT, state_dict="full"),
    replace(EIGHT, offload_parameters="cpu", offload_optimizer="cpu"),
    replace(EIGHT, shard_size=4),
    replace(EIGHT, device_kind="cpu", num_processes=2, mixed_precision="no"),
]
READER = """
import json, os, sys
from accelerate.parallelism_config import ParallelismConfig
from accelerate.utils import FullyShardedDataParallelPlugin

found = []
for environment in json.load(sys.stdin):
    os.environ.update(environment)
    plugin, mesh = FullyShardedDataParallelPlugin(), ParallelismConfig()
    found.append({
        "version": plugin.fsdp_version,
        "reshards": plugin.reshard_after_forward,
        "state_dict": plugin.state_dict_type.name,
        "offloads": type(plugin.cpu_offload).__name__,
        "wraps": plugin.auto_wrap_policy.__name__,
        "checkpoints": plugin.activation_checkpointing,
        "first_rank_loads": plugin.cpu_ram_efficient_loading,
        "mesh": [mesh.dp_replicate_size, mesh.dp_shard_size],
    })
    for name in environment:
        os.environ.pop(name, None)
print("FOUND" + json.dumps(found))
"""


def way_name(way: Strategy) -> str:
    return f"{way.reshard_after_forward}-{way.state_dict}-{way.offload_parameters}-{way.shard_size}"


def told_by_accelerate(way: Strategy, folder: Path) -> dict[str, str]:
    """Return the environment that ``accelerate launch`` gives its ranks."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    (folder / "accelerate.yaml").write_text(fsdp.files(way, JOB, None)["accelerate.yaml"], encoding="utf8")
    arguments = fsdp.launch_command(way, "python")[3:]
    arguments[arguments.index("accelerate.yaml")] = str(folder / "accelerate.yaml")
    parsed, *_ = _validate_launch_command(launch_command_parser().parse_args(arguments))
    assert parsed.use_fsdp
    return dict(prepare_multi_gpu_env(parsed))


@pytest.mark.parametrize("way", WAYS, ids=way_name)
def test_accelerate_tells_the_ranks_what_we_would(way: Strategy, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="the training stack is not installed")
    assert fsdp.environment(way).items() <= told_by_accelerate(way, tmp_path).items()


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> dict[Strategy, dict[str, Any]]:
    """What accelerate makes of every environment, in one process of their own."""
    pytest.importorskip("accelerate", reason="the training stack is not installed")
    home = str(tmp_path_factory.mktemp("home"))
    done = subprocess.run(
        [sys.executable, "-c", READER],
        input=json.dumps([fsdp.environment(way) for way in WAYS]),
        env={"PATH": os.environ["PATH"], "HOME": home, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FOUND")]
    return dict(zip(WAYS, json.loads(line.removeprefix("FOUND")), strict=True))


@pytest.mark.parametrize("way", WAYS, ids=way_name)
def test_the_plugin_of_a_rank_is_what_was_planned(
    way: Strategy, plugins: dict[Strategy, dict[str, Any]]
) -> None:
    size = way.shard_size
    assert plugins[way] == {
        "version": 2,
        "reshards": way.reshard_after_forward,
        "state_dict": "FULL_STATE_DICT" if way.state_dict == "full" else "SHARDED_STATE_DICT",
        "offloads": "CPUOffloadPolicy" if way.offload_parameters == "cpu" else "OffloadPolicy",
        "wraps": "transformer_auto_wrap_policy",
        "checkpoints": False,
        "first_rank_loads": True,
        "mesh": [1, 1] if size is None else [way.num_processes // size, size],
    }


def test_the_file_holds_nothing_of_version_1() -> None:
    body = yaml.safe_load(fsdp.files(EIGHT, JOB, None)["accelerate.yaml"])
    assert body["fsdp_config"]["fsdp_version"] == 2
    dead = {
        "sharding_strategy",
        "backward_prefetch",
        "forward_prefetch",
        "use_orig_params",
        "sync_module_states",
    }
    assert not {f"fsdp_{name}" for name in dead} & set(body["fsdp_config"])


def test_the_pins_choose_what_is_kept() -> None:
    ways = fsdp.strategies(EIGHT, PlanPins(offload_parameters="none"))
    assert [way.reshard_after_forward for way in ways] == [False, True]
    pins = PlanPins(reshard_after_forward=True, shard_size=4, offload_optimizer="cpu", state_dict="full")
    (way,) = fsdp.strategies(EIGHT, pins)
    assert (way.shard_size, way.num_shards, way.offload_parameters, way.state_dict) == (4, 4, "cpu", "full")
    assert fsdp.strategies(EIGHT, PlanPins(shard_size=8))[0].shard_size is None
