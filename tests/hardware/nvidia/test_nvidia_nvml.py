"""NVIDIA devices through the real pynvml binding, with a small libnvidia-ml of our own behind it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import Ask, environment

GIB, MIB = 2**30, 2**20


def uuid(position: int) -> str:
    return f"GPU-{position:08x}-0000-4000-8000-000000000000"


def known(noun: dict[str, Any]) -> dict[str, Any]:
    """Return what was read: without unknown values, empty lists and flags that are not set."""
    return {key: value for key, value in noun.items() if value not in (None, []) and value is not False}


def names(problems: list[dict[str, Any]]) -> list[str]:
    return [problem["message"] for problem in problems]


def test_a_card_is_read_whole_without_torch(ask: Ask) -> None:
    box = ask()
    assert len(box.devices) == len(box.readings) == 8
    assert not box.problems
    assert known(box.devices[1]) == {
        "kind": "cuda",
        "vendor": "nvidia",
        "index": 1,
        "physical_index": 1,
        "name": "Stub Card",
        "uuid": uuid(1),
        "bus_id": "00000000:F1:00.0",
        "total_bytes": 80 * GIB,
        "free_bytes": 78 * GIB - 512 * MIB,
        "reserved_bytes": 512 * MIB,
        "processes": [{"pid": 1001, "name": "/usr/bin/trainer 1001", "used_bytes": 2 * GIB}],
        "architecture": "sm_90",
        "supports_bf16": True,
        "supports_fp8": True,
        "supports_flash_attention_2": True,
        "supports_flash_attention_3": True,
        "numa_node": 0,
        "pcie_generation": 5,
        "pcie_width": 16,
        "source": "NVML",
    }
    assert known(box.readings[1]) == {
        "index": 1,
        "name": "Stub Card",
        "utilization_percent": 41.0,
        "memory_used_bytes": 2 * GIB,
        "memory_total_bytes": 80 * GIB,
        "temperature_celsius": 61.0,
        "power_watts": 250.5,
        "power_limit_watts": 700.0,
        "clock_mhz": 1755.0,
        "pids": [1001],
    }


def test_what_a_card_can_do_comes_from_its_compute_capability(ask: Ask) -> None:
    turing = ask().devices[0]
    assert turing["architecture"] == "sm_75"
    assert not any(turing[key] for key in turing if key.startswith("supports_"))


@pytest.mark.parametrize(
    ("call", "unknown"),
    [
        ("name", set()),
        ("uuid", {"uuid"}),
        (
            "memory",
            {"total_bytes", "free_bytes", "reserved_bytes", "memory_used_bytes", "memory_total_bytes"},
        ),
        (
            "capability",
            {
                "architecture",
                "supports_bf16",
                "supports_fp8",
                "supports_flash_attention_2",
                "supports_flash_attention_3",
            },
        ),
        ("address", {"bus_id"}),
        ("pcie", {"pcie_generation", "pcie_width"}),
        ("affinity", {"numa_node"}),
        ("processes", {"processes", "pids"}),
        ("rates", {"utilization_percent"}),
        ("temperature", {"temperature_celsius"}),
        ("power", {"power_watts"}),
        ("limit", {"power_limit_watts"}),
        ("clock", {"clock_mhz"}),
        ("mig", set()),
        ("reasons", set()),
    ],
)
@pytest.mark.skipif(os.uname().machine == "aarch64", reason="a silent driver means shared memory there")
def test_what_a_card_does_not_support_is_unknown_and_the_rest_stays(
    ask: Ask, call: str, unknown: set[str]
) -> None:
    every, failing = ask(STUB_CARDS="2"), ask(STUB_CARDS="2", STUB_FAIL=call)
    lost = [
        known(before).keys() - known(after).keys()
        for nouns, others in ((every.devices, failing.devices), (every.readings, failing.readings))
        for before, after in zip(nouns, others, strict=True)
    ]
    assert set().union(*lost) == unknown
    assert not failing.problems


def test_a_driver_of_older_calls_is_read_too(ask: Ask) -> None:
    new, old = ask(STUB_CARDS="2"), ask(STUB_CARDS="2", STUB_OLD="1")
    assert [known(device).keys() - {"reserved_bytes"} for device in new.devices] == [
        known(device).keys() for device in old.devices
    ]
    # that driver counts what it keeps for itself as used
    assert old.readings[1]["memory_used_bytes"] == new.readings[1]["memory_used_bytes"] + 512 * MIB
    assert old.readings[1]["pids"] == [1001]


def test_a_lost_card_stays_visible_and_does_not_take_the_others_along(ask: Ask) -> None:
    box = ask(STUB_LOST="3", STUB_LINKS="switch")
    assert len(box.devices) == 8
    assert known(box.devices[3]).keys() == {
        "kind", "vendor", "index", "physical_index", "name", "is_lost", "source",
    }  # fmt: skip
    assert known(box.readings[3]) == {"index": 3, "name": "NVIDIA device", "is_lost": True}
    assert box.readings[4]["utilization_percent"] == 44.0
    assert names(box.problems) == ["NVML card 3: the card is lost (code 15)"]
    assert "Xid" in box.problems[0]["advice"]
    assert not [link for link in box.links if 3 in (link["first"], link["second"])]
    assert len(box.links) == 21


@pytest.mark.parametrize("code", ["15", "999", "16"])
def test_a_card_whose_handle_is_refused_stays_visible_as_lost(ask: Ask, code: str) -> None:
    box = ask(STUB_CARDS="3", STUB_HANDLE=f"1:{code}")
    assert [device["is_lost"] for device in box.devices] == [False, True, False]
    assert names(box.problems)[0].startswith("NVML card 1: ")
    assert box.problems[0]["advice"]


@pytest.mark.parametrize("code", ["4", "23"])
def test_a_card_that_this_user_may_not_open_is_left_out_and_told(ask: Ask, code: str) -> None:
    box = ask(STUB_CARDS="3", STUB_HANDLE=f"1:{code}")
    assert [(device["index"], device["physical_index"]) for device in box.devices] == [(0, 0), (1, 2)]
    assert [reading["temperature_celsius"] for reading in box.readings] == [60.0, 62.0]
    assert f"(code {code})" in names(box.problems)[0]


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("12", "--gpus all"),
        ("9", "modprobe"),
        ("18", "reboot"),
        ("999", "daemon-reload"),
        ("15", "Xid"),
        ("3", "platform"),
        ("4", "/dev/nvidia"),
        ("23", "cgroup"),
    ],
)
def test_a_driver_that_does_not_start_means_no_devices_and_an_advice(ask: Ask, code: str, word: str) -> None:
    box = ask(STUB_INIT=code)
    assert not box.devices
    (problem,) = box.problems
    assert problem["source"] == "NVML"
    assert f"(code {code})" in problem["message"]
    assert word in problem["advice"]


def test_an_unheard_code_is_told_without_advice(ask: Ask) -> None:
    (problem,) = ask(STUB_INIT="77").problems
    assert problem == {"source": "NVML", "message": "NVML nvmlInit: it failed (code 77)", "advice": None}


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this box has the library")
def test_no_library_means_no_devices(ask: Ask, tmp_path: Path) -> None:
    assert not ask(FOLDER=str(tmp_path)).devices


def test_a_library_that_is_none_means_no_devices(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library", encoding="utf8")
    assert not ask(FOLDER=str(tmp_path)).devices


def test_slices_are_devices_with_their_own_memory_and_an_empty_slot_does_not_end_them(ask: Ask) -> None:
    box = ask(STUB_CARDS="3", STUB_MIG="1")
    told = [(device["physical_index"], device["partition"], device["partitioned"]) for device in box.devices]
    assert told == [
        (0, None, False),
        (1, "3g.40gb", False),
        (1, "1g.10gb", False),
        (1, "1g.10gb", False),
        (2, None, False),
        (1, None, True),
    ]
    piece = box.devices[1]
    assert piece["uuid"] == "MIG-00000001-0000-4000-8000-000000000000"
    assert (piece["name"], piece["total_bytes"], piece["free_bytes"]) == (
        "Stub Card", 40448 * MIB, 40416 * MIB,
    )  # fmt: skip
    assert piece["supports_bf16"]
    assert piece["pcie_generation"] == 5
    assert [process["pid"] for process in piece["processes"]] == [1001]
    assert not box.devices[2]["processes"]
    assert box.devices[5]["total_bytes"] == 80 * GIB


def test_of_a_slice_memory_is_its_own_and_heat_the_cards(ask: Ask) -> None:
    box = ask(STUB_CARDS="3", STUB_MIG="1")
    assert known(box.readings[1]) == {
        "index": 1,
        "name": "Stub Card",
        "memory_used_bytes": 32 * MIB,
        "memory_total_bytes": 40448 * MIB,
        "temperature_celsius": 61.0,
        "clock_mhz": 1755.0,
        "pids": [1001],
    }
    assert box.readings[5]["power_watts"] == 250.5


def test_a_slice_that_is_not_named_is_named_by_its_attributes(ask: Ask) -> None:
    box = ask(STUB_CARDS="1", STUB_MIG="0", STUB_OLD="1")
    assert [device["partition"] for device in box.devices] == ["1c.3g.40gb", "1g.10gb", "1g.10gb", None]


def test_mig_mode_without_slices_is_told(ask: Ask) -> None:
    box = ask(STUB_CARDS="1", STUB_MIG="0", STUB_SLOTS="0")
    assert [device["partitioned"] for device in box.devices] == [True]
    assert "no slice" in names(box.problems)[0]
    assert "nvidia-smi mig" in box.problems[0]["advice"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("MIG-00000001-0000-4000-8000-000000000002", [2]),
        (f"MIG-{uuid(1)}/4/0", [3]),
        ("MIG-00000001-0000-4000-8000-000000000003,MIG-00000001-0000-4000-8000-000000000002", [3]),
        ("MIG-none", []),
        ("1", [0]),
        ("0,1", [0]),
        ("0", [None]),
        (uuid(2), [None]),
    ],
)
def test_of_slices_cuda_shows_one(ask: Ask, value: str, shown: list[int | None]) -> None:
    box = ask(STUB_CARDS="3", STUB_MIG="1", CUDA_VISIBLE_DEVICES=value)
    slots = [int(device["uuid"][-1]) if device["partition"] else None for device in box.devices]
    assert slots == shown


@pytest.mark.parametrize("settings", [{"STUB_FAIL": "memory"}, {"STUB_MEMORY": "zero"}, {}])
def test_a_board_that_shares_its_memory_with_the_host_has_the_hosts(
    ask: Ask, settings: dict[str, str]
) -> None:
    box = ask(STUB_CARDS="1", STUB_NAME="NVIDIA GB10", **settings)
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    total = int(next(line.split()[1] for line in lines if line.startswith("MemTotal")))
    (device,) = box.devices
    assert device["unified_memory"]
    assert device["total_bytes"] == total * 1024
    assert 0 < device["free_bytes"] < device["total_bytes"]
    assert "share" in device["note"]
    # idle card, busy host: the host's programs are not the card's
    assert box.readings[0]["memory_used_bytes"] == 1 * GIB
    assert box.readings[0]["memory_total_bytes"] == total * 1024


def test_a_superchip_keeps_its_own_memory_and_says_what_is_unusual(ask: Ask) -> None:
    (device,) = ask(STUB_CARDS="1", STUB_NAME="NVIDIA GH200 480GB", STUB_ATS="1").devices
    assert not device["unified_memory"]
    assert device["total_bytes"] == 80 * GIB
    assert "NUMA" in device["note"]


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        (0x00, []),
        (0x01, []),
        (0x04, ["power"]),
        (0x28, ["heat", "hardware"]),
        (0x48, ["heat"]),
        (0x88, ["power"]),
    ],
)
def test_a_clock_that_is_held_back_says_why(ask: Ask, bits: int, words: list[str]) -> None:
    box = ask(STUB_CARDS="1", STUB_REASONS=str(bits))
    assert box.readings[0]["throttle_reasons"] == words


def test_cards_behind_an_nvswitch_are_all_linked(ask: Ask) -> None:
    links = ask(STUB_LINKS="switch").links
    assert len(links) == 28
    assert {(link["kind"], link["count"], link["peer_access"]) for link in links} == {("nvlink", 17, True)}


def test_direct_nvlinks_are_counted_per_pair(ask: Ask) -> None:
    links = ask(STUB_CARDS="4", STUB_LINKS="mesh").links
    assert {(link["first"], link["second"]) for link in links} == {
        (0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3),
    }  # fmt: skip
    assert {(link["kind"], link["count"]) for link in links} == {("nvlink", 2)}


@pytest.mark.parametrize(("status", "access"), [("0", True), ("2", False), ("6", None)])
def test_without_nvlink_the_common_ancestor_counts_and_peer_access_is_told(
    ask: Ask, status: str, access: bool | None
) -> None:
    links = ask(STUB_PEERS=status, CUDA_VISIBLE_DEVICES="5,4,6,0").links
    assert [(link["first"], link["second"], link["kind"]) for link in links] == [
        (0, 1, "pix"),
        (0, 2, "phb"),
        (0, 3, "sys"),
        (1, 2, "phb"),
        (1, 3, "sys"),
        (2, 3, "sys"),
    ]
    assert {link["peer_access"] for link in links} == {access}


def test_a_process_that_the_driver_cannot_name_is_named_by_the_kernel(ask: Ask) -> None:
    (device,) = ask(STUB_CARDS="1", STUB_PIDS=str(os.getpid())).devices
    (process,) = device["processes"]
    assert process["pid"] == os.getpid()
    assert process["name"] == Path("/proc/self/comm").read_text(encoding="utf8").strip()


def test_hidden_devices_are_not_listed_and_indices_are_those_that_torch_uses(ask: Ask) -> None:
    box = ask(STUB_CARDS="4", CUDA_VISIBLE_DEVICES="3,1")
    assert [(device["index"], device["physical_index"]) for device in box.devices] == [(0, 3), (1, 1)]
    assert [reading["temperature_celsius"] for reading in box.readings] == [63.0, 61.0]
    assert not box.problems


def test_entries_that_cuda_ignores_are_told(ask: Ask) -> None:
    box = ask(STUB_CARDS="4", CUDA_VISIBLE_DEVICES="0,9,1")
    assert names(box.problems) == ["CUDA_VISIBLE_DEVICES=0,9,1: CUDA shows 1 of its 3 entries"]


@pytest.mark.parametrize(
    ("settings", "is_told"),
    [({}, True), ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, False), ({"CUDA_VISIBLE_DEVICES": uuid(1)}, False)],
)
def test_numbers_of_different_cards_may_mean_others_to_cuda(
    ask: Ask, settings: dict[str, str], is_told: bool
) -> None:
    box = ask(STUB_CARDS="2", STUB_MIXED="1", **settings)
    assert [problem["source"] for problem in box.problems] == ["CUDA_DEVICE_ORDER"] * is_told


SAMPLE = """
import time
from ftwiz.engine.hardware import nvidia
from ftwiz.engine.hardware.system import System
system = System()
devices = nvidia.inventory(system).devices
assert len(nvidia.usage(system, devices)) == 8
start = time.process_time()
for _ in range(50):
    nvidia.usage(system, devices)
print((time.process_time() - start) / 50)
"""


def test_eight_cards_are_sampled_for_less_than_a_hundredth_of_a_core(stub: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SAMPLE],
        env=environment({"LD_LIBRARY_PATH": str(stub)}),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert float(done.stdout) < 0.01
