"""From a job file to a run folder: what is written is what was shown, and nothing is written before."""

import json
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ftwiz.engine.errors import BadInput, Refused
from ftwiz.engine.job import load_job, parse_job
from ftwiz.engine.prepare import Prepared, check_stack, prepare, write
from ftwiz.engine.specs.machine import Device, Host, Machine
from ftwiz.engine.specs.run import RunState

MACHINE = Machine(host=Host(name="box", num_cpus=2))


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    folder = tmp_path / "my job $(touch PWN)"
    folder.mkdir()
    rows = [{"prompt": f"say {i}", "completion": str(i)} for i in range(8)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
    path = folder / "first.yaml"
    path.write_text("model: {name_or_path: 'ftwiz:demo'}\ndata: {path: rows.jsonl}\n", encoding="utf8")
    return path


@pytest.fixture
def prepared(job_file: Path) -> Prepared:
    return prepare(load_job(job_file), MACHINE)


def test_preparing_writes_nothing(job_file: Path) -> None:
    before = sorted(job_file.parent.iterdir())
    prepare(load_job(job_file), MACHINE)
    assert sorted(job_file.parent.iterdir()) == before


def test_the_folder_holds_the_bytes_that_were_shown(prepared: Prepared, tmp_path: Path) -> None:
    run = write(prepared, tmp_path / "runs")
    assert {"job.yaml", "plan.json", "accelerate.yaml", "train.yaml", "launch.sh"} == set(prepared.files)
    for name, text in prepared.files.items():
        assert (run.path / name).read_text(encoding="utf8") == text
    record = run.read_record()
    assert (record.state, record.name, record.id) == (RunState.CREATED, "first", run.id)
    assert stat.S_IMODE(run.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(run.job_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(run.launch_script.stat().st_mode) == 0o700


def test_the_written_job_says_the_same_from_anywhere(prepared: Prepared, tmp_path: Path) -> None:
    again = parse_job(prepared.files["job.yaml"], name="again", base=tmp_path)
    assert again.job == prepared.loaded.job
    assert Path(again.job.data.path).is_absolute()


def test_the_plan_file_names_reasons_sources_and_the_launch(prepared: Prepared) -> None:
    plan = json.loads(prepared.files["plan.json"])
    assert plan["launch"] == list(prepared.launch)
    assert plan["strategy"]["backend"] == "single"
    assert plan["sources"]["data.path"] == "file"
    assert plan["sources"]["train.seed"] == "default"
    assert all(reason["text"] for reason in plan["reasons"])


def test_the_train_file_counts_the_global_batch(prepared: Prepared) -> None:
    trainer = yaml.safe_load(prepared.files["train.yaml"])["trainer"]
    size = trainer["per_device_train_batch_size"] * trainer["gradient_accumulation_steps"]
    assert size == prepared.loaded.job.train.global_batch_size


def test_the_launch_script_quotes_what_it_starts(job_file: Path, tmp_path: Path) -> None:
    python = tmp_path / "my python; exit 9"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n', encoding="utf8")
    python.chmod(0o700)
    prepared = prepare(load_job(job_file), MACHINE, python=str(python))
    run = write(prepared, tmp_path / "runs")
    done = subprocess.run(
        [run.launch_script, "--resume-from", "checkpoint-4"],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stdout.splitlines() == [*prepared.launch[1:], "--resume-from", "checkpoint-4"]
    assert shlex.quote(str(python)) in prepared.files["launch.sh"]


def test_a_folder_that_cannot_be_made_is_refused_with_a_way_out(prepared: Prepared, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file", encoding="utf8")
    with pytest.raises(Refused, match="cannot be written") as caught:
        write(prepared, tmp_path / "runs")
    assert "FTWIZ_HOME" in str(caught.value.hint)


def test_bad_data_is_refused_before_a_folder_exists(job_file: Path) -> None:
    (job_file.parent / "rows.jsonl").write_text('{"prompt": "a"}\n', encoding="utf8")
    with pytest.raises(BadInput, match=r"rows\.jsonl"):
        prepare(load_job(job_file), MACHINE)


def test_the_stack_is_found_without_being_imported() -> None:
    pytest.importorskip("trl", reason="the training stack is not installed")
    script = (
        "from ftwiz.engine.prepare import check_stack; check_stack()\n"
        "import sys; assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], timeout=20, check=True)
    check_stack()


def test_the_script_shows_the_ranks_the_devices_of_the_plan(job_file: Path) -> None:
    cards = tuple(
        Device(kind="cuda", vendor="nvidia", index=i, uuid=f"GPU-{i}", name="A100", free_bytes=i)
        for i in range(2)
    )
    loaded = load_job(job_file, overrides=["plan.backend=single"])
    prepared = prepare(loaded, Machine(host=Host(name="box", num_cpus=2), devices=cards))
    assert "export CUDA_VISIBLE_DEVICES=GPU-1\n" in prepared.files["launch.sh"]
    plan = json.loads(prepared.files["plan.json"])
    assert plan["device_indices"] == [1]
    assert plan["environment"]["CUDA_VISIBLE_DEVICES"] == "GPU-1"


def test_zero_asks_for_deepspeed_too() -> None:
    script = (
        "import sys; sys.modules['deepspeed'] = None\n"
        "from ftwiz.engine.errors import Refused\n"
        "from ftwiz.engine.prepare import check_stack\n"
        "try: check_stack('zero')\n"
        "except Refused as error: print(error.message, error.hint)\n"
        "check_stack('fsdp')\n"
    )
    pytest.importorskip("trl", reason="the training stack is not installed")
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout.startswith("training needs deepspeed, which this Python does not have")
    assert "ftwiz[train,deepspeed]" in done.stdout


def test_packed_weights_ask_for_bitsandbytes_too() -> None:
    script = (
        "import sys; sys.modules['bitsandbytes'] = None\n"
        "from ftwiz.engine.errors import Refused\n"
        "from ftwiz.engine.prepare import check_stack\n"
        "try: check_stack('fsdp', packs=True)\n"
        "except Refused as error: print(error.message, error.hint)\n"
        "check_stack('fsdp')\n"
    )
    pytest.importorskip("trl", reason="the training stack is not installed")
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout.startswith("training needs bitsandbytes, which this Python does not have")
    assert "ftwiz[train,quant]" in done.stdout


def test_deepspeeds_own_launcher_is_left_out_where_devices_are_chosen(job_file: Path) -> None:
    cards = tuple(
        Device(kind="cuda", vendor="nvidia", index=i, uuid=f"GPU-{i}", name="A100", free_bytes=i)
        for i in range(4)
    )
    machine = Machine(host=Host(name="box", num_cpus=2), devices=cards)
    pins = ["plan.backend=zero", "plan.zero_stage=2", "plan.mixed_precision=bf16"]
    for ranks, is_there in ((4, True), (2, False)):
        loaded = load_job(job_file, overrides=[*pins, f"plan.num_processes={ranks}"])
        script = prepare(loaded, machine).files["launch.sh"]
        assert ("deepspeed.launcher.runner" in script) == is_there
        assert "torch.distributed.run" in script
