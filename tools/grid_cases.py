"""Configurations for the comparison of the fast with the exact estimate: drawn at random, always the same.

Each is a step as our trainer runs it (``memory.workload.recipe_workload``), or transformers' own, or a plain
bfloat16 loop; none is larger than a device could be.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ftwiz.engine.errors import FtwizError
from ftwiz.engine.memory import estimate
from ftwiz.engine.memory.workload import BackendName, Recipe, recipe_workload, sharding_for
from ftwiz.engine.models import catalogue
from ftwiz.engine.specs.adapter import ALL_LINEAR, Adapter
from ftwiz.engine.specs.estimate import Estimate
from ftwiz.engine.specs.model import ModelSpec
from ftwiz.engine.specs.workload import Quantization, Stack, Workload

GroupName = Literal["dense", "moe", "vlm"]
BOUNDS: dict[GroupName, float] = {"dense": 0.03, "moe": 0.05, "vlm": 0.05}
LARGEST_BYTES = 192 << 30
"""More than this no device of the catalogue of accelerators has for one rank."""
MOST_DRAWS = 200
LONGEST_EAGER = 2048
"""Tokens: eager attention holds the scores of every pair."""
MODELS: dict[GroupName, tuple[str, ...]] = {
    "dense": (
        "HuggingFaceTB/SmolLM2-135M", "EleutherAI/pythia-160m", "google/gemma-3-270m", "Qwen/Qwen2.5-0.5B",
        "Qwen/Qwen3-0.6B", "EleutherAI/pythia-1b", "google/gemma-3-1b-it",
        "TinyLlama/TinyLlama-1.1B-Chat-v1.0", "meta-llama/Llama-3.2-1B", "microsoft/phi-1_5",
        "allenai/OLMo-2-0425-1B", "ibm-granite/granite-3.3-2b-instruct", "google/gemma-2-2b",
        "microsoft/phi-2", "meta-llama/Llama-3.2-3B", "HuggingFaceTB/SmolLM3-3B",
        "microsoft/Phi-3-mini-4k-instruct", "Qwen/Qwen3-4B", "meta-llama/Llama-2-7b-hf",
        "EleutherAI/pythia-6.9b", "mistralai/Mistral-7B-v0.1", "allenai/OLMo-2-1124-7B", "Qwen/Qwen2.5-7B",
        "meta-llama/Llama-3.1-8B", "Qwen/Qwen3-8B", "google/gemma-7b", "google/gemma-2-9b",
        "mistralai/Mistral-Nemo-Instruct-2407", "microsoft/phi-4", "Qwen/Qwen3-32B",
        "meta-llama/Llama-3.1-70B", "Qwen/Qwen2.5-72B",
    ),
    "moe": (
        "allenai/OLMoE-1B-7B-0125", "Qwen/Qwen1.5-MoE-A2.7B", "deepseek-ai/DeepSeek-V2-Lite",
        "openai/gpt-oss-20b", "Qwen/Qwen3-30B-A3B", "mistralai/Mixtral-8x7B-v0.1",
    ),
    "vlm": (
        "Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen3-VL-4B-Instruct", "google/gemma-3-4b-it",
        "llava-hf/llava-1.5-7b-hf",
    ),
}  # fmt: skip
METHODS = ("full", "full", "lora", "lora", "qlora", "qlora", "dora", "int8")
LENGTHS = (256, 512, 1000, 1024, 2048, 2048, 4096, 8192, 16384)
MICRO_BATCHES = (1, 1, 2, 4, 8)
BACKENDS: tuple[BackendName, ...] = (
    "single", "single", "single", "ddp", "fsdp", "fsdp", "fsdp-keep", "zero1", "zero2", "zero3",
)  # fmt: skip
TORCH_OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "sgd")
OPTIMIZERS = (*TORCH_OPTIMIZERS, "adamw_8bit", "paged_adamw_8bit", "adafactor", "lion_32bit")
HEADS = ("trl", "trl", "trl", "transformers", "liger", "cce")
TARGETS = ((ALL_LINEAR,), (ALL_LINEAR,), ("q_proj", "v_proj"))
STAGES = ("sft", "sft", "sft", "sft", "sft", "pt", "dpo", "rm")


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A configuration, and what the fast tier says of it."""

    group: GroupName
    model: str
    words: str
    """Everything that was drawn."""
    workload: Workload
    config: dict[str, Any]
    fast: Estimate


def cases(count: int, seed: int) -> Iterator[Case]:
    """Yield configurations: the models in turn, everything else drawn.

    Args:
        count: How many.
        seed: Of the draw.
    """
    models = [(group, name) for group, names in MODELS.items() for name in names]
    for number in range(count):
        group, name = models[number % len(models)]
        chance = random.Random(f"{seed} {number}")  # noqa: S311 - no secret
        drawn = (_case(chance, group, name) for _ in range(MOST_DRAWS))
        if case := next(filter(None, drawn), None):
            yield case


