"""Patients to examine: real files, real processes, and values for what no test machine has."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import pytest

from ftwiz.engine.doctor import Patient
from ftwiz.engine.doctor.patient import Awaited
from ftwiz.engine.doctor.torch_report import TorchReport
from ftwiz.engine.hardware.system import System
from ftwiz.engine.specs.machine import Device, Host, Machine

ROOT = Path(__file__).resolve().parent.parent.parent
HOST = Host(name="box", num_cpus=64, total_bytes=512 << 30, available_bytes=400 << 30)
GPU_TORCH = TorchReport(
    version="2.13.0",
    cuda="13.0",
    arch_list=("sm_80", "sm_90", "compute_90"),
    cuda_available=True,
    cuda_count=1,
    driver_cuda=13000,
)


class MakePatient(Protocol):
    """``patient(devices=(gpu(),), torch=...)``: what is not given is healthy and quiet."""

    def __call__(
        self,
        *,
        devices: tuple[Device, ...] = (),
        machine: Machine | None = None,
        torch: TorchReport | None = None,
        environ: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
        versions: Mapping[str, str] | None = None,
        runs: Path | None = None,
    ) -> Patient:
        """Return a patient whose ``/`` is a folder of the test."""


@pytest.fixture
def patient(tmp_path: Path) -> MakePatient:
    root = tmp_path / "root"
    root.mkdir()

    def make(
        *,
        devices: tuple[Device, ...] = (),
        machine: Machine | None = None,
        torch: TorchReport | None = None,
        environ: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
        versions: Mapping[str, str] | None = None,
        runs: Path | None = None,
    ) -> Patient:
        for name, text in (files or {}).items():
            path = root / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf8")
        box = machine or Machine(host=HOST, devices=devices)
        report = torch or TorchReport(is_installed=False)
        return Patient(
            system=System({"PATH": "", "HOME": str(tmp_path)} | dict(environ or {}), root),
            machine_answer=Awaited(lambda: box, seconds=5),
            torch_answer=Awaited(lambda: report, seconds=5),
            versions=versions or {},
            runs=runs or tmp_path / "runs",
        )

    return make


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str, str], Path]:
    """``program("gcc", "echo 12.2.0")``: a real executable; returns the folder for PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def make(name: str, script: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf8")
        path.chmod(0o755)
        return folder

    return make


@pytest.fixture
def stand_in_torch(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """``stand_in_torch("raise ImportError('x')")``: a package torch of that code; returns its environment."""

    def make(code: str) -> dict[str, str]:
        folder = tmp_path / "stand-in" / "torch"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(code, encoding="utf8")
        return {"PATH": os.environ["PATH"], "PYTHONPATH": str(folder.parent), "HOME": str(tmp_path)}

    return make


HEAVY = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy", "pandas", "pyarrow")


@pytest.fixture(scope="session")
def python_without_torch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with this checkout and everything that is installed here but the training stack."""
    folder = tmp_path_factory.mktemp("light")
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True, timeout=60
    )
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    installed = Path(pytest.__file__).parent.parent
    for entry in installed.iterdir():
        name = entry.name.lower()
        if not name.startswith(HEAVY) and entry.suffix != ".pth" and not (site / entry.name).exists():
            (site / entry.name).symlink_to(entry)
    (site / "checkout.pth").write_text(f"{ROOT}\n", encoding="utf8")
    return folder / "venv" / "bin" / "python"


@pytest.fixture(scope="session")
def stub_driver(tmp_path_factory: pytest.TempPathFactory, require: Callable[[bool, str], None]) -> Path:
    """Folder with a libnvidia-ml.so.1 of our own, which answers as STUB_ variables tell it."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    require(compiler is not None, "no C compiler")
    folder = tmp_path_factory.mktemp("driver")
    source = ROOT / "tests" / "hardware" / "nvidia" / "nvml_stub.c"
    target = folder / "libnvidia-ml.so.1"
    command = [compiler or "cc", "-shared", "-fPIC", "-o", str(target), str(source)]
    subprocess.run(command, check=True, timeout=60)
    return folder
