"""Intel cards by xpu-smi and by the kernel: shapes of the JSON, tables, tiles, links, readings."""

import json
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine.hardware import intel
from ftwiz.engine.hardware.intel import xpu_smi
from ftwiz.engine.hardware.pci import DEVICES

MIB, GIB = 1 << 20, 1 << 30
BUSES = ("0000:4d:00.0", "0000:9a:00.0")
LISTED = [
    {"device_id": number, "device_name": "Intel(R) Data Center GPU Max 1550", "pci_bdf_address": bus}
    for number, bus in enumerate(BUSES)
]


def in_full(number: int, *, tiles: int) -> str:
    more = {
        "memory_physical_size_byte": f"{128 * GIB}",
        "number_of_tiles": f"{tiles}",
        "pci_device_id": "0xbd5",
    }
    if tiles == 1:
        more["memory_free_size_byte"] = f"{100 * GIB}"
    return json.dumps({**LISTED[number], **more})


def stats(*, tiles: int) -> str:
    def metric(name: str, value: float) -> dict[str, Any]:
        return {"metrics_type": f"XPUM_STATS_{name}", "value": value, "avg": 3.0}

    device = [metric("POWER", 310.5), metric("GPU_UTILIZATION", 55.0), metric("MEMORY_USED", 2048.0)]
    levels = [
        {
            "tile_id": tile,
            "data_list": [metric("MEMORY_USED", 1024.0), metric("GPU_UTILIZATION", 50.0 + tile)],
        }
        for tile in range(tiles)
    ]
    return json.dumps({"device_id": 0, "device_level": device, "tile_level": levels})


def tool(*, tiles: int) -> dict[str, str]:
    processes = [
        {"device_id": 0, "process_id": 77, "process_name": "python", "mem_size": 5_000_000},
        {"device_id": 0, "process_id": 78, "process_name": "xpu-smi", "mem_size": 1},
    ]
    heads = "         GPU 0/0|GPU 0/1|GPU 1/0|GPU 1/1|CPU Affinity"
    rows = ("S |MDF|XL*|XL16|0-3", "MDF|S|XL16|XL*|0-3", "XL*|XL16|S|MDF|4-7", "XL16|XL*|MDF|S|4-7")
    names = ("0/0", "0/1", "1/0", "1/1")
    matrix = "\n".join([heads, *(f"GPU {name} |{row}" for name, row in zip(names, rows, strict=True))])
    return {
        "discovery -j": json.dumps({"device_list": LISTED}),
        "discovery -d 0": in_full(0, tiles=tiles),
        "discovery -d 1": in_full(1, tiles=tiles),
        "stats -d": stats(tiles=tiles),
        "ps -j": json.dumps({"device_util_by_proc_list": processes}),
        "topology -m": matrix,
    }


def said(corpus: Path, name: str) -> str:
    return (corpus / "hardware" / "intel" / name).read_text(encoding="utf8")


@pytest.mark.parametrize(
    "name", ["xpu-smi-discovery.json", "xpu-smi-discovery_table.txt", "xpu-smi-discovery-d0.txt"]
)
def test_the_guide_s_discoveries_are_read(corpus: Path, name: str) -> None:
    [card] = xpu_smi.parse_discovery(said(corpus, name))
    assert (card.number, card.bus_id, card.device_id) == (0, "0000:4d:00.0", 0x20A)
    assert card.name == "Intel(R) Graphics [0x020a]"
    is_full = "d0" in name
    assert card.total_bytes == (32768 * MIB if is_full else None)
    assert (card.num_tiles, card.pcie_generation, card.pcie_width) == (
        (2, 4, 16) if is_full else (None, None, None)
    )


def test_the_guide_s_statistics_are_read(corpus: Path) -> None:
    usage = xpu_smi.parse_stats(said(corpus, "xpu-smi-stats-d0.txt"))[None]
    assert (usage.utilization_percent, usage.used_bytes, usage.power_watts) == (0.0, 24 * MIB, 15.0)
    assert (usage.temperature_celsius, usage.clock_mhz) == (41.0, 2050.0)


def test_the_guide_s_matrix_is_read_and_other_tables_are_refused(corpus: Path) -> None:
    links = xpu_smi.parse_topology(said(corpus, "xpu-smi-topology-m.txt"))
    assert links[(0, 0), (0, 1)] == "MDF"
    assert links[(0, 0), (1, 1)] == "XL16"
    assert len(links) == 12
    for name in ("xpu-smi-topology-d0.txt", "xpu-smi-stats-d0.txt"):
        with pytest.raises(ValueError, match="no device"):
            xpu_smi.parse_discovery(said(corpus, name))


@pytest.mark.parametrize("root", [LISTED, {"device_list": LISTED}, {"devices": LISTED}])
def test_every_root_of_the_json_is_read(root: object) -> None:
    assert [card.bus_id for card in xpu_smi.parse_discovery(json.dumps(root))] == list(BUSES)


