"""The exact estimate as its callers see it: terms that add up, remembered answers, refusals of one line."""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine import exact
from ftwiz.engine.errors import FtwizError, Refused
from ftwiz.engine.exact import cache, exact_estimate, zero
from ftwiz.engine.models import spec_from_config
from ftwiz.engine.specs.adapter import Adapter
from ftwiz.engine.specs.estimate import Estimate
from ftwiz.engine.specs.workload import Sharding, Workload

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
SPEC = spec_from_config(CONFIG, where="config.json")
WORKLOAD = Workload(model=SPEC, sequence_tokens=64, adapter=Adapter(targets=("o_proj",)))
CACHED_SECONDS = 3.0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("FTWIZ_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def traced(home: Path) -> Estimate:
    return exact_estimate(WORKLOAD, CONFIG)


@pytest.mark.train
def test_the_terms_of_the_peak_add_up_to_what_tensors_hold(traced: Estimate) -> None:
    assert traced.tier == "exact"
    assert {term.group for term in traced.phase_terms("backward start")} >= {"weights", "activations"}
    weights = next(term for term in traced.terms if term.group == "weights")
    assert weights.num_bytes > SPEC.num_parameters * 2  # type: ignore[operator] - it is counted
    assert traced.reserved_bytes >= traced.allocated_bytes > weights.num_bytes


@pytest.mark.train
def test_a_second_question_is_answered_from_the_disk(traced: Estimate, home: Path) -> None:
    started = time.perf_counter()
    assert exact_estimate(WORKLOAD, CONFIG) == traced
    assert time.perf_counter() - started < CACHED_SECONDS
    assert len(list((home / "exact").iterdir())) == 1


@pytest.mark.train
@pytest.mark.parametrize("damage", ["", "[]", '{"phases": {"load"', '{"phases": {"load": 3}}'])
def test_a_damaged_answer_is_none(traced: Estimate, home: Path, damage: str) -> None:
    file = home / "exact" / f"{cache.key_of(WORKLOAD, CONFIG)}.json"
    whole = file.read_text(encoding="utf8")
    file.write_text(damage, encoding="utf8")
    found = cache.load(file.stem)
    assert found is None or not exact.is_whole(found)
    file.write_text(whole, encoding="utf8")


@pytest.mark.train
def test_another_stage_of_zero_holds_other_states_with_the_same_activations(traced: Estimate) -> None:
    sharded = replace(WORKLOAD, sharding=Sharding(backend="zero", num_ranks=8, num_shards=8, zero_stage=3))
    terms = zero.with_states(traced.terms, sharded)
    kept = [term for term in traced.terms if term.group in ("activations", "logits")]
    assert [term for term in terms if term in kept] == kept
    cached = {term.phases[0]: term.num_bytes for term in terms if "gathering stream" in term.name}
    gathered = {name: term.num_bytes for term in terms if "gathered" in term.name for name in term.phases}
    assert cached["optimizer"] == max(gathered.values())  # nothing is gathered for the update
    states = sum(term.num_bytes for term in terms if term.group == "weights" and "forward" in term.phases)
    assert 0 < states < sum(term.num_bytes for term in traced.terms if term.group == "weights")


def test_a_stage_of_zero_is_traced_or_in_closed_form_and_says_which() -> None:
    def sharded(stage: Any, **rest: Any) -> Workload:
        sharding = Sharding(backend="zero", num_ranks=8, num_shards=8, zero_stage=stage, **rest)
        return replace(WORKLOAD, sharding=sharding)

    assert not zero.needs_closed_form(sharded(2, master="fp32"))
    for workload in (sharded(1, master="fp32"), sharded(2), sharded(3, master="fp32"),
                     sharded(2, master="fp32", offload_optimizer="cpu")):  # fmt: skip
        assert zero.needs_closed_form(workload)
    assert zero.is_written_down(sharded(3, master="fp32"))
    assert zero.completed((), sharded(2, master="fp32")) == ((), (zero.WRITTEN_DOWN,))
    assert zero.completed((), sharded(3))[1] == (zero.NOTE,)


@pytest.mark.train
@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({**CONFIG, "model_type": "no-such-type"}, "cannot build"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused_in_one_line(
    home: Path, config: dict[str, Any], words: str
) -> None:
    with pytest.raises(FtwizError, match=words) as caught:
        exact_estimate(WORKLOAD, config)
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_a_missing_stack_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(Refused, match="needs trl"):
        exact_estimate(WORKLOAD, CONFIG)


def test_the_question_decides_the_name_of_the_answer() -> None:
    names = {
        cache.key_of(workload, config)
        for workload in (WORKLOAD, replace(WORKLOAD, sequence_tokens=65))
        for config in (CONFIG, {**CONFIG, "vocab_size": 513})
    }
    assert len(names) == 4


def test_a_cache_that_cannot_be_written_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "exact").write_text("a file where a folder should be", encoding="utf8")
    monkeypatch.setenv("FTWIZ_HOME", str(tmp_path))
    cache.save("name", json.loads('{"phases": {}}'))
    assert cache.load("name") is None
