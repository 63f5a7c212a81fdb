"""What cannot be exported is refused in one line that says what can, before anything is loaded."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftwiz.cli.group import run_group
from ftwiz.engine.checkpoints import write_manifest
from ftwiz.engine.errors import BadInput, Refused
from ftwiz.engine.export import Form, Need, Source, find_source, needs_of
from ftwiz.engine.export.needs import check_base, check_checkpoint, stored_dtype
from ftwiz.engine.rundir import RunFolder

STRATEGY = {
    "backend": "single",
    "device_kind": "cpu",
    "num_processes": 1,
    "micro_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "gradient_checkpointing": False,
    "mixed_precision": "no",
}


@pytest.fixture
def run(finished_run: Path, tiny_model: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A full run with a model, a whole checkpoint, and one that was never finished."""
    model = {"name_or_path": str(tiny_model), "revision": None, "trust_remote_code": False}
    train = {"stage": "sft", "model": model | {"dtype": "float32"}, "method": {"kind": "full"}}
    train |= {"data": {}, "trainer": {}, "run": {}}
    (finished_run / "train.yaml").write_text(yaml.safe_dump(train))
    (finished_run / "plan.json").write_text(json.dumps({"strategy": STRATEGY}))
    run = RunFolder(finished_run)
    for folder in (run.final_model, run.checkpoints / "checkpoint-4", run.checkpoints / "checkpoint-8"):
        shutil.copytree(tiny_model, folder)
    write_manifest(run.checkpoints / "checkpoint-4")
    monkeypatch.setenv("FTWIZ_HOME", str(home))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return run


def refused(capsys: Any, *arguments: str | Path) -> tuple[int, str, str]:
    """Return exit code, error and hint; nothing is on stdout."""
    code = run_group(["export", *map(str, arguments)])
    said = capsys.readouterr()
    error, hint = said.err.splitlines()[-2:]
    assert said.out == ""
    return code, error.removeprefix("error: "), hint.removeprefix("hint: ")


def test_a_folder_that_holds_something_stays_as_it_is(run: RunFolder, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    code, error, hint = refused(capsys, run.id, "-o", tmp_path / "out")
    assert (code, hint) == (2, "choose another -o")
    assert error == f"{tmp_path / 'out'}: is not empty, and stays as it is"
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "code", "error", "hint"),
    [
        (["--checkpoint", "checkpoint-8"], 2, "checkpoint-8: not a whole checkpoint", "checkpoint-4"),
        (["--checkpoint", "checkpoint-5"], 2, "no checkpoint 'checkpoint-5'", "checkpoint-8, checkpoint-4"),
        (["--adapter-only"], 2, "trained all weights, and has no adapter", "leave out --adapter-only"),
        (["--shard-size", "much"], 2, "'much' is not a size", "5GB"),
        (["--push", "someone/model"], 3, "--push needs HF_TOKEN in the environment", "token"),
    ],
)
def test_what_cannot_be_exported_is_refused_with_the_alternative(
    run: RunFolder, tmp_path: Path, capsys: Any, options: list[str], code: int, error: str, hint: str
) -> None:
    found = refused(capsys, run.id, "-o", tmp_path / "out", *options)
    assert found[0] == code
    assert error in found[1]
    assert hint in found[2]
    assert not (tmp_path / "out").exists()


def test_a_run_without_a_model_says_which_checkpoint_could_be_exported(run: RunFolder) -> None:
    shutil.rmtree(run.final_model)
    with pytest.raises(Refused) as refusal:
        find_source(run, None)
    assert refusal.value.hint == "export its newest checkpoint: --checkpoint checkpoint-4"
    shutil.rmtree(run.checkpoints)
    with pytest.raises(Refused) as refusal:
        find_source(run, None)
    assert (
        refusal.value.hint == f"it has no checkpoint either; let it train to its end: ftwiz resume {run.id}"
    )


