"""Packages, compilers and build locks: real metadata, real executables, real lock files."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from ftwiz.engine.doctor import Level
from ftwiz.engine.doctor.build_checks import look_at_compilers, look_for_stale_locks
from ftwiz.engine.doctor.package_checks import (
    FLOORS,
    declared,
    look,
    look_at_companions,
    look_for_holes,
)
from ftwiz.engine.doctor.patient import installed_versions
from ftwiz.engine.specs.machine import Device

from .conftest import GPU_TORCH, MakePatient

TESTED = {
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "trl": "1.16.0",
    "peft": "0.21.2",
    "accelerate": "1.15.0",
    "datasets": "5.2.0",
}
GPU = Device(kind="cuda", index=0, name="NVIDIA H100", vendor="nvidia")


def test_the_ranges_are_those_of_the_installed_ftwiz() -> None:
    assert {one.name for one in declared("train")} == set(TESTED)
    assert "deepspeed" in {one.name for one in declared("deepspeed")}
    assert all(one.specifier for one in declared("train"))


def test_versions_are_read_as_the_metadata_has_them() -> None:
    versions = installed_versions()
    assert versions["pyyaml"] == metadata.version("PyYAML")
    assert versions["ftwiz"] == metadata.version("ftwiz")


def test_the_tested_set_is_well(patient: MakePatient) -> None:
    findings = list(look(patient(versions=TESTED | {"bitsandbytes": "0.50.2"})))
    assert {one.level for one in findings} == {Level.OK}
    text = " / ".join(one.what for one in findings)
    assert "bitsandbytes 0.50.2" in text
    assert text.count("torch 2.13.0") == 1
    assert "not installed: deepspeed" in text


def test_what_is_missing_is_named_with_the_command(patient: MakePatient) -> None:
    versions = {name: version for name, version in TESTED.items() if name not in {"trl", "peft"}}
    finding = next(iter(look(patient(versions=versions))))
    assert finding.level is Level.ERROR
    assert {"trl", "peft"} <= set(finding.what.replace(",", "").split())
    assert (finding.command or "").endswith("'ftwiz[train]'")


@pytest.mark.parametrize(
    ("name", "version"), [("trl", "0.9.6"), ("transformers", "6.0.0"), ("peft", "not-a-version")]
)
def test_a_version_outside_its_range_is_a_warning(name: str, version: str, patient: MakePatient) -> None:
    findings = [one for one in look(patient(versions=TESTED | {name: version})) if one.level is not Level.OK]
    (finding,) = findings
    assert (finding.level, finding.what) == (Level.WARNING, f"{name} {version} is not a tested version")
    assert f"'{name}" in (finding.command or "")


def test_holes_are_told_below_their_floor_only(patient: MakePatient) -> None:
    assert list(look_for_holes(patient(versions=TESTED))) == []
    old = {"transformers": "5.2.9", "torch": "2.9.1+cu128"}
    findings = list(look_for_holes(patient(versions=old)))
    assert [one.level for one in findings] == [Level.WARNING] * len(FLOORS)
    assert all("CVE-" in (one.evidence or "") for one in findings)


def test_a_torchvision_that_does_not_load_is_an_error(patient: MakePatient) -> None:
    failure = "RuntimeError: operator torchvision::nms does not exist"
    torch = replace(GPU_TORCH, companions=(("torchvision", failure), ("torchaudio", None)))
    (finding,) = look_at_companions(patient(torch=torch, versions=TESTED | {"torchvision": "0.27.0"}))
    assert (finding.level, finding.evidence) == (Level.ERROR, failure)
    assert finding.what == "torchvision 0.27.0 does not fit the installed torch"


def test_a_companion_that_pins_another_torch_is_seen_without_importing_it(
    patient: MakePatient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "site" / "torchaudio-2.9.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: torchaudio\nVersion: 2.9.0\nRequires-Dist: torch==2.9.0\n",
        encoding="utf8",
    )
    monkeypatch.syspath_prepend(str(info.parent))
    (finding,) = look_at_companions(patient(versions=TESTED | {"torchaudio": "2.9.0"}))
    assert finding.evidence == "it wants torch 2.9.0, here is 2.13.0"


Program = Callable[[str, str], Path]


def test_compilers_are_told_by_what_they_say(patient: MakePatient, program: Program) -> None:
    program("gcc", "echo 12.2.0")
    program("ninja", "echo 1.11.1.git.kitware")
    program("g++", "exit 3")
    path = program("nvcc", "echo 'Cuda compilation tools, release 12.4, V12.4.131'")
    findings = list(look_at_compilers(patient(environ={"PATH": f"{path}:{os.environ['PATH']}"})))
    assert "gcc 12.2.0" in findings[0].what
    assert "ninja 1.11.1" in findings[0].what
    assert "nvcc 12.4" in findings[0].what
    assert "g++ (broken)" in findings[0].what


def test_no_compiler_is_a_note_on_a_cpu_and_a_warning_beside_a_gpu(patient: MakePatient) -> None:
    (on_cpu,) = look_at_compilers(patient())
    (on_gpu,) = look_at_compilers(patient(devices=(GPU,)))
    assert (on_cpu.level, on_gpu.level) == (Level.NOTE, Level.WARNING)


def test_deepspeed_is_told_what_it_would_miss(patient: MakePatient, program: Program) -> None:
    program("gcc", "echo 12.2.0")
    program("g++", "echo 12.2.0")
    path = program("nvcc", "echo 'release 12.4, V12.4.131'")
    made = patient(
        devices=(GPU,),
        torch=GPU_TORCH,
        environ={"PATH": f"{path}:{os.environ['PATH']}"},
        versions=TESTED | {"deepspeed": "0.19.8"},
    )
    told = {one.what: one.level for one in look_at_compilers(made) if one.level is not Level.OK}
    assert (
        told["nvcc 12.4 and torch, built for CUDA 13.0, differ: DeepSpeed refuses to build"] is Level.WARNING
    )
    assert told["no libaio: DeepSpeed cannot offload to disk"] is Level.NOTE


def test_a_compiler_that_hangs_costs_three_seconds_at_most(patient: MakePatient, program: Program) -> None:
    path = program("nvcc", "sleep 60")
    began = time.monotonic()
    findings = list(look_at_compilers(patient(environ={"PATH": f"{path}:{os.environ['PATH']}"})))
    assert time.monotonic() - began < 5
    assert "nvcc (broken)" in findings[0].what


HOLDER = (
    "import os, sys, time; os.open(sys.argv[1], os.O_CREAT | os.O_EXCL); "
    "print('held', flush=True); time.sleep(60)"
)


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    folder = tmp_path / ".cache" / "torch_extensions" / "py311_cu130" / "cpu adam"
    folder.mkdir(parents=True)
    return folder / "lock"


def _age(lock: Path, seconds: float) -> None:
    os.utime(lock, (time.time() - seconds,) * 2)


def test_a_lock_that_nobody_holds_is_told_with_a_command_that_removes_it(
    lock: Path, patient: MakePatient
) -> None:
    lock.touch()
    _age(lock, 3 * 86400 + 60)
    (finding,) = look_for_stale_locks(patient())
    assert finding.level is Level.WARNING
    assert f"{lock}, 3 days old" in (finding.evidence or "")
    subprocess.run(["sh", "-c", finding.command or "false"], check=True, timeout=10)
    assert not lock.exists()
    assert list(look_for_stale_locks(patient())) == []


def test_the_lock_of_a_living_builder_is_left_alone(lock: Path, patient: MakePatient) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE) as builder:
        assert builder.stdout is not None
        assert builder.stdout.readline() == b"held\n"
        _age(lock, 3600)
        try:
            (held,) = look_for_stale_locks(patient())
        finally:
            builder.kill()
    assert held.level is Level.NOTE
    (left,) = look_for_stale_locks(patient())
    assert left.level is Level.WARNING


def test_a_lock_in_a_folder_chosen_by_hand_is_found(tmp_path: Path, patient: MakePatient) -> None:
    path = tmp_path / "built" / "fused_adam" / "lock"
    path.parent.mkdir(parents=True)
    path.touch()
    _age(path, 600)
    (finding,) = look_for_stale_locks(patient(environ={"TORCH_EXTENSIONS_DIR": str(tmp_path / "built")}))
    assert "10 minutes old" in (finding.evidence or "")


@pytest.mark.train
def test_the_lock_is_the_one_that_torch_makes(lock: Path, patient: MakePatient) -> None:
    """The builder is torch's own baton, so that the check follows torch when it changes."""
    code = (
        "import sys, time; from torch.utils.file_baton import FileBaton; baton = FileBaton(sys.argv[1]); "
        "assert baton.try_acquire(); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE) as builder:
        assert builder.stdout is not None
        assert builder.stdout.readline() == b"held\n"
        _age(lock, 3600)
        try:
            (held,) = look_for_stale_locks(patient())
        finally:
            builder.kill()
    assert held.level is Level.NOTE
