"""What a check finds: real files that are damaged one way each, and machines that are written down."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine.calibration import Calibration, Usage, append_calibration, workload_key
from ftwiz.engine.doctor import Finding
from ftwiz.engine.doctor import Level as DoctorLevel
from ftwiz.engine.job import load_job
from ftwiz.engine.prepare import prepare
from ftwiz.engine.probe import Level, Result, Surroundings, best_estimate, check_job
from ftwiz.engine.probe.checks import look_at_devices, look_at_findings, look_at_output, look_at_port
from ftwiz.engine.specs.machine import Device, DeviceProcess, Host, Machine
from ftwiz.engine.supervise.measured import workload_here

GIB = 1 << 30
BOX = Machine(
    host=Host(name="box", num_cpus=2, total_bytes=64 * GIB, available_bytes=60 * GIB, cpu_name="cpu")
)
CARD = Device(
    kind="cuda",
    index=0,
    name="NVIDIA H200",
    vendor="nvidia",
    total_bytes=140 * GIB,
    free_bytes=139 * GIB,
    supports_bf16=True,
)
MakeJob = Callable[..., Path]


def found(job: Path, home: Path, machine: Machine = BOX, **environ: str) -> dict[str, list[Result]]:
    around = Surroundings(machine=machine, environ={"FTWIZ_HOME": str(home), "HOME": str(home)} | environ)
    results: dict[str, list[Result]] = {}
    for result in check_job(load_job(job), around):
        results.setdefault(result.check, []).append(result)
    return results


def problems(results: dict[str, list[Result]]) -> list[Result]:
    return [one for those in results.values() for one in those if one.level is Level.PROBLEM]


@pytest.fixture
def model(tmp_path: Path, tiny_model: Path) -> Path:
    """A copy of the tiny model, to be damaged."""
    return shutil.copytree(tiny_model, tmp_path / "model")


def test_a_job_that_is_well_has_no_problem(make_job: MakeJob, home: Path) -> None:
    results = found(make_job(), home)
    assert not problems(results)
    assert {"job", "model", "weights", "tokenizer", "data", "stack", "plan", "devices", "output"} <= set(
        results
    )
    assert list(home.iterdir()) == []


def test_weights_that_are_cut_are_found_before_they_are_loaded(
    make_job: MakeJob, model: Path, home: Path
) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    (one,) = problems(found(make_job(model=model), home))
    assert one.check == "model"
    assert "model.safetensors: is cut" in one.what
    assert one.advice == "get this file again"


def test_weights_of_another_model_are_noticed(make_job: MakeJob, model: Path, home: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 9}))
    weights = found(make_job(model=model), home)["weights"]
    assert [one.level for one in weights] == [Level.OK, Level.WARNING]
    assert weights[1].advice == "make sure that config.json and weights are of one model"


@pytest.mark.parametrize(
    ("damage", "check", "said"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer", "has no tokenizer"),
        (
            lambda folder: (folder / "tokenizer.json").write_text("{"),
            "model",
            "tokenizer.json: is not valid JSON",
        ),
        (
            lambda folder: (folder / "tokenizer_config.json").write_text('{"pad_token": "x"}'),
            "tokenizer",
            "has no eos_token",
        ),
        (lambda folder: (folder / "config.json").unlink(), "model", "config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model", "has no weights"),
    ],
)
def test_a_missing_or_broken_file_of_the_model_is_named(
    make_job: MakeJob, model: Path, home: Path, damage: Callable[[Path], None], check: str, said: str
) -> None:
    damage(model)
    those = problems(found(make_job(model=model), home))
    assert (those[0].check, said in those[0].what) == (check, True)


def test_weights_as_pickles_are_refused_and_not_opened(make_job: MakeJob, model: Path, home: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    assert "can run code when loaded" in problems(found(make_job(model=model), home))[0].what


def test_a_bad_row_is_named_with_its_line(make_job: MakeJob, tmp_path: Path, home: Path) -> None:
    rows = tmp_path / "bad.jsonl"
    rows.write_text('{"question": "a", "answer": "b"}\n{"question": \n', encoding="utf8")
    those = problems(found(make_job(rows=rows), home))
    assert those[0].check == "data"
    assert "bad.jsonl:2" in those[0].what


def test_a_model_that_is_not_here_is_a_problem_only_without_a_network(make_job: MakeJob, home: Path) -> None:
    job = make_job(model=Path("Qwen/Qwen3-0.6B"))
    (online,) = found(job, home)["weights"]
    assert online.level is Level.WARNING
    assert "it will be downloaded, about 1." in online.what
    (offline,) = problems(found(job, home, HF_HUB_OFFLINE="1"))
    assert "HF_HUB_OFFLINE is set" in offline.what


def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        (one,) = look_at_output(Path("/proc/runs"))  # where root cannot write either
    else:
        (tmp_path / "locked").mkdir(mode=0o500)
        (one,) = look_at_output(tmp_path / "locked" / "runs")
    assert one.level is Level.PROBLEM
    assert one.advice == "choose: FTWIZ_HOME=FOLDER"


def test_a_port_can_be_opened_and_is_closed_again() -> None:
    result = look_at_port()
    assert result.level is Level.OK
    number = int(result.what.rpartition("port ")[2].split()[0])
    with socket.create_server(("127.0.0.1", number)):
        pass


def test_who_else_is_on_a_device_is_said(make_job: MakeJob) -> None:
    other = replace(
        CARD, free_bytes=10 * GIB, processes=(DeviceProcess(pid=4242, name="vllm", used_bytes=129 * GIB),)
    )
    machine = replace(BOX, devices=(other,))
    (one,) = look_at_devices(prepare(load_job(make_job()), machine), machine)
    assert one.level is Level.WARNING
    assert "10.0 GiB free; in use by vllm (pid 4242)" in one.what


def test_only_what_the_doctor_says_of_jobs_is_shown() -> None:
    findings = [
        Finding(check="torch", level=DoctorLevel.ERROR, what="no kernels", advice="install", command="pip"),
        Finding(check="disk speed", level=DoctorLevel.ERROR, what="slow"),
        Finding(check="packages", level=DoctorLevel.NOTE, what="fine"),
    ]
    assert [(one.level, one.what, one.advice) for one in look_at_findings(findings)] == [
        (Level.PROBLEM, "no kernels", "install: pip")
    ]
    assert [one.level for one in look_at_findings([])] == [Level.OK]


def test_what_was_probed_here_takes_the_place_of_the_estimate(make_job: MakeJob, home: Path) -> None:
    loaded = load_job(make_job())
    machine = replace(BOX, devices=(CARD,))
    prepared = prepare(loaded, machine)
    around = Surroundings(machine=machine, environ={"FTWIZ_HOME": str(home)})
    workload = workload_here(loaded.job, prepared.plan.strategy, [CARD])
    assert workload is not None
    assert best_estimate(workload, around, [CARD])[0].tier == "fast"
    for tokens in (512, 1024):
        append_calibration(home / "calibration.jsonl", probe(workload_key(workload), tokens))
    estimate, how = best_estimate(workload, around, [CARD])
    assert estimate.tier == "probe"
    assert estimate.allocated_bytes == 2024 << 20
    assert how == "measured on NVIDIA H200, 1970-01-01, at 512 and 1,024 tokens"
    other_card = replace(CARD, name="NVIDIA A100")
    assert best_estimate(workload, around, [other_card])[0].tier == "fast"
    results = found(make_job(), home, machine)
    assert [one.level for one in results["memory"]] == [Level.OK]
    assert "measured on NVIDIA H200" in results["memory"][0].what


def test_what_was_measured_and_does_not_fit_is_planned_otherwise(make_job: MakeJob, home: Path) -> None:
    loaded = load_job(make_job())
    small = replace(CARD, free_bytes=1 * GIB)
    machine = replace(BOX, devices=(small,))
    workload = workload_here(loaded.job, prepare(loaded, machine).plan.strategy, [CARD])
    assert workload is not None
    for tokens in (512, 1024):
        append_calibration(home / "calibration.jsonl", probe(workload_key(workload), tokens))
    before, after = found(make_job(), home / "none", machine), found(make_job(), home, machine)
    assert not problems(after)
    assert after["plan"][0].what != before["plan"][0].what
    assert "measured on" not in after["memory"][0].what


def probe(key: str, tokens: int) -> Calibration:
    allocated = (1000 + tokens) << 20
    return Calibration(
        t=float(tokens),
        source="probe",
        outcome="finished",
        ftwiz="0",
        device_kind="cuda",
        device_name=CARD.name,
        device_bytes=CARD.total_bytes,
        num_ranks=1,
        key=key,
        sequence_tokens=tokens,
        micro_batch_size=1,
        batch_tokens=tokens,
        steps=Usage(allocated_bytes=allocated, reserved_bytes=allocated, process_bytes=allocated),
    )


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["no-such.yaml"], 2, "no-such.yaml"),
        (["JOB", "--set", "train.max_length=-3"], 2, "train.max_length"),
        (["JOB", "--set", "train.learning_rate=nan"], 2, "train.learning_rate"),
        (["JOB", "--smoke", "1"], 2, "--smoke"),
        (["JOB", "--smoke", "-5"], 2, "--smoke"),
        (["JOB", "--smoke", "3", "--limit", "nan"], 2, "--limit"),
        (["JOB", "--set", "model.name_or_path=/no/such/folder"], 2, "no such file"),
        (["JOB", "--set", "plan.micro_batch_size=7"], 1, ""),
    ],
)
def test_the_command_ends_with_the_code_of_what_is_wrong(
    run_ftwiz: Callable[..., Any], make_job: MakeJob, arguments: list[str], code: int, said: str
) -> None:
    named = [str(make_job()) if argument == "JOB" else argument for argument in arguments]
    done = run_ftwiz("check", *named)
    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_lines_and_json_say_the_same(run_ftwiz: Callable[..., Any], make_job: MakeJob) -> None:
    lines = run_ftwiz("check", make_job())
    assert lines.returncode == 0, lines.stdout + lines.stderr
    body = json.loads(run_ftwiz("check", make_job(), "--json").stdout)
    assert body["smoke"] is None
    steady = [one for one in body["checks"] if one["check"] not in {"torch", "machine"}]  # torch may be slow
    assert len(steady) >= 9
    for one in steady:
        assert f"{one['level']:<8} {one['check']}" in lines.stdout
    assert "nothing was found that stands in its way" in lines.stdout


LOADED = """
import sys
from ftwiz.cli.group import run_group
assert run_group(["check", sys.argv[1]]) == 0
heavy = {"torch", "transformers", "trl", "textual", "questionary", "numpy"}
assert not heavy & {name.partition(".")[0] for name in sys.modules}
"""


def test_checking_loads_neither_the_stack_nor_the_full_screen(make_job: MakeJob, home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, str(make_job())],
        env={"PATH": os.environ["PATH"], "HOME": str(home), "FTWIZ_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=home,
    )
    assert done.returncode == 0, done.stdout + done.stderr