def test_a_checkpoint_without_readable_weights_names_what_has_some(run: RunFolder) -> None:
    folder = run.checkpoints / "checkpoint-4"
    (folder / "model.safetensors").unlink()
    write_manifest(folder)
    with pytest.raises(Refused, match="holds no weights that can be exported") as refusal:
        find_source(run, "checkpoint-4")
    assert refusal.value.hint == "export the trained model: without --checkpoint"


def test_a_changed_checkpoint_is_not_exported(run: RunFolder) -> None:
    weights = run.checkpoints / "checkpoint-4" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(BadInput, match="was changed after it was saved"):
        find_source(run, "checkpoint-4")


def test_too_little_memory_or_disk_is_refused_with_both_figures(tmp_path: Path) -> None:
    need = Need(host_bytes=1 << 60, disk_bytes=1 << 60, host_formula="a great deal")
    with pytest.raises(Refused, match=r"takes 1073741824.00 GiB of host memory \(a great deal\), and .* GiB"):
        need.check(tmp_path)
    with pytest.raises(Refused, match=r"takes 1073741824.00 GiB, and .* GiB are free"):
        replace(need, host_bytes=None).check(tmp_path)
    replace(need, host_bytes=None, disk_bytes=None).check(tmp_path)


def test_what_is_needed_follows_from_the_weights_and_the_format(tiny_model: Path, tmp_path: Path) -> None:
    config = json.loads((tiny_model / "config.json").read_text())
    whole = Source(folder=tiny_model, form=Form.WHOLE, name="model")
    need = needs_of(whole, None, dtype="bfloat16", adapter_only=False)
    assert need.host_bytes == need.disk_bytes == 2 * 35_296
    (tmp_path / "adapter_model.safetensors").write_bytes(bytes(100))
    adapter = Source(folder=tmp_path, form=Form.ADAPTER, name="model")
    need = needs_of(adapter, config, dtype="float32", adapter_only=False)
    assert (need.host_bytes, need.disk_bytes) == (4 * 35_296 + 100, 4 * 35_296)
    need = needs_of(adapter, config, dtype="float32", adapter_only=True)
    assert (need.host_bytes, need.disk_bytes) == (100, 100)
    assert needs_of(adapter, None, dtype="float32", adapter_only=False).host_bytes is None


def test_the_format_is_that_of_the_base_or_of_what_was_trained(tiny_model: Path, tmp_path: Path) -> None:
    adapter = Source(folder=tmp_path, form=Form.ADAPTER, name="model")
    assert stored_dtype(adapter, {"torch_dtype": "bfloat16"}) == "bfloat16"
    assert stored_dtype(adapter, None) == "float32"
    assert stored_dtype(Source(folder=tiny_model, form=Form.WHOLE, name="model"), None) == "float32"
    assert stored_dtype(Source(folder=tmp_path, form=Form.ZERO, name="checkpoint-1"), None) == "float32"


def test_a_checkpoint_of_pissa_is_not_taken_for_an_adapter_of_the_base() -> None:
    with pytest.raises(Refused, match="does not fit the base") as refusal:
        check_checkpoint({"kind": "lora", "init_lora_weights": "pissa_niter_16"}, "mine")
    assert "ftwiz resume mine" in str(refusal.value.hint)
    check_checkpoint({"kind": "lora"}, "mine")


def test_nothing_is_merged_into_packed_weights() -> None:
    with pytest.raises(Refused, match=r"published packed \(gptq\)") as refusal:
        check_base({"quantization_config": {"quant_method": "gptq"}}, "some/model")
    assert "--adapter-only" in str(refusal.value.hint)
    check_base({"model_type": "llama"}, "some/model")


def test_parts_of_zero_are_preferred_when_float32_is_wanted(run: RunFolder) -> None:
    folder = run.checkpoints / "checkpoint-4"
    (folder / "global_step4").mkdir()
    (folder / "global_step4" / "zero_pp_rank_0_mp_rank_00_optim_states.pt").write_bytes(b"part")
    (folder / "latest").write_text("global_step4")
    write_manifest(folder)
    assert find_source(run, "checkpoint-4").form is Form.WHOLE
    assert find_source(run, "checkpoint-4", in_float32=True).form is Form.ZERO
