"""What becomes of the files of each tool."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ftwiz.engine.errors import BadInput, Refused
from ftwiz.engine.imports import Imported, Wishes, import_files
from ftwiz.engine.job import parse_job
from ftwiz.engine.specs.job import Job

Written = Callable[..., Path]

LLAMAFACTORY = """
model_name_or_path: Qwen/Qwen3-0.6B
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 4
lora_target: q_proj,v_proj
dataset: mine
template: qwen3
per_device_train_batch_size: 2
gradient_accumulation_steps: 4
learning_rate: 1.0e-4
warmup_ratio: 0.1
"""
AXOLOTL = """
base_model: Qwen/Qwen3-0.6B
load_in_4bit: true
adapter: qlora
lora_r: 32
lora_alpha: 16
lora_target_linear: true
datasets:
  - path: rows.jsonl
    type: chat_template
val_set_size: 0.05
sequence_len: 4096
sample_packing: true
micro_batch_size: 2
gradient_accumulation_steps: 4
num_epochs: 4
optimizer: paged_adamw_32bit
learning_rate: 0.0002
bf16: auto
gradient_checkpointing: true
resume_from_checkpoint:
special_tokens:
warmup_ratio: 0.1
"""
TRL = """
model_name_or_path: Qwen/Qwen3-0.6B
dataset_name: rows.jsonl
use_peft: true
lora_r: 8
learning_rate: 2.0e-4
per_device_train_batch_size: 1
max_length: 512
"""
ACCELERATE = """
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
mixed_precision: bf16
num_machines: 1
num_processes: 4
fsdp_config:
  fsdp_version: 2
  fsdp_reshard_after_forward: false
  fsdp_offload_params: true
  fsdp_state_dict_type: SHARDED_STATE_DICT
