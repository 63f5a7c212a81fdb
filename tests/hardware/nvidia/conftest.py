"""A box with NVIDIA cards: our own libnvidia-ml behind the real binding, or a tool that replays a text."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest

from ftwiz.engine.hardware.system import System

ASK = """
import dataclasses, json, sys
from ftwiz.engine.hardware import nvidia
from ftwiz.engine.hardware.system import System
system = System()
found = nvidia.inventory(system) if nvidia.is_present(system) else nvidia.Found()
devices = found.devices
nouns = (devices, nvidia.usage(system, devices), nvidia.links(system, devices), found.problems)
assert not {"torch", "transformers"} & sys.modules.keys()
print(json.dumps([[dataclasses.asdict(noun) for noun in some] for some in nouns]))
"""
Nouns = list[dict[str, Any]]


class Box:
    """What a fresh process reads."""

    def __init__(self, devices: Nouns, readings: Nouns, links: Nouns, problems: Nouns) -> None:
        self.devices = devices
        self.readings = readings
        self.links = links
        self.problems = problems


class Ask(Protocol):
    """``ask(STUB_LOST="0")``: a fresh process's reading of the stub under these settings."""

    def __call__(self, **settings: str) -> Box:
        """Return what it reads; ``FOLDER`` replaces the stub's folder."""


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without anything that hides devices."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    return kept | {"PYTHONDONTWRITEBYTECODE": "1"} | dict(settings)


@pytest.fixture(scope="session")
def stub(tmp_path_factory: pytest.TempPathFactory, require: Callable[[bool, str], None]) -> Path:
    """Folder that holds the compiled library."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    require(compiler is not None, "no C compiler, so no library to stand behind pynvml")
    folder = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).with_name("nvml_stub.c")
    library = folder / "libnvidia-ml.so.1"
    subprocess.run(
        [str(compiler), "-shared", "-fPIC", "-Wall", "-o", library, source], check=True, timeout=60
    )
    return folder


@pytest.fixture
def ask(stub: Path) -> Ask:
    """Read the stub in a fresh process: the binding loads a library once."""

    def read(**settings: str) -> Box:
        folder = settings.pop("FOLDER", str(stub))
        done = subprocess.run(
            [sys.executable, "-c", ASK],
            env=environment({"LD_LIBRARY_PATH": folder} | settings),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return Box(*json.loads(done.stdout))

    return read


@pytest.fixture
def replay(tmp_path: Path) -> Callable[..., System]:
    """``replay({"-q -x": text}, code=0)``: a system whose nvidia-smi prints these texts."""

    def build(said: Mapping[str, str | bytes], *, code: int = 0, tail: str = "", **environ: str) -> System:
        folder = tmp_path / "tools"
        folder.mkdir(exist_ok=True)
        cases = []
        for number, (arguments, text) in enumerate(said.items()):
            file = folder / f"said-{number}"
            file.write_bytes(text if isinstance(text, bytes) else text.encode())
            cases.append(f"'{arguments}') cat '{file}'; exit {code};;")
        tool = folder / "nvidia-smi"
        tool.write_text(
            f'#!/bin/sh\n{tail}\ncase "$*" in\n{chr(10).join(cases)}\nesac\nexit 1\n', encoding="utf8"
        )
        tool.chmod(0o755)
        root = tmp_path / "root"
        root.mkdir(exist_ok=True)
        return System({"PATH": f"{folder}:{os.environ['PATH']}", **environ}, root)

    return build
