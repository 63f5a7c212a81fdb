"""What our trainer makes of a job: formats, attention, loss head, shards."""

import pytest

from ftwiz.engine.memory.workload import (
    Recipe,
    master_format,
    recipe_workload,
    sharding_for,
    usual_attention,
    version,
    workload_of,
)
from ftwiz.engine.models import spec_from_config
from ftwiz.engine.specs.job import Data, Job, Method, Model, Train
from ftwiz.engine.specs.model import ModelSpec
from ftwiz.engine.specs.plan import Strategy
from ftwiz.engine.specs.workload import Quantization, Stack, Workload
from ftwiz.engine.stages.trainfile import weights_dtype

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
CONFIG = {
    "model_type": "mistral",
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "vocab_size": 256,
    "sliding_window": 4096,
}


def model(**changed: object) -> ModelSpec:
    return spec_from_config(CONFIG | changed, where="a test")


def work(recipe: Recipe, stack: Stack | None = None) -> Workload:
    return recipe_workload(recipe, model(), stack=stack)


def strategy(**changed: object) -> Strategy:
    values: dict[str, object] = {
        "backend": "single",
        "device_kind": "cuda",
        "num_processes": 1,
        "micro_batch_size": 2,
        "gradient_accumulation_steps": 8,
        "gradient_checkpointing": True,
        "mixed_precision": "bf16",
    }
    return Strategy(**values | changed)  # type: ignore[arg-type]


def job(kind: str = "lora", **train: object) -> Job:
    return Job(
        model=Model(name_or_path="./here"),
        data=Data(path="rows.jsonl"),
        method=Method(kind=kind),  # type: ignore[arg-type]
        train=Train(**train),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("precision", ["no", "fp16", "bf16"])
def test_weights_are_loaded_in_the_format_that_the_worker_loads_them_in(kind: str, precision: str) -> None:
    plan = strategy(mixed_precision=precision)
    found = workload_of(job(kind), model(), plan)
    assert DTYPES[found.weights] == weights_dtype(job(kind), plan)


def test_a_job_and_its_strategy_are_one_workload() -> None:
    found = workload_of(job(max_length=2048, optim="adafactor", max_grad_norm=0.0), model(), strategy())
    assert (found.sequence_tokens, found.micro_batch_size, found.gradient_accumulation_steps) == (2048, 2, 8)
    assert (found.optimizer, found.clips_gradients, found.checkpointing) == ("adafactor", False, "full")
    assert found.adapter is not None
    assert (found.adapter.rank, found.adapter.targets, found.trainable) == (16, ("all-linear",), "fp32")
    assert (found.weights, found.autocast, found.loss) == ("bf16", "bf16", "fused-tiles")


def test_all_weights_are_trained_in_float32_under_autocast() -> None:
    found = workload_of(job("full"), model(), strategy())
    assert (found.weights, found.trainable, found.autocast) == ("fp32", "fp32", "bf16")
    assert found.adapter is None


def test_deepspeed_turns_the_module_to_its_own_format_and_keeps_a_float32_copy() -> None:
    plan = strategy(backend="zero", num_processes=4, zero_stage=2)
    found = workload_of(job("full"), model(), plan)
    assert (found.weights, found.trainable, found.autocast) == ("bf16", "bf16", None)
    assert (found.sharding.master, found.sharding.num_shards, found.sharding.zero_stage) == ("fp32", 4, 2)
    assert master_format("no") is None


def test_fsdp_moves_everything_to_the_host_together() -> None:
    plan = strategy(backend="fsdp", num_processes=4, offload_parameters="cpu")
    found = workload_of(job(), model(), plan).sharding
    assert (found.offload_parameters, found.offload_optimizer) == ("cpu", "cpu")


def test_adapters_on_packed_weights_are_bfloat16() -> None:
    found = work(Recipe(sequence_tokens=8, quantization=Quantization(kind="nf4")))
    assert (found.weights, found.trainable, found.upcast_frozen) == ("bf16", "bf16", False)
    other = work(Recipe(sequence_tokens=8, quantization=Quantization(kind="gptq")))
    assert other.trainable == "fp32"


def test_packed_weights_are_kept_in_a_float_type_where_they_are_sharded() -> None:
    for name, storage in (("ddp", "uint8"), ("zero2", "uint8"), ("zero3", "bf16"), ("fsdp", "bf16")):
        sharding = sharding_for(name, num_ranks=2, ranks_per_node=2, precision="bf16")  # type: ignore[arg-type]
        found = work(Recipe(sequence_tokens=8, quantization=Quantization(kind="nf4"), sharding=sharding))
        assert found.quantization is not None
        assert found.quantization.storage == storage, name


@pytest.mark.parametrize(
    ("micro_batch", "packing", "length", "stage", "attention"),
    [
        (1, False, 1024, "sft", "sdpa"),
        (2, False, 1024, "sft", "sdpa-mask"),
        (1, True, 1024, "sft", "sdpa-mask"),
        (1, False, 8192, "sft", "sdpa-mask"),
        (1, False, 1024, "dpo", "sdpa-mask"),
    ],
)
def test_attention_needs_a_mask_where_a_token_is_masked(
    micro_batch: int, packing: bool, length: int, stage: str, attention: str
) -> None:
    recipe = Recipe(
        sequence_tokens=length,
        micro_batch_size=micro_batch,
        packing=packing,
        stage=stage,  # type: ignore[arg-type]
    )
    assert usual_attention(recipe, model()) == attention


def test_a_model_without_sdpa_is_computed_eagerly() -> None:
    spec = ModelSpec(model_type="gemma2")
    assert usual_attention(Recipe(sequence_tokens=8), spec) == "eager"


@pytest.mark.parametrize(
    ("stage", "trl", "loss"),
    [
        ("sft", "1.16.0", "fused-tiles"),
        ("dpo", "1.16.2", "fused-tiles"),
        ("sft", "0.24.0", "logits-fp32"),
        ("orpo", "1.16.0", "logits-fp32"),
        ("rm", "1.16.0", "logits-fp32"),
    ],
)
def test_the_version_of_trl_decides_about_logits(stage: str, trl: str, loss: str) -> None:
    recipe = Recipe(sequence_tokens=8, stage=stage)  # type: ignore[arg-type]
    assert work(recipe, Stack(trl=trl)).loss == loss


def test_preference_stages_hold_a_reference_model_only_beside_a_full_one() -> None:
    held = {
        (stage, method): work(Recipe(sequence_tokens=8, stage=stage, method=method)).reference_model  # type: ignore[arg-type]
        for stage in ("sft", "dpo", "orpo", "grpo")
        for method in ("lora", "full")
    }
    assert [key for key, holds in held.items() if holds] == [("dpo", "full")]


def test_hybrid_sharding_shards_inside_a_node() -> None:
    found = sharding_for("hsdp", num_ranks=16, ranks_per_node=8, precision="bf16")
    assert (found.num_ranks, found.num_shards) == (16, 8)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("1.16.0", (1, 16)), ("2", (2, 0)), ("1.17.dev0", (1, 17)), ("", (0, 0)), ("9" * 5000, (0, 0))],
)
def test_versions_are_two_numbers(text: str, numbers: tuple[int, int]) -> None:
    assert version(text) == numbers