def test_whole_cards_are_devices_with_free_memory_and_processes(box: Any) -> None:
    system = box(tools={"xpu-smi": tool(tiles=1)})
    assert intel.is_present(system)
    found = intel.inventory(system)
    assert not found.problems
    first, second = found.devices
    assert (first.kind, first.vendor, first.index, first.source) == ("xpu", "intel", 0, "xpu-smi")
    assert (first.total_bytes, first.free_bytes) == (128 * GIB, 100 * GIB)
    assert (first.architecture, first.supports_bf16, first.partition) == ("pvc", True, None)
    assert [(process.pid, process.used_bytes) for process in first.processes] == [(77, 5_000_000_000)]
    assert second.processes == ()
    [reading, _] = intel.usage(system, found.devices)
    assert (reading.utilization_percent, reading.power_watts) == (55.0, 310.5)
    assert reading.memory_used_bytes == 2048 * MIB
    assert reading.pids == (77,)


def test_each_tile_of_a_card_is_a_device(box: Any) -> None:
    system = box(tools={"xpu-smi": tool(tiles=2)})
    devices = intel.inventory(system).devices
    assert [device.partition for device in devices] == ["tile 0", "tile 1"] * 2
    assert {device.total_bytes for device in devices} == {64 * GIB}
    assert {device.free_bytes for device in devices} == {64 * GIB - 1024 * MIB}
    assert [device.physical_index for device in devices] == [0, 1, 2, 3]
    readings = intel.usage(system, devices)
    assert [reading.utilization_percent for reading in readings] == [50.0, 51.0, 50.0, 51.0]
    assert {reading.power_watts for reading in readings} == {None}
    assert {link.kind for link in intel.links(system, devices)} == {"xelink"}


def test_a_masked_tile_keeps_its_place_on_the_card(box: Any) -> None:
    system = box(tools={"xpu-smi": tool(tiles=2)}, environ={"ZE_AFFINITY_MASK": "3,1"})
    devices = intel.inventory(system).devices
    assert [(device.index, device.physical_index, device.partition) for device in devices] == [
        (0, 1, "tile 1"),
        (1, 3, "tile 1"),
    ]


def kernel(card: str, bus: str, driver: str, more: dict[str, str]) -> dict[str, str]:
    folder = f"/sys/class/drm/{card}/device"
    files = {
        "vendor": "0x8086",
        "device": "0xe20b",
        "uevent": f"DRIVER={driver}\nPCI_SLOT_NAME={bus}\n",
        **more,
    }
    return {f"{folder}/{name}": text for name, text in files.items()}


def test_without_the_tool_the_kernel_gives_memory_and_sensors(box: Any) -> None:
    files = kernel("card1", "0000:03:00.0", "xe", {"tile0/physical_vram_size_bytes": f"{12 * GIB}\n"})
    files |= kernel("card0", "0000:00:02.0", "i915", {})
    hwmon = f"{DEVICES}/0000:03:00.0/hwmon/hwmon3"
    files |= {f"{hwmon}/temp2_input": "43000\n", f"{hwmon}/power1_max": "190000000\n"}
    system = box(files=files)
    assert intel.is_present(system)
    found = intel.inventory(system)
    [device] = found.devices
    assert (device.bus_id, device.total_bytes, device.free_bytes) == ("0000:03:00.0", 12 * GIB, None)
    assert (device.architecture, device.supports_bf16, device.source) == ("bmg", True, "sysfs")
    assert [problem.advice for problem in found.problems] == ["install xpu-smi"]
    [reading] = intel.usage(system, found.devices)
    assert (reading.temperature_celsius, reading.power_limit_watts) == (43.0, 190.0)
    assert reading.utilization_percent is None


def test_the_i915_driver_gives_the_memory_of_the_card(box: Any) -> None:
    files = kernel("card0", "0000:4d:00.0", "i915", {"device": "0x56c0"})
    files["/sys/class/drm/card0/lmem_total_bytes"] = f"{14 * GIB}\n"
    [device] = intel.inventory(box(files=files)).devices
    assert (device.total_bytes, device.architecture) == (14 * GIB, "dg2")


def test_graphics_inside_a_processor_are_no_device(box: Any) -> None:
    system = box(files=kernel("card0", "0000:00:02.0", "xe", {}))
    assert not intel.is_present(system)
    assert intel.inventory(system).devices == ()


@pytest.mark.parametrize(
    "text", ["", "{", "\x00\x01", "设备未找到", '{"device_list": []}', '{"error": "no"}']
)
def test_what_cannot_be_read_is_one_line_that_names_the_tool(box: Any, text: str) -> None:
    found = intel.inventory(box(tools={"xpu-smi": text}))
    assert not found.devices
    [problem] = found.problems
    assert problem.message.startswith("xpu-smi discovery: ")
    assert "\n" not in problem.message
