"""Models and workloads that the tests of the estimator share."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from ftwiz.engine.models import Adapter, catalogue, spec_from_config
from ftwiz.engine.specs.model import ModelSpec
from ftwiz.engine.specs.workload import Quantization, Sharding, Workload

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "tie_word_embeddings": False,
}


def small_llama(**changes: Any) -> ModelSpec:
    return spec_from_config(LLAMA | changes, where="tests")


def known(name: str) -> ModelSpec:
    model = catalogue.find(name)
    assert model is not None
    return catalogue.spec(model)


def full(model: ModelSpec, **changes: Any) -> Workload:
    """Full fine-tuning in 16 bits."""
    return Workload(
        **{"model": model, "sequence_tokens": 512, "method": "full", "trainable": "bf16", **changes}
    )


def lora(model: ModelSpec, **changes: Any) -> Workload:
    return Workload(**{"model": model, "sequence_tokens": 512, "adapter": Adapter(), **changes})


def qlora(model: ModelSpec, **changes: Any) -> Workload:
    return lora(model, **{"quantization": Quantization(kind="nf4"), "trainable": "bf16", **changes})


def zero(stage: int, ranks: int = 8, **changes: Any) -> Sharding:
    fields = {
        "backend": "zero",
        "zero_stage": stage,
        "num_ranks": ranks,
        "ranks_per_node": ranks,
        "num_shards": ranks,
        "master": "fp32",
    }
    return Sharding(**{**fields, **changes})


def fsdp(ranks: int = 8, **changes: Any) -> Sharding:
    fields = {"backend": "fsdp", "num_ranks": ranks, "ranks_per_node": ranks, "num_shards": ranks}
    return Sharding(**{**fields, **changes})


def calculate(formula: str) -> float:
    """A pocket calculator: numbers with commas and a unit, ``x``, ``/`` and ``+``."""
    text = formula.replace(",", "").replace(" B", "")
    assert re.fullmatch(r"[\d. +x/]+", text), formula
    return float(sum(_product(summand) for summand in text.split(" + ")))


def _product(summand: str) -> float:
    first, *rest = re.split(r" ([x/]) ", summand)
    value = float(first)
    for sign, number in zip(rest[::2], rest[1::2], strict=True):
        value = value * float(number) if sign == "x" else value / float(number)
    return value


@pytest.fixture(scope="session")
def llama8b() -> ModelSpec:
    return known("meta-llama/Llama-3.1-8B")


@pytest.fixture(scope="session")
def calculator() -> Callable[[str], float]:
    return calculate
