"""The closed form against what transformers builds: equal to the parameter, for every recorded model."""

import time
from collections import Counter, defaultdict
from typing import Any

import pytest

from ftwiz.engine.errors import BadInput
from ftwiz.engine.models import spec_from_config
from ftwiz.engine.specs.model import NOT_LANGUAGE, ModelSpec, ParameterCount

pytestmark = pytest.mark.timeout(60)


def spec_of(row: dict[str, Any]) -> ModelSpec:
    # Two recorded files name code that once came with them; transformers builds them without it.
    return spec_from_config(row["config"], where=row["id"], trust_remote_code=True)


def covered(recorded: Any) -> list[tuple[dict[str, Any], ParameterCount]]:
    found = []
    for name, row in recorded.models.items():
        count = spec_of(row).parameters
        assert count is not None, name
        found.append((row, count))
    return found


def test_every_recorded_model_is_covered(recorded: Any) -> None:
    assert len(covered(recorded)) == 193


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "gptj"}, "no closed form for model_type 'gptj'"),
        ({"model_type": "lfm2"}, "layer_types is missing"),
        ({"model_type": "phi", "qk_layernorm": True}, "qk_layernorm of phi is not in the closed form"),
        ({"model_type": "llava", "text_config": {}}, "vision_config is missing"),
    ],
)
def test_what_no_closed_form_knows_is_unknown_with_the_reason(config: dict[str, Any], reason: str) -> None:
    spec = spec_from_config(config, where="config.json")
    assert (spec.num_parameters, spec.num_active_parameters, spec.unknown_reason) == (None, None, reason)


@pytest.mark.parametrize("value", [-3, 10**15, "8", 8.0, True, [8]])
@pytest.mark.parametrize("key", ["num_attention_heads", "intermediate_size", "num_experts", "q_lora_rank"])
def test_a_width_out_of_bounds_is_named(recorded: Any, key: str, value: object) -> None:
    name = "deepseek-ai/DeepSeek-V3" if key == "q_lora_rank" else "Qwen/Qwen3-30B-A3B"
    config = recorded.models[name]["config"] | {"mlp_only_layers": [0], key: value}
    with pytest.raises(BadInput) as caught:
        spec_from_config(config, where="config.json", trust_remote_code=True)
    assert caught.value.message.startswith(f"config.json: {key} must be a ")


def test_totals_are_equal(recorded: Any) -> None:
    wrong = [r["id"] for r, count in covered(recorded) if count.groups.num_total != r["params_meta"]]
    assert not wrong


def test_groups_are_equal(recorded: Any) -> None:
    wrong = [
        row["id"]
        for row, count in covered(recorded)
        if {name: number for name, number in count.groups.items() if number} != row["groups"]
    ]
    assert not wrong


def test_linear_layers_of_the_language_part_are_equal(recorded: Any) -> None:
    for row, count in covered(recorded):
        found: dict[str, Counter[tuple[int, int, bool]]] = defaultdict(Counter)
        for shape in count.linears:
            if shape.group not in NOT_LANGUAGE:
                found[shape.suffix][shape.num_in, shape.num_out, shape.bias] += shape.count
        expected = {
            suffix: {(num_in, num_out, bias): number for num_in, num_out, bias, number in shapes}
            for suffix, shapes in row["linears_text"].items()
        }
        assert {suffix: dict(shapes) for suffix, shapes in found.items()} == expected, row["id"]


def test_linear_weights_of_towers_are_equal(recorded: Any) -> None:
    for row, count in covered(recorded):
        found = sum(shape.num_weights for shape in count.linears if shape.group in NOT_LANGUAGE)
        assert found == row["vision_audio_linear_params"], row["id"]


def test_fused_experts_are_equal(recorded: Any) -> None:
    for row, count in covered(recorded):
        found: dict[str, set[tuple[int, ...]]] = defaultdict(set)
        for parameter in count.fused:
            found[parameter.suffix].add(parameter.shape)
        expected = row["fused_expert_param_shapes"] or {}
        assert dict(found) == {name: set(map(tuple, shapes)) for name, shapes in expected.items()}, row["id"]
        assert sum(p.num_parameters for p in count.fused) == count.groups.experts, row["id"]


def test_fsdp_units_are_equal(recorded: Any) -> None:
    for row, count in covered(recorded):
        found: dict[str, list[list[int]]] = defaultdict(list)
        for unit in count.units:
            found[unit.block_class].append([unit.num_parameters, unit.count])
        expected = {name: sorted(units) for name, units in row["no_split_block_params"].items()}
        assert {name: sorted(units) for name, units in found.items()} == expected, row["id"]
        assert 0 <= count.num_outside_units < count.groups.num_total, row["id"]


def test_active_parameters_of_mixtures_of_experts_are_equal(recorded: Any) -> None:
    rows = [(row, count) for row, count in covered(recorded) if row["params_active"] is not None]
    assert len(rows) > 30
    assert not [row["id"] for row, count in rows if count.num_active != row["params_active"]]


def test_widths_are_what_was_read_off_the_built_model(recorded: Any) -> None:
    for row, _ in covered(recorded):
        spec = spec_of(row)
        assert spec.tie_word_embeddings == row["tie_word_embeddings"], row["id"]
        found = (spec.num_layers, spec.hidden_size, spec.num_heads)
        recorded_widths = (row["num_hidden_layers"], row["hidden_size"], row["num_attention_heads"])
        assert found == recorded_widths, row["id"]


def test_experts_and_latent_attention_are_described(recorded: Any) -> None:
    spec = spec_of(recorded.models["deepseek-ai/DeepSeek-V3"])
    assert spec.experts is not None
    assert spec.latent is not None
    assert (spec.experts.num_experts, spec.experts.num_experts_per_token) == (256, 8)
    assert (spec.experts.num_layers, spec.experts.shared_intermediate_size) == (58, 2048)
    assert (spec.latent.q_lora_rank, spec.latent.kv_lora_rank, spec.latent.qk_head_dim) == (1536, 512, 192)
    tower = spec_of(recorded.models["google/gemma-3-4b-it"]).vision
    assert tower is not None
    assert (tower.num_layers, tower.hidden_size, tower.patch_size) == (27, 1152, 14)


def test_ten_thousand_layers_and_as_many_names_are_counted_in_time(recorded: Any) -> None:
    config = recorded.models["Qwen/Qwen3-30B-A3B"]["config"]
    many = {"num_hidden_layers": 10_000, "mlp_only_layers": list(range(1, 100_000))}
    started = time.process_time()
    spec = spec_from_config(config | many, where="config.json")
    assert time.process_time() - started < 1
    assert spec.experts is not None
    assert spec.experts.num_layers == 1


def test_a_usual_configuration_is_counted_in_a_blink(recorded: Any) -> None:
    rows = list(recorded.models.values())
    started = time.process_time()
    for row in rows:
        spec_of(row)
    assert (time.process_time() - started) / len(rows) < 0.01
