"""Renders train.yaml: the same job, strategy and data give the same bytes."""

from collections.abc import Mapping

import yaml

from ..specs.data import DataSummary
from ..specs.job import Job
from ..specs.plan import Strategy
from . import methods, rules, sampling

UNITS: Mapping[str, str] = {
    "rm": "pairs",
    "dpo": "pairs",
    "orpo": "pairs",
    "simpo": "pairs",
    "grpo": "sampled answers",
    "rloo": "sampled answers",
}
"""What a batch counts, where it is not sequences."""
SAMPLED = frozenset({"sft", "dpo", "kto", "orpo", "simpo", "grpo", "rloo"})
"""Stages whose model answers held-out prompts: a reward model says nothing, and texts ask nothing."""


def render(
    job: Job, strategy: Strategy, data: DataSummary, arguments: Mapping[str, object], *, config: str
) -> str:
    """Return the text of train.yaml.

    Args:
        job: What the user wants, with absolute paths.
        strategy: How the machine does it.
        data: What the data file turned out to be.
        arguments: The trainer's arguments by name.
        config: The class that they are of.
    """
    sections: list[tuple[str, Mapping[str, object]]] = [
        ("", {"stage": job.stage}),
        ("what is trained; dtype is the number format that the weights are loaded in", _model(job, strategy)),
        (_data_comment(data), {"data": job.data.model_dump(exclude_defaults=True)}),
        (_method_comment(job), {"method": method(job)}),
        (_trainer_comment(job, strategy, config), {"trainer": dict(arguments)}),
        *_rollout(job),
        ("what ftwiz does around the trainer", _run(job)),
    ]
    head = (
        "# What every rank of this run reads, besides plan.json. Written from job.yaml and plan.json;\n"
        "# edit the job instead and run it again.\n"
    )
    return head + "".join(_section(comment, body) for comment, body in sections)


def method(job: Job) -> dict[str, object]:
    """Return which weights are trained; of adapters with the arguments of peft's configuration."""
    return methods.section(job.method)


def weights_dtype(job: Job, strategy: Strategy) -> str:
    """Return the number format of the loaded weights, as torch calls it.

    Weights that are trained stay float32: bfloat16 has too few digits to add small updates to. Weights that
    LoRA only reads are kept in the format that they are computed in, which halves their memory. DeepSpeed
    computes in the format that the model has, and keeps a float32 copy of what is trained itself.
    """
    if not job.method.adds_weights and strategy.backend != "zero":
        return "float32"
    return {"no": "float32", "fp16": "float16", "bf16": "bfloat16"}[strategy.mixed_precision]


def packing(job: Job, strategy: Strategy) -> dict[str, object] | None:
    """Return how frozen weights are packed, as arguments of transformers.BitsAndBytesConfig.

    Weights that are split over ranks are kept in the format of the computation: FSDP cuts float tensors only
    (accelerate 1.15, fsdp2_prepare_model), and any other float format would be cast, which spoils the bits.
    """
    if strategy.quantization == "none":
        return None
    if strategy.quantization == "int8":
        return {"load_in_8bit": True}
    dtype = weights_dtype(job, strategy)
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": strategy.quantization,
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": dtype,
        "bnb_4bit_quant_storage": dtype if strategy.splits_weights else "uint8",
    }


def _model(job: Job, strategy: Strategy) -> dict[str, object]:
    packed = packing(job, strategy)
    return {
        "model": {
            "name_or_path": job.model.name_or_path,
            "revision": job.model.revision,
            "trust_remote_code": job.model.trust_remote_code,
            "dtype": weights_dtype(job, strategy),
            **({} if packed is None else {"quantization": packed}),
        }
    }


def _run(job: Job) -> dict[str, object]:
    return {
        "run": {
            "num_samples": job.run.num_samples if job.stage in SAMPLED else 0,
            "sample_max_new_tokens": job.run.sample_max_new_tokens,
            "save_total_limit": job.train.save_total_limit,
        }
    }


def _data_comment(data: DataSummary) -> str:
    rows = "rows not counted" if data.num_rows is None else f"{data.num_rows} rows to train on"
    held_out = "" if not data.num_eval_rows else f", {data.num_eval_rows} held out"
    return f"read as {data.format}: {rows}{held_out}"


def _method_comment(job: Job) -> str:
    return methods.COMMENTS[job.method.kind]


def _rollout(job: Job) -> list[tuple[str, Mapping[str, object]]]:
    if job.stage not in rules.SAMPLING:
        return []
    return [("where rewards come from; longer prompts are left out", {"rollout": sampling.settings(job)})]


def _trainer_comment(job: Job, strategy: Strategy, config: str) -> str:
    ranks, times = strategy.num_processes, strategy.gradient_accumulation_steps
    shares = [f"{strategy.micro_batch_size} at once"]
    shares += [f"on each of {ranks} ranks"] if ranks > 1 else []
    shares += [f"{times} times"] if times > 1 else []
    size = strategy.global_batch_size
    unit = UNITS.get(job.stage, "sequences")
    return f"arguments of {config}, by name; a step takes {size} {unit}: {', '.join(shares)}"


def _section(comment: str, body: Mapping[str, object]) -> str:
    text: str = yaml.safe_dump(dict(body), sort_keys=False, allow_unicode=True, width=1000)
    return (f"\n# {comment}\n" if comment else "\n") + text
