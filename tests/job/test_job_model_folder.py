"""A model folder is looked at, never run, and never waited for: cases I10 and I11."""

import json
import os
import pickle
import time
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine.errors import BadInput
from ftwiz.engine.job import model_spec
from ftwiz.engine.specs.job import Data, Job, Model
from ftwiz.engine.specs.model import ModelSpec

CONFIG = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 32, "vocab_size": 256}
pytestmark = pytest.mark.timeout(20)


def spec_of(name: str | Path, *, trust_remote_code: bool = False) -> ModelSpec | None:
    model = Model(name_or_path=str(name), trust_remote_code=trust_remote_code)
    return model_spec(Job(model=model, data=Data(path="/rows.jsonl")))


def refusal(name: str | Path) -> str:
    started = time.process_time()
    with pytest.raises(BadInput) as caught:
        spec_of(name)
    assert time.process_time() - started < 1
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 500
    return caught.value.message


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    return path


@pytest.fixture
def config(folder: Path) -> Path:
    return folder / "config.json"


def test_a_folder_is_read(folder: Path, config: Path) -> None:
    config.write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").touch()
    spec = spec_of(folder)
    assert spec is not None
    assert (spec.num_layers, spec.hidden_size) == (2, 32)


@pytest.mark.parametrize("name", ["ftwiz:demo", "someone/something", "something"])
def test_ids_that_nobody_knows_are_unknown(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert spec_of(name) is None


def test_a_name_that_is_no_id_and_no_folder_is_refused(folder: Path) -> None:
    assert "no such file or directory" in refusal(folder / "gone")
    assert "neither a folder here nor a model id" in refusal("a/b/c")
    (folder / "model.gguf").touch()
    assert "is not a folder" in refusal(folder / "model.gguf")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", ": is empty"),
        ("  \n", ": is empty"),
        ("[]", ": must hold keys and values; it holds a list"),
        ('"llama"', ": must hold keys and values"),
        ("{", ":1: not valid JSON: "),
        ('{\n"a": 1,\n}', ":3: not valid JSON: "),
        ('{"model_type": "llama", "hidden_size": NaN}', "hidden_size"),
        ('{"model_type": "llama", "rms_norm_eps": NaN}', "rms_norm_eps"),
        ('{"model_type": "llama", "num_hidden_layers": -3}', "num_hidden_layers"),
        ('{"model_type": "llama", "vocab_size": 1000000000000000}', "vocab_size"),
        (f'{{"model_type": "llama", "vocab_size": {"9" * 5000}}}', "vocab_size is a number of 5,000 digits"),
        ('{"model_type": "llama", "hidden_size": 1e999}', "hidden_size"),
        ('{"a":' * 100_000, ": is nested too deep"),
        ("[" * 100_000, ": is nested too deep"),
        ('{"model_type": "llama", "auto_map": {"AutoConfig": "evil.C"}}', "auto_map"),
        (
            '{"model_type": "llama", "_attn_implementation_internal": "evil/k"}',
            "_attn_implementation_internal",
        ),
        (
            '{"model_type": "llama", "text_config": {"trust_remote_code": true}}',
            "text_config.trust_remote_code",
        ),
        ('{"model_type": "\\u001b]52;c;aGk=\\u0007"}', "model_type"),
        ('{"model_type": "\\ud800"}', "model_type"),
        ("{}", "model_type is missing"),
        ('{"a": "' + "x" * (5 << 20) + '"}', "KiB; a model's configuration has at most 4,096"),
    ],
    ids=lambda text: text[:24].encode().hex()[:24],
)
def test_a_bad_config_gets_one_line_with_file_and_key(config: Path, text: str, part: str) -> None:
    config.write_text(text)
    message = refusal(config.parent)
    assert message.startswith(str(config))
    assert part in message


def test_a_config_that_is_no_ordinary_file_is_refused_without_waiting(config: Path) -> None:
    assert refusal(config.parent) == f"{config}: no such file or directory"
    os.mkfifo(config)
    assert refusal(config.parent) == f"{config}: is a named pipe, not a model's configuration"
    config.unlink()
    config.mkdir()
    assert refusal(config.parent) == f"{config}: is a folder, not a model's configuration"
    config.rmdir()
    config.symlink_to("/dev/zero")
    assert refusal(config.parent) == f"{config}: is a device, not a model's configuration"
    config.unlink()
    config.symlink_to(config)
    assert refusal(config.parent) == f"{config}: too many levels of symbolic links"


def test_a_config_of_the_largest_size_is_read_in_time(config: Path) -> None:
    text = json.dumps(CONFIG | {"id2label": {str(n): n for n in range(200_000)}})
    config.write_text(text)
    assert 3 << 20 < len(text) < 4 << 20
    started = time.process_time()
    assert spec_of(config.parent) is not None
    assert time.process_time() - started < 2


def test_bytes_that_are_no_text_are_told(config: Path) -> None:
    config.write_bytes(b'{"model_type": "caf\xe9"}')
    assert refusal(config.parent) == f"{config}: is not UTF-8 text"


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickled_weights_are_refused_by_name_and_not_opened(folder: Path, config: Path, name: str) -> None:
    config.write_text(json.dumps(CONFIG))
    (folder / name).write_bytes(pickle.dumps(Payload(folder / "PWNED")))
    message = refusal(folder)
    assert message.startswith(f"{folder / name}: weights as a pickle can run code")
    assert not (folder / "PWNED").exists()


def test_pickles_beside_safetensors_are_left_alone(folder: Path, config: Path) -> None:
    config.write_text(json.dumps(CONFIG))
    (folder / "pytorch_model.bin").touch()
    (folder / "model-00001-of-00002.safetensors").touch()
    assert spec_of(folder) is not None


def test_code_in_the_folder_is_not_run_even_when_it_is_trusted(folder: Path, config: Path) -> None:
    config.write_text(json.dumps(CONFIG | {"auto_map": {"AutoConfig": "evil.Config"}}))
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(folder / 'PWNED')!r})\nclass Config: pass\n")
    assert spec_of(folder, trust_remote_code=True) is not None
    assert not (folder / "PWNED").exists()


@pytest.mark.parametrize("name", ["sp ace", "übung 訓練", "two\nlines", "-rf", "$(touch PWN)", "n" * 255])
def test_folders_with_hostile_names_are_found(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    assert "no such file or directory" in refusal(folder)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    assert spec_of(folder) is not None


@pytest.mark.train
def test_a_folder_that_transformers_saved_is_read(tiny_model: Path) -> None:
    spec = spec_of(tiny_model)
    assert spec is not None
    assert (spec.model_type, spec.architecture) == ("llama", "LlamaForCausalLM")
    assert (spec.num_layers, spec.hidden_size, spec.max_position_embeddings) == (2, 32, 256)
