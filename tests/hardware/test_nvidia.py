"""NVIDIA devices through the real pynvml binding, with a small libnvidia-ml of our own behind it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine.hardware.nvidia import visible

GIB = 2**30
ASK = """
import dataclasses, json, sys
from ftwiz.engine.hardware import detect, sample
machine = detect()
readings = sample(machine)
assert not {"torch", "transformers"} & sys.modules.keys()
print(json.dumps([[dataclasses.asdict(noun) for noun in nouns] for nouns in (machine.devices, readings)]))
"""
Answer = tuple[list[dict[str, Any]], list[dict[str, Any]]]


@pytest.fixture(scope="module")
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


def ask(stub: Path, **settings: str) -> Answer:
    """Return devices and readings of a fresh process under these settings."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        env=kept | {"LD_LIBRARY_PATH": str(stub)} | settings,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    devices, readings = json.loads(done.stdout)
    return devices, readings


def known(noun: dict[str, Any]) -> dict[str, Any]:
    """Return what was read: without unknown values, empty lists and flags that are not set."""
    return {key: value for key, value in noun.items() if value not in (None, []) and value is not False}


def test_cards_are_read_without_torch(stub: Path) -> None:
    devices, readings = ask(stub)
    assert known(devices[1]) == {
        "kind": "cuda",
        "vendor": "nvidia",
        "index": 1,
        "name": "Stub Card 1",
        "uuid": "GPU-00000001-stub",
        "total_bytes": 24 * GIB,
        "free_bytes": 22 * GIB,
        "supports_bf16": True,
    }
    assert known(readings[1]) == {
        "index": 1,
        "name": "Stub Card 1",
        "utilization_percent": 41.0,
        "memory_used_bytes": 2 * GIB,
        "memory_total_bytes": 24 * GIB,
        "temperature_celsius": 61.0,
        "power_watts": 250.5,
    }


def test_bf16_comes_with_compute_capability_eight(stub: Path) -> None:
    devices, _ = ask(stub)
    assert [device["supports_bf16"] for device in devices] == [False, True]


@pytest.mark.parametrize(
    ("call", "unknown"),
    [
        ("name", set()),
        ("uuid", {"uuid"}),
        ("memory", {"total_bytes", "free_bytes", "memory_used_bytes", "memory_total_bytes"}),
        ("capability", {"supports_bf16"}),
        ("rates", {"utilization_percent"}),
        ("temperature", {"temperature_celsius"}),
        ("power", {"power_watts"}),
    ],
)
def test_what_a_card_does_not_support_is_unknown_and_the_rest_stays(
    stub: Path, call: str, unknown: set[str]
) -> None:
    every, failing = ask(stub), ask(stub, STUB_FAIL=call)
    lost = [
        known(before).keys() - known(after).keys()
        for nouns, others in zip(every, failing, strict=True)
        for before, after in zip(nouns, others, strict=True)
    ]
    assert set().union(*lost) == unknown
    devices, readings = failing
    assert len(devices) == len(readings) == 2


def test_a_lost_card_stays_visible_and_does_not_take_the_others_along(stub: Path) -> None:
    devices, readings = ask(stub, STUB_LOST="0")
    assert devices[0]["name"] == "NVIDIA device"
    assert known(readings[0]).keys() == {"index", "name"}
    assert readings[1]["utilization_percent"] == 41.0


@pytest.mark.parametrize("code", ["9", "12", "18", "999"])
def test_a_driver_that_does_not_start_means_no_devices(stub: Path, code: str) -> None:
    assert ask(stub, STUB_INIT=code) == ([], [])


def test_no_library_means_no_devices(tmp_path: Path) -> None:
    assert ask(tmp_path) == ([], [])


def test_a_library_that_is_none_means_no_devices(tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library", encoding="utf8")
    assert ask(tmp_path) == ([], [])


def test_hidden_devices_are_not_listed_and_indices_are_those_that_torch_uses(stub: Path) -> None:
    devices, readings = ask(stub, STUB_CARDS="4", CUDA_VISIBLE_DEVICES="3,GPU-00000001")
    assert [(device["index"], device["name"]) for device in devices] == [
        (0, "Stub Card 3"),
        (1, "Stub Card 1"),
    ]
    assert [reading["temperature_celsius"] for reading in readings] == [63.0, 61.0]


@pytest.mark.parametrize(
    ("value", "chosen"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("0", [0]),
        (" 2 , 0 ", [2, 0]),
        ("0,7,1", [0]),
        ("0,-1,1", [0]),
        ("1,1", []),
        ("GPU-aa", [0]),
        ("GPU-ab,GPU-b", [2, 1]),
        ("GPU-a", []),
        ("1,GPU-none,0", [1]),
        ("none", []),
        ("NoDevFiles", []),
        ("MIG-aa11", []),
    ],
)
def test_visible_devices_are_picked_as_the_cuda_runtime_does(value: str | None, chosen: list[int]) -> None:
    assert visible(value, ["GPU-aa11", "GPU-bb22", "GPU-ab33"]) == chosen
