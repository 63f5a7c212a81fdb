"""A model that no closed form knows is counted by transformers, without weights and without its code."""

from typing import Any

import pytest

from ftwiz.engine.job.meta_count import with_exact_count
from ftwiz.engine.models import Adapter, model_types, num_trainable, spec_from_config

# GPT-J-6B, as its config.json says it.
GPTJ: dict[str, Any] = {
    "model_type": "gptj",
    "architectures": ["GPTJForCausalLM"],
    "n_embd": 4096,
    "n_layer": 28,
    "n_head": 16,
    "n_inner": None,
    "n_positions": 2048,
    "rotary_dim": 64,
    "vocab_size": 50400,
    "tie_word_embeddings": False,
}
GPTJ_LAYER = 4 * 4096**2 + (4096 * 16384 + 16384) + (16384 * 4096 + 4096) + 2 * 4096
pytestmark = [pytest.mark.timeout(180), pytest.mark.train]


def test_a_family_that_was_left_out_is_counted_to_the_parameter() -> None:
    assert "gptj" not in model_types()
    spec = spec_from_config(GPTJ, where="config.json")
    assert spec.unknown_reason == "no closed form for model_type 'gptj'"
    counted = with_exact_count(spec, GPTJ)
    head = 50400 * 4096 + 50400
    assert counted.num_parameters == 50400 * 4096 + 28 * GPTJ_LAYER + 2 * 4096 + head
    assert (counted.tie_word_embeddings, counted.unknown_reason) == (False, None)
    assert counted.parameters is not None
    assert counted.parameters.groups.lm_head == head
    (unit,) = counted.parameters.units
    assert (unit.block_class, unit.num_parameters, unit.count) == ("GPTJBlock", GPTJ_LAYER, 28)
    adapted = num_trainable(counted, Adapter(rank=8, targets=("q_proj", "v_proj")))
    assert adapted.num_parameters == 28 * 2 * 8 * (4096 + 4096)


def test_both_ways_of_counting_agree(recorded_config: dict[str, Any]) -> None:
    closed = spec_from_config(recorded_config, where="config.json")
    counted = with_exact_count(closed, recorded_config)
    assert closed.parameters is not None
    assert counted.parameters is not None
    assert counted.parameters.groups == closed.parameters.groups
    assert counted.parameters.units == closed.parameters.units
    assert set(counted.parameters.linears) == set(closed.parameters.linears)


@pytest.fixture
def recorded_config() -> dict[str, Any]:
    """A small Qwen3: tied, with normalised queries and keys."""
    return {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "vocab_size": 128,
        "tie_word_embeddings": True,
    }


@pytest.mark.parametrize(
    "config", [{"model_type": "no_such_model"}, {"model_type": "gptj", "n_embd": 7, "n_head": 3}]
)
def test_what_transformers_cannot_build_is_unknown_with_the_reason(config: dict[str, Any]) -> None:
    counted = with_exact_count(spec_from_config(config, where="config.json"), config)
    assert counted.parameters is None
    assert counted.unknown_reason is not None
    assert counted.unknown_reason.startswith("transformers cannot build it: ")
    assert counted.unknown_reason.isprintable()
