"""Trainable parameters against what PEFT made of the same models on the meta device."""

from typing import Any

import pytest

from ftwiz.engine.models import Adapter, Trainable, num_trainable, spec_from_config
from ftwiz.engine.specs.model import ModelSpec

pytestmark = pytest.mark.timeout(60)


def spec_of(recorded: Any, name: str) -> ModelSpec:
    return spec_from_config(recorded.models[name]["config"], where=name, trust_remote_code=True)


def adapter_of(row: dict[str, Any]) -> Adapter:
    """``all-linear + modules_to_save a,b`` and ``all-linear + target_parameters a,b`` are recorded too."""
    targets, _, more = row["targets"].partition(" + ")
    keyword, _, names = more.partition(" ")
    extra = {keyword: tuple(names.split(","))} if more else {}
    return Adapter(rank=row["r"], targets=tuple(targets.split(",")), **extra)


def test_every_recorded_count_is_equal_and_every_recorded_error_is_a_refusal(recorded: Any) -> None:
    rows = recorded.trainable
    assert len(rows) == 66
    for row in rows:
        found = num_trainable(spec_of(recorded, row["id"]), adapter_of(row))
        assert found.num_parameters == row.get("trainable"), row
        assert (found.refusal is None) == ("error" not in row), row


def test_every_recorded_layer_count_is_equal(recorded: Any) -> None:
    rows = [row for row in recorded.trainable if row["targets"] == "all-linear" and "modules" in row]
    for row in rows:
        found = dict(num_trainable(spec_of(recorded, row["id"]), adapter_of(row)).layers)
        expected = dict(row["modules"])
        if "experts" in expected:  # PEFT wraps the one tensor around the other
            expected["gate_up_proj"], expected["down_proj"] = (
                expected.pop("experts"),
                expected.pop("base_layer"),
            )
        assert found == expected, row["id"]


@pytest.fixture
def llama(recorded: Any) -> ModelSpec:
    return spec_of(recorded, "meta-llama/Llama-3.1-8B")


def test_dora_adds_a_magnitude_per_output(llama: ModelSpec) -> None:
    plain, dora = (num_trainable(llama, Adapter(use_dora=flag)) for flag in (False, True))
    outputs = 32 * (4096 + 1024 + 1024 + 4096 + 14336 + 14336 + 4096)
    assert dora.num_parameters == (plain.num_parameters or 0) + outputs


def test_oft_turns_blocks_of_the_input(llama: ModelSpec) -> None:
    found = num_trainable(llama, Adapter(kind="oft", targets=("q_proj",), oft_block_size=32))
    assert found == Trainable(num_adapter=32 * (4096 // 32) * (32 * 31 // 2), layers=(("q_proj", 32),))


def test_oft_takes_the_nearest_block_size_that_divides(recorded: Any) -> None:
    spec = spec_of(recorded, "Qwen/Qwen2.5-0.5B")  # 4864 wide in the MLP: 38 divides, 33 does not
    found = num_trainable(spec, Adapter(kind="oft", targets=("down_proj",), oft_block_size=33))
    assert found.num_parameters == 24 * (4864 // 32) * (32 * 31 // 2)


def test_a_layer_is_aimed_at_by_the_end_of_its_path(llama: ModelSpec) -> None:
    by_suffix, by_path = (num_trainable(llama, Adapter(targets=(n,))) for n in ("q_proj", "self_attn.q_proj"))
    assert by_suffix == by_path
    assert by_suffix.layers == (("q_proj", 32),)


def test_a_module_to_save_that_the_model_has_under_another_name_is_passed_over(recorded: Any) -> None:
    falcon = spec_of(recorded, "tiiuae/falcon-7b")
    found = num_trainable(falcon, Adapter(modules_to_save=("embed_tokens", "lm_head")))
    assert (found.num_adapter, found.num_saved) == (32_636_928, 65024 * 4544)


def test_of_an_unknown_model_nothing_is_known() -> None:
    found = num_trainable(spec_from_config({"model_type": "gptj"}, where="x"), Adapter())
    assert (found.num_parameters, found.refusal) == (None, "no closed form for model_type 'gptj'")


@pytest.mark.parametrize(
    ("name", "adapter", "reason"),
    [
        ("meta-llama/Llama-3.1-8B", Adapter(targets=("c_attn",)), "no layer is named c_attn"),
        ("Qwen/Qwen3-30B-A3B", Adapter(targets=("gate_proj",)), "gate_proj alone cannot be adapted"),
        ("Qwen/Qwen3-30B-A3B", Adapter(use_dora=True), "DoRA does not work on fused experts"),
        ("state-spaces/mamba-130m-hf", Adapter(), "PEFT does not adapt out_proj of mamba"),
        ("openai-community/gpt2", Adapter(kind="oft"), "OFT does not work on the Conv1D layers"),
        ("google/gemma-4-E2B-it", Adapter(targets=("q_proj",)), "PEFT does not adapt q_proj of the tower"),
    ],
)
def test_what_peft_refuses_is_refused_with_the_reason(
    recorded: Any, name: str, adapter: Adapter, reason: str
) -> None:
    found = num_trainable(spec_of(recorded, name), adapter)
    assert found.num_parameters is None
    assert found.refusal is not None
    assert found.refusal.startswith(reason)
