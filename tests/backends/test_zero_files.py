"""ZeRO's files, read by accelerate, by DeepSpeed and by transformers themselves."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine.backends import zero
from ftwiz.engine.specs.job import Job, PlanPins
from ftwiz.engine.specs.model import ModelSpec
from ftwiz.engine.specs.plan import Strategy

JOB = Job.model_validate(
    {"model": {"name_or_path": "m"}, "data": {"path": "d.jsonl"}, "train": {"max_grad_norm": 0.5}}
)
LLAMA = ModelSpec(model_type="llama", hidden_size=4096)
EIGHT = Strategy(
    backend="zero",
    device_kind="cuda",
    num_processes=8,
    micro_batch_size=2,
    gradient_accumulation_steps=4,
    gradient_checkpointing=True,
    mixed_precision="bf16",
    zero_stage=2,
)
WAYS = [
    replace(EIGHT, zero_stage=0),
    replace(EIGHT, zero_stage=1),
    EIGHT,
    replace(EIGHT, mixed_precision="fp16"),
    replace(EIGHT, mixed_precision="no"),
    replace(EIGHT, zero_stage=2, offload_optimizer="cpu"),
    replace(EIGHT, zero_stage=3),
    replace(EIGHT, zero_stage=3, offload_optimizer="cpu", offload_parameters="cpu"),
    replace(EIGHT, zero_stage=3, offload_optimizer="nvme", offload_parameters="nvme", nvme_path="/mnt/a"),
]
READER = """
import json, sys, warnings
warnings.filterwarnings("ignore")
import deepspeed.comm
from deepspeed.runtime.config import DeepSpeedConfig
from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

deepspeed.comm.get_rank = lambda *_: 0
deepspeed.comm.get_world_size = lambda *_: 8
found = []
def place(settings):
    return "none" if settings is None else str(getattr(settings.device, "value", settings.device))
for text in json.load(sys.stdin):
    body = json.loads(text)
    own = DeepSpeedConfig(body)
    theirs = HfTrainerDeepSpeedConfig(json.loads(text))
    zero = own.zero_config
    found.append({
        "stage": int(zero.stage),
        "batch": [own.train_batch_size, own.train_micro_batch_size_per_gpu, own.gradient_accumulation_steps],
        "clip": own.gradient_clipping,
        "precision": [own.bfloat16_config.enabled, own.float16_config.enabled],
        "overlap": zero.overlap_comm,
        "optimizer": place(zero.offload_optimizer),
        "weights": place(zero.offload_param),
        "nvme": str(zero.offload_param.nvme_path) if zero.offload_param else "None",
        "gathers": zero.gather_16bit_weights_on_model_save,
        "persistence": zero.param_persistence_threshold,
        "unknown": sorted(set(body["zero_optimization"]) - {
            name for key, field in type(zero).model_fields.items() for name in (key, field.alias)
        }),
        "is_zero3": theirs.is_zero3(),
    })
print("FOUND" + json.dumps(found))
"""


def way_name(way: Strategy) -> str:
    return f"{way.zero_stage}-{way.mixed_precision}-{way.offload_optimizer}-{way.offload_parameters}"


@pytest.fixture(scope="module")
def read_by_deepspeed(tmp_path_factory: pytest.TempPathFactory) -> dict[Strategy, dict[str, Any]]:
    """What DeepSpeed and transformers make of every file, in one process of their own."""
    pytest.importorskip("deepspeed", reason="deepspeed is not installed")
    texts = [zero.files(way, JOB, LLAMA)["deepspeed.json"] for way in WAYS]
    done = subprocess.run(
        [sys.executable, "-c", READER],
        input=json.dumps(texts),
        env=os.environ | {"HOME": str(tmp_path_factory.mktemp("home")), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FOUND")]
    return dict(zip(WAYS, json.loads(line.removeprefix("FOUND")), strict=True))


@pytest.mark.parametrize("way", WAYS, ids=way_name)
def test_deepspeed_reads_what_was_planned(
    way: Strategy, read_by_deepspeed: dict[Strategy, dict[str, Any]]
) -> None:
    read = read_by_deepspeed[way]
    assert read["stage"] == way.zero_stage
    assert read["batch"] == [64, 2, 4]
    assert (read["clip"], read["overlap"]) == (0.5, False)
    assert read["precision"] == [way.mixed_precision == "bf16", way.mixed_precision == "fp16"]
    assert (read["optimizer"], read["weights"]) == (way.offload_optimizer, way.offload_parameters)
    assert read["nvme"] == str(way.nvme_path)
    assert read["is_zero3"] == read["gathers"] == (way.zero_stage == 3)
    assert read["unknown"] == []
    if way.zero_stage == 3:
        assert read["persistence"] == 40960


@pytest.mark.parametrize("way", WAYS, ids=way_name)
def test_no_value_is_left_to_be_guessed(way: Strategy) -> None:
    for model in (None, LLAMA):
        assert "auto" not in zero.files(way, JOB, model)["deepspeed.json"]


def test_accelerate_takes_the_file_and_tells_the_ranks_what_we_would(tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="the training stack is not installed")
    for way in WAYS:
        assert zero.environment(way).items() <= told_by_accelerate(way, tmp_path).items()


def told_by_accelerate(way: Strategy, folder: Path) -> dict[str, str]:
    """Return the environment that ``accelerate launch`` gives its ranks."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env

    for name, text in zero.files(way, JOB, LLAMA).items():
        (folder / name).write_text(text, encoding="utf8")
    arguments = zero.launch_command(way, "python")[3:]
    arguments[arguments.index("accelerate.yaml")] = str(folder / "accelerate.yaml")
    parsed, defaults, takes_precision = _validate_launch_command(
        launch_command_parser().parse_args(arguments)
    )
    assert parsed.use_deepspeed
    assert not takes_precision  # it is in deepspeed.json, and accelerate refuses to hear it twice
    parsed.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
    return dict(prepare_deepspeed_cmd_env(parsed)[1])


def test_the_pins_choose_among_the_stages() -> None:
    stages = [way.zero_stage for way in zero.strategies(EIGHT, PlanPins(offload_optimizer="none"))]
    assert stages == [1, 2, 3, 3]
    (pinned,) = zero.strategies(EIGHT, PlanPins(zero_stage=1, offload_optimizer="cpu"))
    assert (pinned.zero_stage, pinned.offload_optimizer) == (1, "cpu")
    offloaded = zero.strategies(EIGHT, PlanPins(offload_parameters="cpu"))
    assert {way.zero_stage for way in offloaded} == {3}


def test_only_adam_is_handed_to_deepspeeds_own_adam() -> None:
    offloaded = replace(EIGHT, offload_optimizer="cpu")
    sgd = Job.model_validate(JOB.model_dump() | {"train": {"optim": "sgd"}})
    forced = "zero_force_ds_cpu_optimizer"
    assert forced not in zero.deepspeed_settings(offloaded, JOB, LLAMA)
    assert zero.deepspeed_settings(offloaded, sgd, LLAMA)[forced] is False
    assert zero.deepspeed_settings(replace(offloaded, device_kind="cpu"), JOB, LLAMA)[forced] is False
    assert forced not in zero.deepspeed_settings(EIGHT, sgd, LLAMA)
