"""The job: what the user wants, in one declaration that validates, documents and explains itself.

The machine decides nothing here: ``plan`` holds only what the user pins, and everything else stays ``auto``.
The description of a field is its help text, on the screen, in the docs and in the JSON schema.
"""

import math
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from .data import NamedFormat
from .method import Method as Method  # noqa: PLC0414 - a section of the job, asked for here
from .method import Optimizer
from .section import Auto, Names, PositiveInt
from .section import Section as Section  # noqa: PLC0414 - its base, asked for here too
from .workload import Stage

DEMO_MODEL = "ftwiz:demo"
"""The name of the tiny model that ftwiz builds itself."""
DATASET_LIST = "dataset_info.json"
"""LLaMA-Factory's list of data sets; the names in it may stand for a file."""
RUN_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""What a run may be called: its folder carries the name."""
ABSOLUTE_PATH = r"^/[^\x00-\x1f]*$"
"""A folder that every rank finds under the same name, wherever it was started."""

DataPath = Annotated[str, Field(min_length=1, max_length=4096)]
DataPaths = Annotated[tuple[DataPath, ...], Field(strict=False, min_length=1, max_length=100)]
Weight = Annotated[float, Field(gt=0, le=1_000_000)]
ColumnName = Annotated[str, Field(min_length=1, max_length=100)]

_ARGUMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_SECRET = re.compile(r"hub_token|hf_token|.*(api_?key|password|secret)", re.IGNORECASE)
_MAX_DEPTH = 8
_MAX_KEY = 100
_MAX_INT = 1 << 63


def _trainer_arguments(extra: dict[str, Any]) -> dict[str, Any]:
    for name, value in extra.items():
        reason = _argument_problem(name, value)
        if reason:
            raise PydanticCustomError("extra", "{name}: {reason}", {"name": name, "reason": reason})
    return extra


def _argument_problem(name: str, value: object) -> str | None:
    if not _ARGUMENT.fullmatch(name):
        return "is no name of a trainer argument (letters, digits, underscores)"
    if _SECRET.fullmatch(name):
        return "is a secret; ftwiz takes it from the environment (HF_TOKEN, ...) and never from a file"
    if name in Train.model_fields:
        return f"is a key of its own; write train.{name}"
    if not _is_plain(value):
        return "must be made of text, finite numbers, true, false, null, lists and keys"
    return None


def _is_plain(value: object, depth: int = 0) -> bool:
    if isinstance(value, str):
        return not any("\ud800" <= letter <= "\udfff" for letter in value)  # halves of a pair: not text
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, int):
        return abs(value) < _MAX_INT
    if isinstance(value, float):
        return math.isfinite(value)
    if depth == _MAX_DEPTH:
        return False
    if isinstance(value, list):
        return all(_is_plain(item, depth + 1) for item in value)
    return isinstance(value, dict) and all(
        isinstance(key, str) and 0 < len(key) <= _MAX_KEY and _is_plain(key) and _is_plain(item, depth + 1)
        for key, item in value.items()
    )


_STAGES_OF_THEIR_OWN = frozenset({"orpo", "simpo"})
_NO_PPO = (
    "ppo is not there: trl removed it; train a reward model first (stage: rm), then this model with "
    "stage: rloo (or grpo) and rollout.reward_model: THAT_RUN/model"
)


def _told(reason: str) -> PydanticCustomError:
    """An error whose reason is a sentence of its own."""
    return PydanticCustomError("told", "{reason}", {"reason": reason})


def _stage(value: object) -> object:
    if value == "ppo":
        raise _told(_NO_PPO)
    return value


def _loss_type(value: object) -> object:
    if isinstance(value, str) and value in _STAGES_OF_THEIR_OWN:
        raise _told(f"{value} is a stage of its own: write stage: {value}")
    if value == "kto_pair":
        raise _told("kto_pair is gone from trl: write stage: kto, which takes pairs too")
    if value == "sft":
        raise _told("sft is added to another loss: set preference.sft_weight")
    return value


DpoLoss = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "robust",
    "exo_pair",
    "nca_pair",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sigmoid_norm",
]
"""What trl 1.16's DPOTrainer knows; any other name would fail with its first loss (dpo_trainer.py)."""
Scheduler = Literal["linear", "cosine", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt"]


class Model(Section):
    """Which model is trained."""

    name_or_path: str = Field(min_length=1, max_length=4096)
    """Local folder with config.json (relative to the job file), or a Hugging Face model id, or `ftwiz:demo`
    for the tiny model that ftwiz builds itself."""
    revision: str | None = Field(default=None, min_length=1, max_length=200)
    """Branch, tag or commit of a hub model; the default branch when absent."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Off unless you have read that code."""


class Data(Section):
    """What it is trained on."""

    path: DataPath | DataPaths
    """Data file: .jsonl, .json, .csv, .txt or .parquet (relative to the job file), or FOLDER/NAME for a
    name in the folder's dataset_info.json. A list of these trains on all of them."""
    format: Literal["auto", NamedFormat] = "auto"
    """Layout of a row; auto reads it off the columns and says what it found."""
    columns: dict[ColumnName, ColumnName] = Field(default_factory=dict)
    """Names of your columns where they differ: {prompt: question, completion: answer}."""
    system: str | None = Field(default=None, max_length=20_000)
    """System message put before every conversation that has none."""
    num_rows: PositiveInt | None = None
    """Use only the first rows of each file; all when absent."""
    weights: Annotated[tuple[Weight, ...], Field(strict=False, max_length=100)] = ()
    """Mix several files: share of each in the rows that are trained on ([3, 1] takes three of the first for
    one of the second). Absent: every row of every file once."""
    mixing: Literal["first_exhausted", "all_exhausted"] = "first_exhausted"
    """With weights: stop when the first file has no more rows, or go on until all have been used, repeating
    the rows of the others."""
    eval_path: DataPath | DataPaths | None = None
    """Held-out data, named like path. Evaluated, never trained on."""
    eval_fraction: float = Field(default=0.0, ge=0.0, le=0.5)
    """Share of the rows held out when there is no eval_path (0.05 is five percent)."""

    @property
    def paths(self) -> tuple[str, ...]:
        """What is trained on, one or several."""
        return (self.path,) if isinstance(self.path, str) else self.path

    @property
    def eval_paths(self) -> tuple[str, ...]:
        """What is held out in files of its own, if anything."""
        held_out = self.eval_path
        return () if held_out is None else (held_out,) if isinstance(held_out, str) else held_out


class Train(Section):
    """How it is trained; names as in Hugging Face's TrainingArguments."""

    num_train_epochs: float = Field(default=3.0, gt=0, le=100_000)
    """Passes over the data. max_steps, when given, counts instead."""
    max_steps: PositiveInt | None = None
    """Optimizer steps; overrides num_train_epochs."""
    global_batch_size: int = Field(default=16, ge=1, le=1_000_000)
    """Sequences per optimizer step, all devices together (rm, dpo, orpo, simpo: pairs; grpo, rloo: sampled
    answers). Micro batch and accumulation are planned from it, so that another machine trains the same."""
    max_length: int = Field(default=1024, ge=8, le=100_000_000)
    """Longest sequence in tokens; longer ones are cut."""
    packing: bool = False
    """Put several short examples into one sequence: faster. Of sft, examples do not see each other; pt joins
    texts and cuts them where a sequence is full."""
    assistant_only_loss: bool = True
    """Learn the answers only, not the questions."""
    learning_rate: Auto | Annotated[float, Field(gt=0, le=10)] = "auto"
    """Peak step size; auto is what suits stage and method: 2e-4 for sft with lora, 2e-5 with full."""
    lr_scheduler_type: Scheduler = "cosine"
    """How the learning rate falls after warm-up."""
    warmup_steps: float = Field(default=0.03, ge=0, le=1_000_000_000)
    """Steps until the peak learning rate; below 1 it is a share of all steps."""
    weight_decay: float = Field(default=0.0, ge=0, le=10)
    """Pull of the weights towards zero."""
    max_grad_norm: float = Field(default=1.0, ge=0, le=1_000_000)
    """Gradients longer than this are cut; 0 cuts nothing."""
    optim: Optimizer = "adamw_torch_fused"
    """Optimizer, by its name in transformers. adamw_torch makes the same steps in more memory; lion and those
    of 8 bits or paged need bitsandbytes, galore and apollo packages of their own."""
    neftune_noise_alpha: Annotated[float, Field(gt=0, le=1000)] | None = None
    """sft: noise added to the embeddings of what is learned (NEFTune); 5 is usual. None when absent."""
    seed: int = Field(default=42, ge=0, le=4_294_967_295)
    """Seed of data order, dropout and adapter initialisation."""
    logging_steps: PositiveInt = 1
    """A step event every so many optimizer steps."""
    eval_steps: PositiveInt | None = None
    """Evaluate every so many steps; only at the end when absent."""
    save_steps: PositiveInt | None = None
    """Save a checkpoint every so many steps; only at the end when absent."""
    save_total_limit: PositiveInt = 2
    """Checkpoints kept; older ones are deleted after a newer one is whole."""
    extra: Annotated[dict[str, Any], AfterValidator(_trainer_arguments)] = Field(default_factory=dict)
    """Further trainer arguments by their own names; checked against the installed trainer before the model
    loads."""


class PlanPins(Section):
    """What you pin; everything that stays auto is planned for the machine."""

    backend: Literal["auto", "single", "ddp", "zero", "fsdp"] = "auto"
    """single trains on one device, ddp holds the whole model on each of several; zero (DeepSpeed) and fsdp
    (PyTorch FSDP 2) split it over them."""
    device: Literal["auto", "cpu", "cuda", "npu", "xpu", "mps"] = "auto"
    """Kind of device to train on."""
    num_processes: Auto | PositiveInt = "auto"
    """Ranks; one per device. On a machine without accelerators ranks share the CPUs."""
    micro_batch_size: Auto | PositiveInt = "auto"
    """Sequences per rank and forward pass."""
    gradient_checkpointing: Auto | bool = "auto"
    """Recompute activations in the backward pass: less memory, about a third slower."""
    mixed_precision: Literal["auto", "no", "fp16", "bf16"] = "auto"
    """Number format of the forward pass."""
    zero_stage: Auto | Literal[0, 1, 2, 3] = "auto"
    """zero: 1 splits optimizer states over the devices, 2 gradients too, 3 weights too; 0 splits nothing."""
    offload_optimizer: Literal["auto", "none", "cpu", "nvme"] = "auto"
    """zero: keep optimizer states in host memory or on a disk. Slow."""
    offload_parameters: Literal["auto", "none", "cpu", "nvme"] = "auto"
    """zero 3 and fsdp: keep weights in host memory (zero: or on a disk) while no layer needs them. Slower."""
    nvme_path: str | None = Field(default=None, pattern=ABSOLUTE_PATH, max_length=4096)
    """Folder on the disk that nvme means, from the root: /mnt/nvme."""
    reshard_after_forward: Auto | bool = "auto"
    """fsdp: true drops gathered weights after the forward pass; false keeps them until the backward pass:
    faster, more memory."""
    shard_size: Auto | PositiveInt = "auto"
    """fsdp: ranks that hold one copy of the model together; each further group holds another copy (hybrid
    sharding). auto is all ranks."""
    state_dict: Literal["auto", "sharded", "full"] = "auto"
    """fsdp: sharded checkpoints are written by all ranks at once; full ones by the first, in one file."""
    quantization: Literal["auto", "none", "nf4", "int8"] = "auto"
    """lora: pack the weights that are only read: nf4 into 4 bits (QLoRA), int8 into 8, by bitsandbytes. Less
    memory, less exact, slower per token. auto packs (nf4) only where nothing else fits or it is clearly
    faster."""
    ignore_estimate: bool = False
    """Plan the way that comes nearest although the memory estimate says that nothing fits."""


class Preference(Section):
    """How preferences are learned: stages dpo, kto, orpo and simpo."""

    beta: Auto | Annotated[float, Field(gt=0, le=1000)] = "auto"
    """How strongly the model is held to its reference (orpo: weight of the preference). auto is 0.1, and
    2 for simpo."""
    loss_type: Annotated[DpoLoss, BeforeValidator(_loss_type)] = "sigmoid"
    """dpo: how a pair becomes a loss. sigmoid is DPO itself."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=0.5)
    """dpo with sigmoid, robust or exo_pair: share of the pairs that are taken to be the wrong way round."""
    sft_weight: float = Field(default=0.0, ge=0.0, le=1000)
    """dpo, simpo: weight of also learning the chosen answers word by word (RPO, CPO-SimPO); 0 does not."""
    simpo_gamma: float = Field(default=1.0, ge=0.0, le=1000)
    """simpo: margin by which the chosen answer is to win."""
    desirable_weight: float = Field(default=1.0, gt=0, le=1000)
    """kto: weight of answers that are liked. Times their number it should be 1 to 1.33 times the other."""
    undesirable_weight: float = Field(default=1.0, gt=0, le=1000)
    """kto: weight of answers that are disliked."""
    precompute_reference: bool = False
    """dpo, kto: ask the reference model once before training and drop it: with full fine-tuning one copy of
    the weights less on the device."""


class Rollout(Section):
    """How answers are sampled and rewarded: stages grpo and rloo."""

    reward_model: str | None = Field(default=None, min_length=1, max_length=4096)
    """Folder of a reward model (relative to the job file), such as a run of stage rm leaves in `model/`, or a
    Hugging Face id."""
    reward_functions: Names = ()
    """Python functions that reward answers, each as file and name: [rewards.py:brevity]. They get lists
    (prompts, completions, and every column of the data that they name) and return a number for each."""
    reward_weights: Annotated[tuple[float, ...], Field(strict=False)] | None = None
    """Weight of each reward: of the reward model first, then of each function; 1 each when absent."""
    num_generations: int = Field(default=8, ge=2, le=4096)
    """Answers to each prompt, which are compared with each other. Divides train.global_batch_size, which
    counts answers."""
    max_completion_length: int = Field(default=256, ge=1, le=10_000_000)
    """Longest sampled answer in tokens. Prompts get the rest of train.max_length."""
    temperature: float = Field(default=1.0, gt=0, le=100)
    """Randomness of sampled answers."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Sample from the likeliest words that together have this probability; 1 is all."""
    beta: Auto | Annotated[float, Field(ge=0, le=1000)] = "auto"
    """How strongly the model is held to what it was; 0 needs no reference. auto is 0 for grpo, 0.05 for
    rloo."""
    loss_type: Literal["dapo", "grpo", "dr_grpo", "bnpo"] = "dapo"
    """grpo: how the losses of words are averaged: over all words of a step (dapo), of an answer (grpo), of a
    micro batch (bnpo), or by the longest answer (dr_grpo)."""
    scale_rewards: Literal["auto", "group", "batch", "none"] = "auto"
    """What rewards are divided by: their spread in a group of answers, or in the batch, or nothing. auto is
    group for grpo, none for rloo, which knows no groups."""
    mask_truncated_completions: bool = False
    """Learn nothing from answers that did not come to an end."""


class RunOptions(Section):
    """How the run is kept and shown."""

    name: str | None = Field(default=None, pattern=RUN_NAME)
    """Name of the run folder before the time; the job file's name when absent."""
    num_samples: int = Field(default=4, ge=0, le=10_000)
    """Held-out prompts that the model answers before, at each evaluation and after; 0 for none."""
    sample_max_new_tokens: int = Field(default=64, ge=1, le=100_000)
    """Longest generated answer in tokens."""
    grace_seconds: float = Field(default=300.0, ge=0, le=86_400)
    """Time that a stopping run gets to save before it is ended."""
    on_oom: Literal["stop", "replan"] = "stop"
    """When a device runs out of memory: stop and say how to go on, or go on by yourself with the next lighter
    plan, the same global batch, from the newest whole checkpoint; at most three times."""
    on_stall: Literal["warn", "restart", "stop"] = "warn"
    """When no step came for a minute or ten usual steps: only say so and name the ranks that are behind, or
    start again from the newest whole checkpoint (at most three times), or save and stop."""


class Job(Section):
    """A fine-tuning job, version 1."""

    version: Literal[1] = 1
    """Version of this file format."""
    model: Model
    """Which model is trained."""
    data: Data
    """What it is trained on."""
    stage: Annotated[Stage, BeforeValidator(_stage)] = "sft"
    """Kind of training. pt: text as it is; sft: examples of answers; rm: a reward model from preferences;
    dpo, orpo, simpo: preferences, pair by pair; kto: answers that are liked or not; grpo, rloo: sampled
    answers that are rewarded."""
    method: Method = Field(default_factory=Method)
    """Which weights are trained."""
    train: Train = Field(default_factory=Train)
    """How it is trained."""
    preference: Preference = Field(default_factory=Preference)
    """How preferences are learned: stages dpo, kto, orpo and simpo."""
    rollout: Rollout = Field(default_factory=Rollout)
    """How answers are sampled and rewarded: stages grpo and rloo."""
    plan: PlanPins = Field(default_factory=PlanPins)
    """What you pin; the rest is planned."""
    run: RunOptions = Field(default_factory=RunOptions)
    """How the run is kept and shown."""
