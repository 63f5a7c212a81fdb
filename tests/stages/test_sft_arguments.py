"""What train.yaml says, from a job, a strategy and a look at the data: no training stack needed."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import yaml

from ftwiz.engine.errors import BadInput
from ftwiz.engine.specs.data import DataSummary
from ftwiz.engine.specs.job import Job
from ftwiz.engine.specs.plan import Strategy
from ftwiz.engine.stages import STAGES, stage, train_file

STRATEGY = Strategy(
    backend="ddp",
    device_kind="cuda",
    num_processes=2,
    micro_batch_size=4,
    gradient_accumulation_steps=2,
    gradient_checkpointing=True,
    mixed_precision="bf16",
)
ON_CPU = replace(
    STRATEGY, device_kind="cpu", gradient_checkpointing=False, mixed_precision="no", backend="ddp"
)
CHATS = DataSummary(path="/d/a.jsonl", format="messages", shape="messages", num_rows=100, num_eval_rows=5)
PAIRS = replace(CHATS, format="alpaca", shape="prompt_completion")
TEXTS = replace(CHATS, format="text", shape="text", num_eval_rows=0)


def job(**sections: Any) -> Job:
    return Job.model_validate({"model": {"name_or_path": "/m"}, "data": {"path": "/d/a.jsonl"}} | sections)


def trainer(job: Job, strategy: Strategy = STRATEGY, data: DataSummary = CHATS) -> dict[str, Any]:
    section: dict[str, Any] = yaml.safe_load(train_file(job, strategy, data))["trainer"]
    return section


GOLDEN = """\
# What every rank of this run reads, besides plan.json. Written from job.yaml and plan.json;
# edit the job instead and run it again.

stage: sft

# what is trained; dtype is the number format that the weights are loaded in
model:
  name_or_path: /m
  revision: null
  trust_remote_code: false
  dtype: bfloat16

# read as messages: 100 rows to train on, 5 held out
data:
  path: /d/a.jsonl

# small added matrices are trained (the arguments of peft.LoraConfig)
method:
  kind: lora
  r: 16
  lora_alpha: 32.0
  lora_dropout: 0.0
  target_modules: all-linear

# arguments of trl.SFTConfig, by name; a step takes 16 sequences: 4 at once, on each of 2 ranks, 2 times
trainer:
  output_dir: checkpoints
  per_device_train_batch_size: 4
  gradient_accumulation_steps: 2
  per_device_eval_batch_size: 4
  num_train_epochs: 3.0
  learning_rate: 0.0002
  lr_scheduler_type: cosine
  warmup_steps: 0.03
  weight_decay: 0.0
  max_grad_norm: 1.0
  optim: adamw_torch_fused
  seed: 42
  max_length: 1024
  packing: false
  completion_only_loss: false
  assistant_only_loss: true
  use_cpu: false
  bf16: true
  fp16: false
  activation_checkpointing: true
  logging_steps: 1
  logging_nan_inf_filter: false
  eval_strategy: 'no'
  save_strategy: 'no'
  save_total_limit: null
  include_num_input_tokens_seen: non_padding
  ddp_find_unused_parameters: false
  dataloader_pin_memory: true
  report_to: none
  ddp_timeout: 1800
  disable_tqdm: true

# what ftwiz does around the trainer
run:
  num_samples: 4
  sample_max_new_tokens: 64
  save_total_limit: 2
"""


def test_train_yaml_is_this_and_the_same_every_time() -> None:
    assert train_file(job(), STRATEGY, CHATS) == train_file(job(), STRATEGY, CHATS)
    assert train_file(job(), STRATEGY, CHATS) == GOLDEN


def test_every_number_comes_back_as_a_number() -> None:
    tiny = trainer(job(train={"learning_rate": 1e-7, "weight_decay": 1e-5}))
    assert tiny["learning_rate"] == 1e-7
    assert tiny["weight_decay"] == 1e-5


@pytest.mark.parametrize(
    ("data", "wanted", "flags"),
    [
        (CHATS, True, {"assistant_only_loss": True, "completion_only_loss": False}),
        (PAIRS, True, {"assistant_only_loss": False, "completion_only_loss": True}),
        (TEXTS, True, {"assistant_only_loss": False, "completion_only_loss": False}),
        (CHATS, False, {"assistant_only_loss": False, "completion_only_loss": False}),
        (PAIRS, False, {"assistant_only_loss": False, "completion_only_loss": False}),
    ],
)
def test_answers_only_is_said_in_the_words_that_fit_the_rows(
    data: DataSummary, wanted: bool, flags: dict[str, bool]
) -> None:
    arguments = trainer(job(train={"assistant_only_loss": wanted}), data=data)
    assert {name: arguments[name] for name in flags} == flags


def test_the_learning_rate_follows_the_method_unless_it_is_given() -> None:
    assert trainer(job(method={"kind": "full"}))["learning_rate"] == 2e-5
    assert trainer(job(method={"kind": "lora"}))["learning_rate"] == 2e-4
    assert trainer(job(train={"learning_rate": 0.5}))["learning_rate"] == 0.5


def test_steps_count_instead_of_epochs_when_they_are_given() -> None:
    arguments = trainer(job(train={"max_steps": 7}))
    assert arguments["max_steps"] == 7
    assert "num_train_epochs" not in arguments


def test_evaluation_needs_a_rhythm_and_held_out_rows() -> None:
    every_five = job(train={"eval_steps": 5, "save_steps": 9})
    assert trainer(every_five)["eval_strategy"] == "steps"
    assert trainer(every_five, data=TEXTS)["eval_strategy"] == "no"
    assert trainer(every_five, data=replace(TEXTS, num_eval_rows=None))["eval_strategy"] == "steps"
    assert trainer(every_five)["save_steps"] == 9


def test_weights_that_are_trained_stay_float32() -> None:
    def dtype(kind: str, strategy: Strategy) -> str:
        text = train_file(job(method={"kind": kind}), strategy, CHATS)
        found: str = yaml.safe_load(text)["model"]["dtype"]
        return found

    assert dtype("full", STRATEGY) == "float32"
    assert dtype("lora", STRATEGY) == "bfloat16"
    assert dtype("lora", ON_CPU) == "float32"


def test_extra_arguments_are_passed_through() -> None:
    assert (
        trainer(job(train={"extra": {"adam_beta2": 0.95, "report_to": "tensorboard"}}))["adam_beta2"] == 0.95
    )


@pytest.mark.parametrize(
    ("extra", "hint"),
    [
        ({"gradient_accumulation_steps": 4}, "use train.global_batch_size"),
        ({"per_device_train_batch_size": 4}, "use plan.micro_batch_size"),
        ({"bf16": True}, "use plan.mixed_precision"),
        ({"output_dir": "/elsewhere"}, "take it out: ftwiz needs it as it is"),
    ],
)
def test_extra_cannot_undo_what_is_decided_elsewhere(extra: dict[str, object], hint: str) -> None:
    with pytest.raises(BadInput) as caught:
        trainer(job(train={"extra": extra}))
    assert next(iter(extra)) in caught.value.message
    assert caught.value.hint == hint


def test_every_stage_is_found_by_its_name() -> None:
    assert [stage(module.NAME) for module in STAGES] == list(STAGES)


def test_rendering_imports_nothing_of_the_training_stack() -> None:
    code = (
        "import sys, ftwiz.engine.stages, ftwiz.engine.checkpoints;"
        "print([m for m in ('torch','transformers','trl','peft','datasets') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
