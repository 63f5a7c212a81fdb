"""Two tools that others wrote read the same library as we do, and read the same."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import Ask, environment

NVITOP = """
import json
from nvitop import Device
def describe(device):
    memory = device.memory_info()
    return {
        "name": device.name(), "uuid": device.uuid(), "bus_id": device.bus_id(), "total_bytes": memory.total,
        "free_bytes": memory.free, "reserved_bytes": memory.reserved, "memory_used_bytes": memory.used,
        "utilization_percent": device.gpu_utilization(), "temperature_celsius": device.temperature(),
        "power_watts": device.power_usage() / 1000, "power_limit_watts": device.power_limit() / 1000,
        "clock_mhz": device.sm_clock(), "architecture": "sm_%d%d" % device.cuda_compute_capability(),
        "pids": sorted(device.processes()),
    }
print(json.dumps([describe(device) for device in Device.all()]))
"""
GPUSTAT = """
import json, gpustat
print(json.dumps([gpu.jsonify() for gpu in gpustat.new_query().gpus]))
"""
MIB = 2**20


def read(stub: Path, source: str, **settings: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", source],
        env=environment({"LD_LIBRARY_PATH": str(stub), "TERM": "dumb"} | settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture
def settings() -> dict[str, str]:
    """Both tools look at the processes: they must live."""
    return {"STUB_PIDS": ",".join([str(os.getpid())] * 8), "STUB_REASONS": "4"}


def test_nvitop_reads_the_stub_as_we_do(ask: Ask, stub: Path, settings: dict[str, str]) -> None:
    box = ask(**settings)
    ours = [reading | device for device, reading in zip(box.devices, box.readings, strict=True)]
    theirs = read(stub, NVITOP, **settings)
    assert len(theirs) == 8
    assert [{key: card[key] for key in theirs[0]} for card in ours] == theirs


def test_gpustat_reads_the_stub_as_we_do(ask: Ask, stub: Path, settings: dict[str, str]) -> None:
    box = ask(**settings)
    told = [
        {
            "index": device["physical_index"],
            "uuid": device["uuid"],
            "name": device["name"],
            "temperature.gpu": reading["temperature_celsius"],
            "utilization.gpu": reading["utilization_percent"],
            "power.draw": int(reading["power_watts"]),
            "enforced.power.limit": reading["power_limit_watts"],
            "memory.used": reading["memory_used_bytes"] // MIB,
            "memory.total": reading["memory_total_bytes"] // MIB,
            "processes": [(one["pid"], one["used_bytes"] // MIB) for one in device["processes"]],
        }
        for device, reading in zip(box.devices, box.readings, strict=True)
    ]
    theirs = read(stub, GPUSTAT, **settings)
    for card in theirs:
        card["processes"] = [(one["pid"], one["gpu_memory_usage"]) for one in card["processes"]]
    assert [{key: card[key] for key in told[0]} for card in theirs] == told
