"""What each choice would save, and the cheapest one that makes it fit."""

from dataclasses import replace
from functools import cache

import pytest

from ftwiz.engine.memory import estimate
from ftwiz.engine.memory.knobs import Effect, Question, cheapest_fit, effects
from ftwiz.engine.memory.verdict import judge
from ftwiz.engine.memory.workload import Recipe, recipe_workload, sharding_for
from ftwiz.engine.models import catalogue, spec_from_config
from ftwiz.engine.specs.adapter import Adapter
from ftwiz.engine.specs.estimate import Estimate, Verdict
from ftwiz.engine.specs.model import ModelSpec
from ftwiz.engine.specs.workload import Quantization, Stack

CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 8,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 16,
    "vocab_size": 32_000,
}


@cache
def model() -> ModelSpec:
    return spec_from_config(CONFIG, where="a test")


def recipe(num_ranks: int = 1) -> Recipe:
    backend = "ddp" if num_ranks > 1 else "single"
    return Recipe(
        sequence_tokens=2048,
        micro_batch_size=4,
        method="full",
        checkpointing="none",
        sharding=sharding_for(backend, num_ranks=num_ranks, ranks_per_node=num_ranks, precision="bf16"),
    )


def question(own: Recipe, *, free_bytes: int = 1 << 60, can_offload: bool = True) -> Question:
    def judged(found: Estimate) -> Verdict:
        size = found.process_bytes
        return judge(least_bytes=size, likely_bytes=size, uncertainty=0, free_bytes=free_bytes, what="device")

    return Question(recipe=own, model=model(), stack=Stack(), judge=judged, can_offload=can_offload)


def bytes_of(own: Recipe) -> int:
    return estimate(recipe_workload(own, model(), stack=Stack())).process_bytes


def named(found: tuple[Effect, ...]) -> dict[str, Effect]:
    return {effect.options[0]: effect for effect in found}


def test_what_leaves_the_training_alone_comes_first() -> None:
    found = effects(question(recipe(2)))
    kinds = [(effect.needs_hardware, not effect.same_training) for effect in found]
    assert kinds == sorted(kinds)


def test_a_change_is_the_difference_of_two_estimates() -> None:
    own = recipe()
    found = named(effects(question(own)))
    half = found["--seq 1024"]
    assert half.process_bytes == bytes_of(replace(own, sequence_tokens=1024))
    assert half.delta_bytes == half.process_bytes - bytes_of(own)


def test_one_device_is_not_told_to_shard_but_may_use_the_host() -> None:
    options = named(effects(question(recipe())))
    assert "--backend fsdp" not in options
    assert "--backend zero2 --offload optimizer" in options
    assert "--backend zero3 --offload all" in options


def test_where_device_and_host_are_one_memory_nothing_is_offloaded() -> None:
    options = named(effects(question(recipe(2), can_offload=False)))
    assert not [option for option in options if "--offload" in option]
    assert "--backend fsdp" in options


def test_the_cpu_is_not_told_to_quantize_or_offload() -> None:
    own = replace(recipe(), device_kind="cpu", method="lora", adapter=Adapter(), precision="no")
    options = named(effects(question(own)))
    assert not [option for option in options if "--offload" in option or "qlora" in option]


def test_packed_weights_that_cannot_be_sharded_are_not_told_to_be() -> None:
    own = replace(recipe(2), method="lora", adapter=Adapter(), quantization=Quantization(kind="gptq"))
    options = named(effects(question(own)))
    assert "--backend zero2" not in options
    assert "--backend fsdp" not in options


def test_all_that_is_done_already_is_not_proposed_again() -> None:
    own = replace(
        recipe(2),
        sequence_tokens=256,
        micro_batch_size=1,
        optimizer="adamw_bnb_8bit",
        checkpointing="full",
        method="lora",
        adapter=Adapter(targets=("q_proj",)),
        quantization=Quantization(kind="nf4"),
        sharding=sharding_for("fsdp", num_ranks=2, ranks_per_node=2, precision="bf16", offload="all"),
    )
    assert list(named(effects(question(own)))) == ["--devices 4"]


def test_the_cheapest_single_change_that_fits_is_taken() -> None:
    own = recipe()
    least = named(effects(question(own)))["--backend zero2 --offload optimizer"]
    found = cheapest_fit(question(own, free_bytes=least.process_bytes))
    assert found is not None
    assert found.verdict.word == "fits"
    assert len(found.options) == 1
    assert found.same_training


def test_changes_are_joined_when_none_is_enough_and_none_of_them_is_needless() -> None:
    own = recipe(2)
    singles = effects(question(own, can_offload=False))
    best = min(effect.process_bytes for effect in singles if not effect.needs_hardware)
    asked = question(own, free_bytes=best - 1, can_offload=False)
    found = cheapest_fit(asked)
    assert found is not None
    assert found.verdict.word == "fits"
    assert len(found.options) > 1
    assert len({option.partition(" ")[0] for option in found.options}) == len(found.options)


def test_when_nothing_helps_nothing_is_promised() -> None:
    assert cheapest_fit(question(recipe(), free_bytes=1)) is None


@pytest.mark.parametrize("num_ranks", [1, 2, 8])
def test_sharding_more_never_takes_more_states(num_ranks: int) -> None:
    """Of weights, gradients and optimizer: ZeRO-3 <= ZeRO-2 <= ZeRO-1."""
    sizes = []
    for name in ("zero1", "zero2", "zero3"):
        own = replace(
            recipe(),
            sharding=sharding_for(name, num_ranks=num_ranks, ranks_per_node=num_ranks, precision="bf16"),
        )
        terms = estimate(recipe_workload(own, model(), stack=Stack())).phase_terms("backward end")
        sizes.append(
            sum(term.num_bytes for term in terms if term.group in ("weights", "gradients", "optimizer"))
        )
    assert sizes == sorted(sizes, reverse=True)


def test_adapters_that_peft_refuses_are_not_proposed() -> None:
    known = catalogue.find("state-spaces/mamba-130m-hf")
    assert known is not None
    own = replace(question(recipe()), model=catalogue.spec(known))
    options = named(effects(own))
    assert not [option for option in options if "lora" in option]
