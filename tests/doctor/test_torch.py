"""Torch asked in its own process, and its answers against the devices in the box."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftwiz.engine.doctor import Level
from ftwiz.engine.doctor.ask_torch import MARK
from ftwiz.engine.doctor.torch_checks import fits, look
from ftwiz.engine.doctor.torch_report import TorchReport, ask, read
from ftwiz.engine.hardware.system import System
from ftwiz.engine.specs.machine import Device

from .conftest import GPU_TORCH, MakePatient

A100 = Device(
    kind="cuda", index=0, name="NVIDIA A100", vendor="nvidia", architecture="sm_80", supports_bf16=True
)
MI300 = Device(kind="cuda", index=0, name="AMD Instinct MI300X", vendor="amd", architecture="gfx942")
CPU_TORCH = TorchReport(version="2.13.0+cpu", cuda_available=False, cuda_count=0)


@pytest.mark.train
def test_the_installed_torch_answers() -> None:
    report = ask(System(dict(os.environ)), seconds=60)
    assert report.failure is None
    said = subprocess.run(
        [sys.executable, "-c", "import torch; print(torch.__version__, torch.version.cuda)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert said.stdout.split() == [report.version, str(report.cuda)]
    assert report.cuda_available is not None


Make = Callable[[str], dict[str, str]]
WORKING = """
import types
__version__ = "2.13.0+cu130"
version = types.SimpleNamespace(cuda="13.0", hip=None)
class cuda:
    is_available = staticmethod(lambda: False)
    device_count = staticmethod(lambda: 0)
    def init():
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\\n more")
class _C:
    _cuda_getDriverVersion = staticmethod(lambda: 11040)
    _cuda_getArchFlags = staticmethod(lambda: "sm_75 sm_80 compute_90")
