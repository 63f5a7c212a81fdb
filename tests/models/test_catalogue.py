"""The shipped catalogue: facts that fit what they say, with sources, found by people who misspell."""

import json

import pytest

from ftwiz.engine.models import catalogue

pytestmark = pytest.mark.timeout(60)


def found(query: str) -> list[str]:
    return [model.id for model in catalogue.search(query)]


def test_every_model_is_what_its_configuration_says() -> None:
    wrong = [m.id for m in catalogue.models() if catalogue.spec(m).num_parameters != m.num_parameters]
    assert not wrong


def test_every_model_has_a_source_and_every_licence_its_ground() -> None:
    assert all(model.sources for model in catalogue.models())
    assert all(model.license_basis for model in catalogue.models() if model.license)
    assert all(model.gated_basis for model in catalogue.models() if model.gated is not None)


def test_it_holds_facts_and_is_small() -> None:
    assert catalogue.FILE.stat().st_size < 400_000
    text = catalogue.FILE.read_text(encoding="utf8")
    assert "auto_map" not in text
    assert len(json.loads(text)["models"]) == len(catalogue.models()) == 193


def test_an_id_or_alias_is_found_in_any_case() -> None:
    for name in ("Qwen/Qwen3-30B-A3B", "qwen/qwen3-30b-a3b", "Qwen/Qwen3-30B-A3B-Base"):
        model = catalogue.find(name)
        assert model is not None
        assert model.id == "Qwen/Qwen3-30B-A3B"
    assert catalogue.find("nobody/nothing") is None


def test_an_id_stays_what_it_is_though_it_is_also_an_alias() -> None:
    assert all(catalogue.find(model.id) == model for model in catalogue.models())


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("llama 3.1 8b", "meta-llama/Llama-3.1-8B"),
        ("8B LLAMA-3.1", "meta-llama/Llama-3.1-8B"),
        ("qwen3 0.6", "Qwen/Qwen3-0.6B"),
        ("lama-3.1-8b", "meta-llama/Llama-3.1-8B"),
        ("mixtrall-8x7b", "mistralai/Mixtral-8x7B-v0.1"),
        ("vicuna", "meta-llama/Llama-2-7b-hf"),
    ],
)
def test_words_in_any_order_aliases_and_small_mistakes_find_a_model(query: str, first: str) -> None:
    assert found(query)[0] == first


def test_what_is_like_nothing_finds_nothing_and_no_words_find_all() -> None:
    assert found("zzzzzzzzzz") == []
    assert len(found("")) == 193
    assert found("llama 3.1")[:3] == [f"meta-llama/Llama-3.1-{size}" for size in ("8B", "70B", "405B")]
