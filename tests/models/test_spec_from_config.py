"""The shape of a model is read, bounded and never guessed; keys that could run code are refused."""

import math
from typing import Any

import pytest

from ftwiz.engine.errors import BadInput
from ftwiz.engine.models import TooLong, spec_from_config

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {"factor": 8.0, "rope_type": "llama3"},
}
pytestmark = pytest.mark.timeout(20)


def refusal(config: dict[str, Any], *, trust_remote_code: bool = False) -> str:
    with pytest.raises(BadInput) as caught:
        spec_from_config(config, where="config.json", trust_remote_code=trust_remote_code)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300
    return caught.value.message


def test_a_llama_is_read() -> None:
    spec = spec_from_config(LLAMA, where="config.json")
    assert (spec.model_type, spec.architecture) == ("llama", "LlamaForCausalLM")
    assert (spec.num_layers, spec.hidden_size) == (32, 4096)
    assert (spec.vocab_size, spec.max_position_embeddings) == (128256, 131072)


def test_older_spellings_are_read() -> None:
    config = {"model_type": "gpt2", "n_layer": 12, "n_embd": 768, "vocab_size": 50257, "n_positions": 1024}
    spec = spec_from_config(config, where="config.json")
    assert (spec.num_layers, spec.hidden_size, spec.max_position_embeddings) == (12, 768, 1024)


def test_the_language_part_of_a_model_of_several_inputs_is_read() -> None:
    text = {"model_type": "gemma3_text", "num_hidden_layers": 34, "hidden_size": 2560, "vocab_size": 262208}
    config = {"model_type": "gemma3", "text_config": text, "vision_config": {"num_hidden_layers": 27}}
    spec = spec_from_config(config, where="config.json")
    assert (spec.model_type, spec.num_layers, spec.hidden_size) == ("gemma3", 34, 2560)


def test_what_is_not_there_is_unknown() -> None:
    spec = spec_from_config({"model_type": "mamba", "num_hidden_layers": None}, where="config.json")
    assert (spec.num_layers, spec.hidden_size, spec.architecture) == (None, None, None)


@pytest.mark.parametrize(
    "value", [-3, 0, 10**15, math.nan, math.inf, "32", 32.0, True, [32], {"a": 1}, TooLong(num_digits=5000)]
)
@pytest.mark.parametrize("key", ["num_hidden_layers", "hidden_size", "vocab_size", "max_position_embeddings"])
def test_a_count_out_of_bounds_is_named(key: str, value: object) -> None:
    for config in (LLAMA | {key: value}, {"model_type": "x", "text_config": LLAMA | {key: value}}):
        message = refusal(config)
        assert message.startswith("config.json: ")
        assert key in message


def test_the_message_gives_the_bounds() -> None:
    message = refusal(LLAMA | {"num_hidden_layers": -3})
    assert message == "config.json: num_hidden_layers must be a whole number from 1 to 10,000; got -3"


def test_not_a_number_is_refused_wherever_it_stands_and_infinity_only_where_it_counts() -> None:
    assert "rope_scaling.factor" in refusal(LLAMA | {"rope_scaling": {"factor": math.nan}})
    assert "time_step_limit" in refusal(LLAMA | {"time_step_limit": [0.0, math.nan]})
    assert spec_from_config(LLAMA | {"time_step_limit": [0.0, math.inf]}, where="x").num_layers == 32


@pytest.mark.parametrize("value", [None, 5, "", "a\x1b]52;c;aGk=\x07", "x" * 1000, ["llama"]])
def test_a_model_type_that_is_no_name_is_refused(value: object) -> None:
    assert "model_type" in refusal(LLAMA | {"model_type": value})


@pytest.mark.parametrize("value", ["LlamaForCausalLM", [5], [["x"]], ["a\nb"], {"a": 1}])
def test_architectures_that_are_no_names_are_refused(value: object) -> None:
    assert "architectures" in refusal(LLAMA | {"architectures": value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("auto_map", {"AutoConfig": "evil.Config"}),
        ("trust_remote_code", True),
        ("trust_remote_code", "yes"),
        ("_attn_implementation_internal", "evil/kernels"),
        ("_attn_implementation", "evil/kernels"),
    ],
)
def test_keys_that_could_run_code_are_refused_by_name_at_any_depth(key: str, value: object) -> None:
    for config in (
        LLAMA | {key: value},
        LLAMA | {"text_config": {key: value}},
        LLAMA | {"vision_config": {"deep": [{"deeper": {key: value}}]}},
    ):
        assert key in refusal(config)


def test_a_quantization_that_names_a_module_to_import_is_refused() -> None:
    assert "quantization_config.module" in refusal(LLAMA | {"quantization_config": {"module": "os"}})
    names = {"quant_method": "fp8", "modules_to_not_convert": ["lm_head"]}
    assert spec_from_config(LLAMA | {"quantization_config": names}, where="x").num_layers == 32


def test_code_that_the_user_trusts_is_allowed_and_internal_keys_are_not() -> None:
    config = LLAMA | {"auto_map": {"AutoConfig": "x.Config"}, "trust_remote_code": True}
    assert spec_from_config(config, where="x", trust_remote_code=True).num_layers == 32
    refusal(LLAMA | {"_attn_implementation_internal": "evil/kernels"}, trust_remote_code=True)


def test_what_released_files_hold_is_no_danger() -> None:
    config = LLAMA | {"_attn_implementation_autoset": True, "trust_remote_code": False}
    assert spec_from_config(config, where="x").num_layers == 32


def test_a_key_with_escapes_is_shown_safely() -> None:
    assert "\\x1b" in refusal(LLAMA | {"\x1b[2J": {"auto_map": 1}})