backends = types.SimpleNamespace(mps=types.SimpleNamespace(is_available=lambda: False))
"""


def test_a_cuda_build_without_a_working_driver_tells_why(stand_in_torch: Make) -> None:
    report = ask(System(stand_in_torch(WORKING)), seconds=30)
    assert (report.version, report.cuda, report.driver_cuda) == ("2.13.0+cu130", "13.0", 11040)
    assert report.arch_list == ("sm_75", "sm_80", "compute_90")
    assert report.cuda_available is False
    assert "too old (found version 11040)" in (report.cuda_why_not or "")


def test_an_import_that_fails_is_told_in_one_line(stand_in_torch: Make, patient: MakePatient) -> None:
    environ = stand_in_torch("raise ImportError('libcudart.so.13: cannot open shared object file')")
    report = ask(System(environ), seconds=30)
    assert report.failure == "ImportError: libcudart.so.13: cannot open shared object file"
    (finding,) = look(patient(torch=report))
    assert (finding.level, finding.evidence) == (Level.ERROR, report.failure)


def test_what_was_answered_before_a_crash_is_kept(stand_in_torch: Make, patient: MakePatient) -> None:
    crash = WORKING.replace("is_available = staticmethod(lambda: False)", "is_available = staticmethod(die)")
    environ = stand_in_torch("import os\ndef die():\n    os.kill(os.getpid(), 11)\n" + crash)
    report = ask(System(environ), seconds=30)
    assert report.version == "2.13.0+cu130"
    assert report.failure == "killed by signal 11"
    assert "did not answer every question" in next(iter(look(patient(torch=report)))).what


def test_a_torch_that_hangs_is_ended_in_time(stand_in_torch: Make) -> None:
    environ = stand_in_torch("print('noise without an end', flush=True); import time; time.sleep(600)")
    began = time.monotonic()
    report = ask(System(environ), seconds=0.5)
    assert time.monotonic() - began < 3
    assert report.failure == "no answer in 0.5 s"


def test_files_of_the_current_folder_do_not_stand_for_torch(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pathlib import Path

    assert isinstance(tmp_path, Path)
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')", encoding="utf8")
    monkeypatch.chdir(tmp_path)
    assert ask(System(dict(os.environ)), seconds=60).failure is None


@pytest.mark.parametrize(
    ("architecture", "arch_list", "expected"),
    [
        ("sm_80", "sm_80 sm_90", True),
        ("sm_86", "sm_80 sm_90", True),  # the same major version
        ("sm_75", "sm_80 sm_90", False),
        ("sm_70", "sm_75 sm_80 compute_80", False),  # PTX does not run on older cards
        ("sm_120", "sm_80 sm_90", False),
        ("sm_120", "sm_80 sm_90 compute_90", True),  # translated when it is loaded
        ("sm_90", "sm_90a", True),
        ("sm_100", "sm_90a compute_90a", False),
        ("sm_121", "sm_120f", True),
        ("gfx942", "gfx90a gfx942", True),
        ("gfx90a:sramecc+:xnack-", "gfx90a", True),
        ("gfx1103", "gfx1100", False),
        ("Ascend910B3", "sm_80", True),  # not for us to judge
    ],
)
def test_code_runs_where_it_was_built_for(architecture: str, arch_list: str, expected: bool) -> None:
    assert fits(architecture, tuple(arch_list.split())) is expected


def test_a_healthy_gpu_box_has_one_good_finding(patient: MakePatient) -> None:
    (finding,) = look(patient(devices=(A100,), torch=GPU_TORCH))
    assert (finding.level, finding.what) == (Level.OK, "torch 2.13.0, built for CUDA 13.0, sees 1 device")


def test_without_torch_this_check_is_silent(patient: MakePatient) -> None:
    assert list(look(patient(devices=(A100,)))) == []


REASONS = {
    "CUDA initialization: Unexpected error ... Error 802: system not yet initialized": "fabric",
    "... Error 803: system has unsupported display driver / cuda driver combination": "another libcuda",
    "CUDA unknown error - this may be due to an incorrectly set up environment": "but not CUDA",
    "Found no NVIDIA driver on your system, or there is no NVIDIA driver": "no NVIDIA driver",
    "No CUDA GPUs are available": "sees no device",
    "The NVIDIA driver on your system is too old (found version 11040)": "older than the CUDA",
    "cudaErrorDevicesUnavailable: CUDA-capable device(s) is/are busy or unavailable, Error 46": "taken",
    "something new": "cannot use 1 x NVIDIA A100",
}


@pytest.mark.parametrize("why", REASONS)
def test_reasons_against_cuda_are_told_apart(why: str, patient: MakePatient) -> None:
    report = replace(GPU_TORCH, cuda_available=False, cuda_count=0, cuda_why_not=why)
    (finding,) = look(patient(devices=(A100,), torch=report))
    assert finding.level is Level.ERROR
    assert REASONS[why] in finding.what
    assert finding.evidence == why


def test_an_old_driver_is_named_with_what_is_needed(patient: MakePatient) -> None:
    version = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12\nGCC version: 12.2.0"
    report = replace(GPU_TORCH, cuda_available=False)
    made = patient(devices=(A100,), torch=report, files={"/proc/driver/nvidia/version": version})
    (finding,) = look(made)
    assert finding.what.startswith("driver 535.183.01 is too old for CUDA 13.0")
    assert "580" in (finding.evidence or "")


@pytest.mark.parametrize(("device", "wanted"), [(A100, "CUDA"), (MI300, "ROCm")])
def test_a_build_for_the_cpu_beside_cards_is_an_error(
    device: Device, wanted: str, patient: MakePatient
) -> None:
    (finding,) = look(patient(devices=(device, device), torch=CPU_TORCH))
    assert finding.level is Level.ERROR
    assert f"was not built for {wanted}: it cannot use 2 x {device.name}" in finding.what


def test_a_card_that_the_build_has_no_code_for_is_an_error(patient: MakePatient) -> None:
    old = replace(A100, name="Tesla V100", architecture="sm_70", supports_bf16=False)
    findings = list(look(patient(devices=(old,), torch=GPU_TORCH)))
    assert [one.level for one in findings] == [Level.ERROR, Level.NOTE]
    assert findings[0].what == "torch 2.13.0 has no code for Tesla V100 (sm_70)"
    assert "no bf16" in findings[1].what


def test_a_hidden_card_is_a_warning(patient: MakePatient) -> None:
    pair = (A100, replace(A100, index=1))
    (finding,) = look(patient(devices=pair, torch=GPU_TORCH))
    assert (finding.level, finding.what) == (Level.WARNING, "torch sees 1 of 2 x NVIDIA A100")


def test_an_intel_card_needs_its_own_build(patient: MakePatient) -> None:
    arc = Device(kind="xpu", index=0, name="Intel Arc B580", vendor="intel")
    (finding,) = look(patient(devices=(arc,), torch=replace(CPU_TORCH, xpu_available=False)))
    assert finding.level is Level.ERROR
    assert "xpu" in (finding.advice or "")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
FIELDS = st.sampled_from(
    ["version", "cuda", "hip", "arch_list", "cuda_available", "cuda_count", "companion", "failure", "x"]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.dictionaries(FIELDS, JSON, max_size=5)), st.text(max_size=50))
def test_whatever_the_process_prints_is_read_or_passed_over(
    answers: list[dict[str, object]], noise: str
) -> None:
    import json

    lines = [
        noise,
        *(f"{noise}{MARK}{json.dumps(answer)}" for answer in answers),
        MARK + noise,
        MARK + "[" * 5000,
    ]
    report = read("\n".join(lines))
    assert isinstance(report, TorchReport)
    assert all(isinstance(arch, str) for arch in report.arch_list)
