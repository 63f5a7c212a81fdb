"""Models that were published packed, and options that an engine cannot take."""

from dataclasses import replace

import pytest

from ftwiz.engine.errors import BadInput
from ftwiz.engine.hardware.written import parse_machine
from ftwiz.engine.models import catalogue, spec_from_config
from ftwiz.engine.plan import recommend
from ftwiz.engine.specs.job import Job
from ftwiz.engine.specs.model import ModelSpec

CONFIG = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4}
METHODS = {
    "gptq": {"quant_method": "gptq", "bits": 4},
    "awq": {"quant_method": "awq"},
    "bitsandbytes-8bit": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "bitsandbytes-4bit": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "bitsandbytes-4bit-float": {"quant_method": "bitsandbytes", "bnb_4bit_quant_storage": "bfloat16"},
}


def job(**sections: object) -> Job:
    train = {"global_batch_size": 16, "max_length": 1024}
    body = {"model": {"name_or_path": "m"}, "data": {"path": "d.jsonl"}, "train": train}
    return Job.model_validate(body | sections)


def published(packing: str | None) -> ModelSpec:
    found = catalogue.find("Qwen/Qwen2.5-7B")
    assert found
    spec = catalogue.spec(found)
    return replace(spec, published_packing=packing)


@pytest.mark.parametrize("packing", METHODS)
def test_the_packing_of_a_model_is_read_from_its_configuration(packing: str) -> None:
    config = CONFIG | {"quantization_config": METHODS[packing]}
    assert spec_from_config(config, where="config.json").published_packing == packing


@pytest.mark.parametrize(
    "odd", [None, "gptq", [], {"quant_method": ["gptq"]}, {"quant_method": "x" * 999}, {}]
)
def test_an_odd_entry_is_no_packing(odd: object) -> None:
    assert spec_from_config(CONFIG | {"quantization_config": odd}, where="c").published_packing is None


@pytest.mark.parametrize("pins", [{"backend": "fsdp"}, {"backend": "zero", "zero_stage": 3}])
def test_weights_that_were_published_packed_are_not_split(pins: dict[str, object]) -> None:
    machine = parse_machine("4xA100-80GB")
    with pytest.raises(BadInput, match=r"cannot be split over ranks \(gptq\)") as caught:
        recommend(job(plan=pins), published("gptq"), machine)
    assert "plan.quantization nf4" in str(caught.value.hint)
    assert recommend(job(plan=pins), published("bitsandbytes-4bit-float"), machine).strategy.splits_weights


def test_unpinned_the_plan_says_what_it_leaves_out() -> None:
    plan = recommend(job(), published("awq"), parse_machine("4xA100-80GB"))
    assert not plan.strategy.splits_weights
    (told,) = [one for one in plan.rejected if "published packed" in one.text]
    assert set(told.choice.split("; ")) == {"zero3", "fsdp"}
    assert told.source


@pytest.mark.parametrize("backend", ["ddp", "fsdp"])
def test_reentrant_checkpointing_is_refused_where_passes_would_be_missed(backend: str) -> None:
    train = {"global_batch_size": 16, "extra": {"activation_checkpointing_kwargs": {"use_reentrant": True}}}
    with pytest.raises(BadInput, match="reentrant checkpointing hides backward passes"):
        recommend(job(plan={"backend": backend}, train=train), published(None), parse_machine("4xA100-80GB"))
