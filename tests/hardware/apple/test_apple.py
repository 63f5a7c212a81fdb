"""Apple silicon by macOS's tools, replayed from synthetic outputs in their documented form."""

import json
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftwiz.engine.hardware import apple

EXAMPLES = int(os.environ.get("FTWIZ_FUZZ", "150"))
MIB, GIB = 1 << 20, 1 << 30
PROFILE = json.dumps(
    {
        "SPDisplaysDataType": [
            {"_name": "kHW_AppleM1ProItem", "sppci_model": "Apple M1 Pro", "sppci_cores": "16"}
        ]
    }
)
VM_STAT = (
    "Mach Virtual Memory Statistics: (page size of 16384 bytes)\n"
    'Pages free:                               65536.\n"Translation faults":                 12345678.\n'
    "Pages active:                            400000.\nPages inactive:                          524288.\n"
    "Pages speculative:                        65536.\nPages purgeable:                              0.\n"
)
IOREG = '+-o AGX\n | "PerformanceStatistics" = {"Device Utilization %"=37, "In use system memory"=1048576}\n'


def tools(chip: str = "Apple M1 Pro", gibibytes: int = 32, wired: int = 0) -> dict[str, Any]:
    facts = f"machdep.cpu.brand_string: {chip}\nhw.memsize: {gibibytes * GIB}\nhw.optional.arm64: 1\n"
    return {
        "sysctl": {"machdep": facts, "iogpu": f"iogpu.wired_limit_mb: {wired}\n"},
        "system_profiler": PROFILE,
        "vm_stat": VM_STAT,
        "ioreg": IOREG,
    }


def test_the_device_shares_memory_and_is_free_up_to_metal_s_limit_or_what_the_host_has(box: Any) -> None:
    system = box(tools=tools())
    assert apple.is_present(system)
    found = apple.inventory(system)
    assert not found.problems
    [device] = found.devices
    assert (device.kind, device.vendor, device.name) == ("mps", "apple", "Apple M1 Pro")
    assert device.unified_memory
    assert (device.total_bytes, device.free_bytes) == (32 * GIB, 10 * GIB)
    assert device.note == "shares the host's memory; Metal gives it about 21845 MiB"
    assert device.supports_bf16 is False
    assert apple.links(system, found.devices) == ()


def test_a_limit_of_the_user_wins(box: Any) -> None:
    [device] = apple.inventory(box(tools=tools("Apple M3 Max", 64, wired=4096))).devices
    assert device.free_bytes == 4096 * MIB
    assert device.supports_bf16 is None


@pytest.mark.parametrize(("gibibytes", "mebibytes"), [(24, 16384), (32, 21845), (64, 49152), (128, 98304)])
def test_the_recommended_limit_is_the_published_one(gibibytes: int, mebibytes: int) -> None:
    assert apple.recommended_bytes(gibibytes * GIB) // MIB == mebibytes


def test_load_and_memory_are_read_from_the_accelerator(box: Any) -> None:
    system = box(tools=tools())
    [reading] = apple.usage(system, apple.inventory(system).devices)
    assert (reading.utilization_percent, reading.memory_used_bytes) == (37.0, 1 << 20)
    assert (reading.power_watts, reading.temperature_celsius) == (None, None)


def test_a_mac_with_an_intel_processor_has_no_device(box: Any) -> None:
    facts = "machdep.cpu.brand_string: Intel(R) Core(TM) i9\nhw.memsize: 34359738368\n"
    system = box(tools={"sysctl": facts, "system_profiler": PROFILE})
    assert apple.inventory(system).devices == ()


def test_other_systems_are_not_present(box: Any) -> None:
    assert not apple.is_present(box(tools={"sysctl": "kernel.x = 1\n"}))


def test_a_tool_that_is_missing_is_named_and_costs_only_its_figures(box: Any) -> None:
    less = tools()
    del less["vm_stat"]
    found = apple.inventory(box(tools=less))
    [device] = found.devices
    assert (device.total_bytes, device.free_bytes) == (32 * GIB, None)
    assert [problem.message for problem in found.problems] == ["vm_stat: not found"]


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.sampled_from([PROFILE, VM_STAT, IOREG, "hw.memsize: 1"]), st.integers(0, 300), st.text(max_size=40))
def test_the_parsers_read_or_pass_over_whatever_they_get(text: str, place: int, more: str) -> None:
    output = text[:place] + more + text[place + len(more) :]
    assert all(isinstance(value, str) for value in apple.parse_sysctl(output).values())
    assert apple.parse_profile(output) is None or apple.parse_profile(output)
    free = apple.parse_vm_stat(output)
    assert free is None or free >= 0