"""
DEEPSPEED = {
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_clipping": 0.5,
    "bf16": {"enabled": "auto"},
    "zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}, "overlap_comm": True},
}


def job_of(done: Imported) -> Job:
    assert done.job is not None, [problem.message for problem in done.problems]
    return done.job


def test_a_training_file_of_llamafactory(written: Written, rows: Path) -> None:
    done = import_files([written(LLAMAFACTORY)], Wishes(data=rows, processes=2))
    job = job_of(done)
    assert (job.method.r, job.method.lora_alpha) == (4, 8), "its alpha is twice the rank"
    assert job.method.target_modules == ("q_proj", "v_proj")
    assert job.train.global_batch_size == 2 * 4 * 2
    assert job.train.max_length == 2048, "its own default, not ours"
    assert job.train.lr_scheduler_type == "linear", "its own default, not ours"
    assert job.train.warmup_steps == pytest.approx(0.1)
    assert parse_job(done.text, name="job.yaml", base=rows.parent).job == job


def test_a_default_of_theirs_that_is_not_ours_is_told(written: Written, rows: Path) -> None:
    done = import_files([written(LLAMAFACTORY)], Wishes(data=rows))
    unsaid = {change.ours for change in done.changes if change.line is None}
    assert {"train.max_length: 2048", "train.lr_scheduler_type: linear", "method.lora_alpha: 8"} <= unsaid


def test_a_data_set_is_looked_up_in_the_list_above_the_file(written: Written, rows: Path) -> None:
    entry = {"file_name": "../rows.jsonl", "formatting": "sharegpt", "num_samples": 5}
    entry |= {"columns": {"messages": "messages"}, "tags": {"role_tag": "role"}}
    info = {"mine": entry}
    written(json.dumps(info), name="data/dataset_info.json")
    job = job_of(import_files([written(LLAMAFACTORY, name="examples/train_lora/x.yaml")], Wishes()))
    assert Path(job.data.path).resolve() == rows
    assert (job.data.format, job.data.num_rows) == ("messages", 5)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"file_name": "no.json"}, "names no file that is here"),
        ({"hf_hub_url": "a/b"}, "names no file that is here"),
        ({"file_name": "../rows.jsonl", "columns": {"images": "images"}}, "images"),
        ({"file_name": "../rows.jsonl", "columns": 3}, "are no names"),
        ("text", "is not in"),
    ],
)
def test_a_data_set_that_cannot_be_used_is_named(
    written: Written, entry: object, reason: str, rows: Path
) -> None:
    assert rows.is_file()
    written(json.dumps({"mine": entry}), name="data/dataset_info.json")
    done = import_files([written(LLAMAFACTORY)], Wishes())
    assert reason in done.problems[0].message
    assert ":8: dataset: " in done.problems[0].message


def test_a_training_file_of_axolotl(written: Written, rows: Path) -> None:
    done = import_files([written(AXOLOTL)], Wishes())
    job = job_of(done)
    assert Path(job.data.path) == rows
    assert (job.data.format, job.data.eval_fraction) == ("messages", 0.05)
    assert (job.method.kind, job.method.r, job.plan.quantization) == ("lora", 32, "nf4")
    assert (job.train.packing, job.train.optim, job.train.max_length) == (True, "paged_adamw_32bit", 4096)
    assert job.train.global_batch_size == 8
    assert job.plan.gradient_checkpointing is True


def test_a_training_file_of_trl(written: Written, rows: Path) -> None:
    job = job_of(import_files([written(TRL)], Wishes()))
    assert Path(job.data.path) == rows
    assert (job.method.kind, job.method.r, job.method.lora_dropout) == ("lora", 8, 0.05)
    assert job.train.assistant_only_loss is False, (
        "TRL learns whole conversations unless it is told otherwise"
    )


def test_an_accelerate_file_pins_the_engine_of_the_demo(written: Written) -> None:
    done = import_files([written(ACCELERATE)], Wishes())
    job = job_of(done)
    assert job.model.name_or_path == "ftwiz:demo"
    plan = job.plan
    assert (plan.backend, plan.reshard_after_forward, plan.offload_parameters) == ("fsdp", False, "cpu")
    assert (plan.state_dict, plan.mixed_precision) == ("sharded", "bf16")
    assert "put your own" in done.text


def test_a_deepspeed_file_may_be_indented_by_tabs(written: Written) -> None:
    path = written(json.dumps(DEEPSPEED, indent="\t"), name="ds.json")
    job = job_of(import_files([path], Wishes()))
    assert (job.plan.backend, job.plan.zero_stage, job.plan.offload_optimizer) == ("zero", 3, "cpu")
    assert job.train.max_grad_norm == 0.5


def test_a_training_file_comes_with_the_file_of_its_engine(written: Written, rows: Path) -> None:
    both = [written(LLAMAFACTORY), written(ACCELERATE, name="accelerate.yaml")]
    job = job_of(import_files(both, Wishes(data=rows)))
    assert job.train.global_batch_size == 2 * 4 * 4, "the ranks are the accelerate file's"
    assert job.plan.backend == "fsdp"


def test_two_training_files_are_too_many(written: Written, rows: Path) -> None:
    with pytest.raises(BadInput, match="is a training file"):
        import_files([written(LLAMAFACTORY), written(AXOLOTL, name="b.yaml")], Wishes(data=rows))


def test_a_deepspeed_file_that_is_named_is_read(written: Written, rows: Path) -> None:
    written(json.dumps(DEEPSPEED), name="ds.json")
    done = import_files([written(f"{LLAMAFACTORY}deepspeed: ds.json\n")], Wishes(data=rows))
    assert job_of(done).plan.zero_stage == 3
    assert {Path(change.file).name for change in done.changes} == {"theirs.yaml", "ds.json"}


def test_deepspeed_keys_may_stand_in_the_training_file(written: Written, rows: Path) -> None:
    text = f"{LLAMAFACTORY}deepspeed: {json.dumps(DEEPSPEED)}\n"
    assert job_of(import_files([written(text)], Wishes(data=rows))).plan.offload_optimizer == "cpu"


def test_llamafactorys_own_engine_file_is_known_by_its_name(written: Written, rows: Path) -> None:
    text = f"{LLAMAFACTORY}deepspeed: examples/deepspeed/ds_z2_offload_config.json\n"
    plan = job_of(import_files([written(text)], Wishes(data=rows))).plan
    assert (plan.backend, plan.zero_stage, plan.offload_optimizer) == ("zero", 2, "cpu")


def test_words_of_fsdp_become_pins(written: Written, rows: Path) -> None:
    text = f"{LLAMAFACTORY}fsdp: shard_grad_op auto_wrap offload\n"
    plan = job_of(import_files([written(text)], Wishes(data=rows))).plan
    assert (plan.backend, plan.reshard_after_forward, plan.offload_parameters) == ("fsdp", False, "cpu")


def test_two_keys_that_say_otherwise_are_an_error_with_both_places(written: Written, rows: Path) -> None:
    accelerate = written(ACCELERATE.replace("bf16", "fp16"), name="accelerate.yaml")
    done = import_files([written(f"{LLAMAFACTORY}bf16: true\n"), accelerate], Wishes(data=rows))
    message = done.problems[0].message
    assert "bf16" in message
    assert "theirs.yaml:14" in message
    assert "accelerate.yaml:4" in message


def test_a_secret_is_neither_shown_nor_written(written: Written, rows: Path) -> None:
    done = import_files([written(f"{LLAMAFACTORY}hf_hub_token: hf_abcdef\n")], Wishes(data=rows))
    assert "hf_abcdef" not in done.text
    assert all("hf_abcdef" not in str(change) for change in done.changes)


def test_evaluation_that_is_off_takes_its_steps_out(written: Written, rows: Path) -> None:
    steps = "eval_steps: 50\nsave_steps: 20\n"
    off = job_of(import_files([written(LLAMAFACTORY + steps)], Wishes(data=rows))).train
    assert (off.eval_steps, off.save_steps) == (None, 20)
    on = f"{LLAMAFACTORY}{steps}eval_strategy: steps\nsave_strategy: epoch\n"
    train = job_of(import_files([written(on)], Wishes(data=rows))).train
    assert (train.eval_steps, train.save_steps) == (50, None)


def test_a_file_says_why_what_is_missing_was_left_out(written: Written, rows: Path) -> None:
    done = import_files([written(f"{LLAMAFACTORY}plot_loss: true\n")], Wishes(data=rows))
    assert "#   plot_loss: true  (ftwiz watch shows the run)" in done.text


def test_a_line_break_in_a_value_stays_in_its_comment(written: Written, rows: Path) -> None:
    text = LLAMAFACTORY.replace("template: qwen3", 'template: "x\\nrun: {name: evil}"')
    done = import_files([written(text)], Wishes(data=rows))
    assert job_of(done).run.name is None
    assert parse_job(done.text, name="job.yaml", base=rows.parent).job.run.name is None


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("stage: ppo", "rloo or grpo"),
        ("use_llama_pro: true", "block expansion"),
        ("quantization_bit: 3", "plan.quantization: nf4"),
        ("use_galore: true", "method.kind: lora"),
        ("freeze_trainable_layers: -2", "the last layers"),
        ("val_size: 100", "share"),
        ("optim: adalomo", "train.optim is one of"),
        ("lr_scheduler_type: cosine_with_restarts", "lr_scheduler_type is one of"),
        ("neat_packing: true", "packing: true"),
    ],
)
def test_what_ftwiz_does_not_do_is_refused_with_what_it_does(
    written: Written, rows: Path, line: str, instead: str
) -> None:
    key = line.split(":", maxsplit=1)[0]
    kept = "".join(f"{old}\n" for old in LLAMAFACTORY.splitlines() if not old.startswith(f"{key}:"))
    done = import_files([written(f"{kept}{line}\n")], Wishes(data=rows))
    assert done.job is None
    assert isinstance(done.problems[0], Refused)
    assert f": {key}: " in done.problems[0].message
    assert instead in done.problems[0].message


@pytest.mark.parametrize(
    ("lines", "section", "expected"),
    [
        ("use_dora: true\nuse_rslora: true", "method", {"use_dora": True, "use_rslora": True}),
        ("pissa_init: true", "method", {"init_lora_weights": "pissa_niter_16"}),
        ("pissa_init: true\npissa_iter: 4", "method", {"init_lora_weights": "pissa_niter_4"}),
        ("pissa_init: true\npissa_iter: -1", "method", {"init_lora_weights": "pissa"}),
        ("loraplus_lr_ratio: 16", "method", {"loraplus_lr_ratio": 16}),
        ("additional_target: lm_head,norm", "method", {"modules_to_save": ("lm_head", "norm")}),
        ("freeze_trainable_layers: 4", "method", {"kind": "lora", "num_trainable_layers": 2}),
        ("optim: adamw_8bit", "train", {"optim": "adamw_bnb_8bit"}),
        ("optim: paged_adamw_8bit", "train", {"optim": "paged_adamw_8bit"}),
        ("neftune_noise_alpha: 5", "train", {"neftune_noise_alpha": 5}),
    ],
)
def test_methods_and_optimizers_are_translated(
    written: Written, rows: Path, lines: str, section: str, expected: dict[str, object]
) -> None:
    keys = tuple(line.split(":", maxsplit=1)[0] for line in lines.splitlines())
    kept = "".join(f"{old}\n" for old in LLAMAFACTORY.splitlines() if not old.startswith(keys))
    part = getattr(job_of(import_files([written(f"{kept}{lines}\n")], Wishes(data=rows))), section)
    assert {name: getattr(part, name) for name in expected} == expected


def test_freezing_is_translated_with_its_layers_and_modules(written: Written, rows: Path) -> None:
    kept = "".join(f"{old}\n" for old in LLAMAFACTORY.splitlines() if not old.startswith("finetuning_type"))
    text = f"{kept}finetuning_type: freeze\nfreeze_trainable_layers: 4\nfreeze_extra_modules: lm_head\n"
    method = job_of(import_files([written(text)], Wishes(data=rows))).method
    assert (method.kind, method.num_trainable_layers, method.modules_to_save) == ("freeze", 4, ("lm_head",))


def test_one_goes_without_a_key_when_one_says_so(written: Written, rows: Path) -> None:
    path = written(f"{LLAMAFACTORY}use_galore: true\n")
    assert import_files([path], Wishes(data=rows)).job is None
    done = import_files([path], Wishes(data=rows, without=("use_galore",)))
    assert job_of(done).method.kind == "lora"
    assert "you chose to go without it" in done.text
    with pytest.raises(BadInput, match=r"no such key; did you mean 'use_galore'"):
        import_files([path], Wishes(data=rows, without=("use_galor",)))


def test_a_model_that_is_quantized_already_is_refused_by_its_name(written: Written, rows: Path) -> None:
    text = LLAMAFACTORY.replace("Qwen/Qwen3-0.6B", "someone/Llama-3-8B-GPTQ")
    done = import_files([written(text)], Wishes(data=rows))
    assert "quantized already" in done.problems[0].message
    assert job_of(import_files([written(text)], Wishes(data=rows, model="Qwen/Qwen3-0.6B")))
