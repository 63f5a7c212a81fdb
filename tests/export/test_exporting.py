"""What is exported is what was trained, to the last bit that the number format holds."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.train, pytest.mark.timeout(280)]

COMPARE = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base, adapter, merged, split, half = sys.argv[1:]
torch.manual_seed(0)
ids = torch.randint(0, 200, (2, 24))
load = AutoModelForCausalLM.from_pretrained
with torch.no_grad():
    tuned = PeftModel.from_pretrained(load(base), adapter).eval()(ids).logits
    torch.testing.assert_close(load(merged)(ids).logits, tuned, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(load(base)(ids).logits, tuned, atol=1e-3)  # it has learned something
trained = load(split).state_dict()
exported, report = load(half, output_loading_info=True)
assert not any(any(keys) for keys in report.values()), report
for name, weight in exported.state_dict().items():
    assert weight.dtype == torch.bfloat16, name
    assert torch.equal(weight, trained[name].to(torch.bfloat16)), name
for folder in (merged, half):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "2 + 2?"}], tokenize=False)
    assert text == "<|user|>2 + 2?", text
"""


def test_a_merged_adapter_answers_as_the_adapter_does_and_parts_make_the_whole(
    workshop: Any, lora_run: Any, split_run: Any, tmp_path: Path
) -> None:
    merged, half = tmp_path / "merged", tmp_path / "half"
    half.mkdir()  # an empty folder is as good as none
    done = workshop.export(lora_run.id, "-o", str(merged))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{merged}\n"
    assert "float32: takes 205 KiB of host memory (35,296 weights x 4 B + the adapter)" in done.stderr
    assert "merging the adapter" in done.stderr
    options = ("--checkpoint", "checkpoint-2", "--dtype", "bf16", "--shard-size", "30KB", "--json")
    done = workshop.export(split_run.id, "-o", str(half), *options)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["path"], result["dtype"]) == (str(half), "bfloat16")
    assert result["num_shards"] == len(list(half.glob("model-*.safetensors"))) > 1
    assert result["num_bytes"] == sum(file.stat().st_size for file in half.iterdir())
    assert not (
        split_run.checkpoints / "checkpoint-2" / "model.safetensors"
    ).exists()  # there were only parts
    folders = (workshop.model, lora_run.final_model, merged, split_run.final_model, half)
    done = workshop.python("-c", COMPARE, *map(str, folders))
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["half", "merged"]


def test_ctrl_c_leaves_nothing_and_no_process(workshop: Any, lora_run: Any, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "ftwiz", "export", lora_run.id, "-o", str(tmp_path / "out")],
        env=workshop.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while "importing" not in (line := process.stderr.readline()):
        assert line, "it ended before it began"
    (beside,) = tmp_path.iterdir()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(process.pid, signal.SIGINT)
    _, rest = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert list(tmp_path.iterdir()) == [], beside
    time.sleep(0.1)
    assert [child for child in children if Path(f"/proc/{child}").exists()] == []


def test_an_adapter_alone_is_written_without_its_base_and_an_upload_that_fails_leaves_the_folder(
    workshop: Any, lora_run: Any, tmp_path: Path
) -> None:
    arguments = (lora_run.id, "-o", str(tmp_path / "adapter"), "--adapter-only", "--dtype", "bf16")
    done = workshop.export(*arguments, "--push", "someone/model", HF_TOKEN="hf_none")  # noqa: S106 - no token
    assert done.returncode == 3
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith("error: someone/model: cannot be uploaded: ")
    assert hint.endswith(f"hf upload someone/model {tmp_path / 'adapter'}")
    names = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert names >= {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"}
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(workshop.model)
    trained = (lora_run.final_model / "adapter_model.safetensors").stat().st_size
    assert (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size < 0.6 * trained