def _case(chance: random.Random, group: GroupName, name: str) -> Case | None:
    """Draw once; ``None`` when what came out cannot be run or is too large."""
    model = catalogue.find(name)
    assert model is not None, name
    spec = catalogue.spec(model)
    recipe, words = _recipe(chance, spec)
    head, is_plain = chance.choice(HEADS), chance.random() < 0.2  # noqa: PLR2004 - one in five
    if group == "moe" and words[0] in ("dora", "qlora", "int8"):
        return None  # peft has no DoRA for fused experts, and bitsandbytes packs none
    try:
        workload = _run_by(recipe_workload(recipe, spec), head, is_plain=is_plain, words=words)
        fast = estimate(workload)
    except FtwizError:
        return None
    if fast.allocated_bytes > LARGEST_BYTES:
        return None
    config = dict(model.config)
    text = " ".join(words)
    return Case(group=group, model=name, words=text, workload=workload, config=config, fast=fast)


def _recipe(chance: random.Random, spec: ModelSpec) -> tuple[Recipe, list[str]]:
    method, backend = chance.choice(METHODS), chance.choice(BACKENDS)
    if method == "int8" and backend.startswith(("fsdp", "zero")):
        backend = "ddp"
    tokens, micro = chance.choice(LENGTHS), chance.choice(MICRO_BATCHES)
    own = chance.choice(OPTIMIZERS if backend in ("single", "ddp") else TORCH_OPTIMIZERS)
    optimizer = "adamw_torch" if backend.startswith("zero") else own
    stage, packs = chance.choice(STAGES), chance.random() < 0.15  # noqa: PLR2004 - some
    checkpoints, accumulation = chance.random() < 0.6, chance.choice((1, 1, 4))  # noqa: PLR2004 - most
    eager = tokens <= LONGEST_EAGER and chance.random() < 0.1  # noqa: PLR2004 - some
    flash = not eager and chance.random() < 0.2  # noqa: PLR2004 - some
    num_ranks = 1 if backend == "single" else chance.choice((2, 8))
    packs = packs and stage in ("sft", "pt")
    recipe = Recipe(
        sequence_tokens=tokens,
        micro_batch_size=micro,
        gradient_accumulation_steps=accumulation,
        stage=stage,  # type: ignore[arg-type] - one of STAGES
        method="full" if method == "full" else "lora",
        adapter=None if method == "full" else _adapter(chance, method, is_moe=spec.experts is not None),
        quantization=Quantization(kind="nf4" if method == "qlora" else "int8")
        if method in ("qlora", "int8")
        else None,
        optimizer=optimizer,
        checkpointing="full" if checkpoints else "none",
        attention="eager" if eager else "flash" if flash else None,
        packing=packs,
        sharding=sharding_for(backend, num_ranks=num_ranks, ranks_per_node=num_ranks, precision="bf16"),
    )
    adapter = recipe.adapter
    said = [method, *([f"r{adapter.rank}", *adapter.targets] if adapter else [])]
    said += ["dropout"] if adapter and adapter.dropout else []
    kernel = recipe_workload(recipe, spec).attention
    words = [*said, stage, f"{micro}x{tokens}", f"{backend} of {num_ranks}", optimizer, kernel]
    words += ["packed"] * packs + [f"accumulates {accumulation}"] * (accumulation > 1)
    return recipe, [*words, "checkpoints" if checkpoints else "keeps all"]


def _adapter(chance: random.Random, method: str, *, is_moe: bool) -> Adapter:
    rank, targets, dropout = (
        chance.choice((8, 16, 64)),
        chance.choice(TARGETS),
        chance.choice((0.0, 0.0, 0.05)),
    )
    if is_moe:  # peft refuses dropout on fused experts
        dropout = 0.0
    return Adapter(rank=rank, targets=targets, use_dora=method == "dora", dropout=dropout)


def _run_by(workload: Workload, head: str, *, is_plain: bool, words: list[str]) -> Workload:
    """Let another trainer or another loss head run the step."""
    if is_plain and workload.sharding.backend != "zero":
        loss = "logits" if workload.loss == "logits-fp32" else workload.loss
        workload = replace(
            workload, weights="bf16", trainable="bf16", autocast=None, trainer="loop", loss=loss
        )
        words.append("plain bf16")
    if head == "trl" or workload.stage not in ("sft", "pt"):
        return workload
    words.append(f"{head} head")
    if head == "transformers":
        trainer = "loop" if workload.trainer == "loop" else "transformers"
        wide = workload.autocast is not None
        return replace(
            workload, trainer=trainer, stack=Stack(trl=None), loss="logits-fp32" if wide else "logits"
        )
    return replace(workload, loss=head)  # type: ignore[arg-type] - liger or cce


def first_of(found: Sequence[Case], text: str) -> list[Case]:
    """Return the cases whose model or words hold a text."""
    return [case for case in found if text in f"{case.group} {case.model} {case.words}"]
