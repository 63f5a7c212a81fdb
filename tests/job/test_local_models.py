"""Models on this machine are found as the Hugging Face libraries lay them down, without importing those."""

import json
import os
from pathlib import Path

import pytest

from ftwiz.engine.errors import BadInput
from ftwiz.engine.job import model_spec
from ftwiz.engine.job.local_models import cached, find_cached, folders, hub_cache
from ftwiz.engine.specs.job import Data, Job, Model
from ftwiz.engine.specs.model import ModelSpec

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "vocab_size": 256,
}
pytestmark = pytest.mark.timeout(20)


def put(cache: Path, hub_id: str, config: dict[str, object], *, weights: bool = True) -> Path:
    """Lay a model down as huggingface_hub does: a blob, and a snapshot that links to it."""
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    for folder in (snapshot, repository / "blobs", repository / "refs"):
        folder.mkdir(parents=True)
    (repository / "blobs" / "abc").write_text(json.dumps(config))
    (snapshot / "config.json").symlink_to("../../blobs/abc")
    (repository / "refs" / "main").write_text(COMMIT)
    if weights:
        (snapshot / "model.safetensors").touch()
    return snapshot


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    return folder


def spec_of(name: str, *, revision: str | None = None) -> ModelSpec | None:
    return model_spec(Job(model=Model(name_or_path=name, revision=revision), data=Data(path="/rows.jsonl")))


def test_the_cache_is_where_the_libraries_put_it() -> None:
    home = {"HOME": "/h"}
    assert hub_cache(home) == Path("/h/.cache/huggingface/hub")
    assert hub_cache(home | {"XDG_CACHE_HOME": "/c"}) == Path("/c/huggingface/hub")
    assert hub_cache(home | {"HF_HOME": "~/hf"}) == Path("/h/hf/hub")
    assert hub_cache(home | {"HF_HOME": "/hf", "HF_HUB_CACHE": "/models"}) == Path("/models")


def test_cached_models_are_listed_with_what_is_there(cache: Path) -> None:
    put(cache, "someone/one", CONFIG)
    put(cache, "two", CONFIG, weights=False)
    (cache / "models--torn--model").mkdir()
    (cache / "datasets--x--y").mkdir()
    assert [(model.id, model.has_weights) for model in cached(cache)] == [
        ("someone/one", True),
        ("two", False),
    ]


def test_a_cache_that_is_not_there_or_cannot_be_read_is_empty(cache: Path) -> None:
    assert cached(cache) == ()
    cache.touch()
    assert cached(cache) == ()


def test_a_revision_is_a_branch_or_commit_and_never_a_way_out(cache: Path) -> None:
    put(cache, "someone/one", CONFIG)
    assert find_cached(cache, "someone/one", revision=COMMIT) is not None
    assert find_cached(cache, "someone/one", revision="v2") is None
    (cache / "models--someone--one" / "snapshots" / "evil").write_text(COMMIT)
    assert find_cached(cache, "someone/one", revision="../snapshots/evil") is None


def test_folders_are_the_place_itself_and_its_children(tmp_path: Path) -> None:
    for name in ("", "b", "a", "a/deep"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "config.json").write_text("{}")
    assert [model.id for model in folders(tmp_path)] == [str(tmp_path / name) for name in ("", "a", "b")]


def test_a_hub_model_is_read_from_the_cache_before_the_catalogue(cache: Path) -> None:
    catalogued = spec_of("Qwen/Qwen3-0.6B")
    assert catalogued is not None
    assert catalogued.num_parameters == 596_049_920
    put(cache, "Qwen/Qwen3-0.6B", CONFIG)
    from_cache = spec_of("Qwen/Qwen3-0.6B")
    assert from_cache is not None
    assert (from_cache.model_type, from_cache.num_layers) == ("llama", 2)


def test_an_alias_of_the_catalogue_is_known_and_a_revision_of_it_is_not(cache: Path) -> None:
    spec = spec_of("lmsys/vicuna-7b-v1.5")
    assert spec is not None
    assert spec.num_parameters == 6_738_415_616
    assert spec_of("lmsys/vicuna-7b-v1.5", revision="other") is None
    assert spec_of("nobody/nothing") is None


def test_code_beside_a_cached_model_is_passed_over_and_other_dangers_are_refused(cache: Path) -> None:
    put(cache, "someone/one", CONFIG | {"auto_map": {"AutoConfig": "evil.Config"}})
    assert spec_of("someone/one") is not None
    put(cache, "someone/two", CONFIG | {"_attn_implementation_internal": "evil/kernels"})
    with pytest.raises(BadInput, match="_attn_implementation_internal"):
        spec_of("someone/two")


def test_a_named_pipe_in_the_cache_is_no_configuration(cache: Path) -> None:
    config = put(cache, "someone/one", CONFIG) / "config.json"
    config.unlink()
    os.mkfifo(config)
    assert cached(cache) == ()
    assert spec_of("someone/one") is None
