"""AMD's tools on PATH: both shapes of amd-smi, its failures, and links."""

import json
from typing import Any

import pytest

from ftwiz.engine.hardware import amd
from ftwiz.engine.hardware.amd import amd_smi

MIB = 1 << 20
BUSES = ("0000:05:00.0", "0000:26:00.0")


def static(bus_id: str, number: int) -> dict[str, Any]:
    return {
        "gpu": number,
        "asic": {
            "market_name": "AMD Instinct MI300X",
            "device_id": "0x74a1",
            "asic_serial": f"0x{0xAF + number:016X}",
            "target_graphics_version": "gfx942",
        },
        "bus": {"bdf": bus_id, "max_pcie_width": 16, "pcie_interface_version": "Gen 5"},
        "vram": {"type": "HBM3", "size": {"value": 196592, "unit": "MB"}},
        "limit": {"ppt0": {"socket_power_limit": {"value": 750, "unit": "W"}}},
    }


def metric(number: int) -> dict[str, Any]:
    return {
        "gpu": number,
        "usage": {"gfx_activity": {"value": 72, "unit": "%"}},
        "mem_usage": {
            "total_vram": {"value": 196592, "unit": "MB"},
            "used_vram": {"value": 1024, "unit": "MB"},
        },
        "temperature": {"edge": "N/A", "hotspot": {"value": 61, "unit": "C"}},
        "power": {"socket_power": {"value": 542, "unit": "W"}},
        "clock": {"gfx_0": {"clk": {"value": 2100, "unit": "MHz"}}},
    }


PROCESSES = [
    {
        "gpu": 0,
        "process_list": [
            {
                "process_info": {
                    "name": "python3",
                    "pid": 42,
                    "memory_usage": {"vram_mem": {"value": 7, "unit": "MB"}},
                }
            }
        ],
    },
    {"gpu": 1, "process_list": [{"process_info": "No running processes detected"}]},
]
TOPOLOGY = [
    {"gpu": place, "bdf": bus, "links": [{"gpu": 1 - place, "bdf": BUSES[1 - place], "link_type": "XGMI"}]}
    for place, bus in enumerate(BUSES)
]


def tool(*, is_wrapped: bool) -> dict[str, str]:
    cards = [static(bus, place) for place, bus in enumerate(BUSES)]
    metrics = [metric(place) for place in range(2)]

    def shaped(value: list[dict[str, Any]]) -> str:
        return json.dumps({"gpu_data": value} if is_wrapped else value, indent=4)

    warning = "WARNING: run with root for more [see -h]\n"
    return {
        "static": warning + shaped(cards),
        "metric": shaped(metrics),
        "process": json.dumps(PROCESSES),
        "topology": json.dumps(TOPOLOGY),
    }


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_amd_smi_of_rocm_6_and_of_7_give_the_same_devices(box: Any, is_wrapped: bool) -> None:
    system = box(tools={"amd-smi": tool(is_wrapped=is_wrapped)})
    found = amd.inventory(system)
    assert not found.problems
    first, second = found.devices
    assert (first.name, first.bus_id, first.architecture) == ("AMD Instinct MI300X", BUSES[0], "gfx942")
    assert (first.total_bytes, first.free_bytes) == (196592 * MIB, (196592 - 1024) * MIB)
    assert [process.pid for process in first.processes] == [42]
    assert (second.uuid, second.processes) == ("GPU-00000000000000b0", ())
    readings = amd.usage(system, found.devices)
    assert [reading.utilization_percent for reading in readings] == [72.0, 72.0]
    assert (readings[0].temperature_celsius, readings[0].power_watts) == (61.0, 542.0)
    assert readings[0].clock_mhz == 2100.0
    assert [(link.first, link.second, link.kind) for link in amd.links(system, found.devices)] == [
        (0, 1, "xgmi")
    ]


def test_elements_of_different_shape_are_read_each_for_itself() -> None:
    """In DPX mode the second half of a card lacks most of what the first has."""
    cards = amd_smi.parse_cards(json.dumps([static(BUSES[0], 0), {"gpu": 1, "asic": "N/A", "vram": None}]))
    assert [card.total_bytes for card in cards] == [196592 * MIB, None]


def test_the_link_types_of_rocm_6_0_go_by_number() -> None:
    entries = [
        {"gpu": p, "bdf": bus, "link_type": {"gpu_0": "XGMI", "gpu_1": "PCIE"}} for p, bus in enumerate(BUSES)
    ]
    links = amd_smi.parse_topology(json.dumps(entries))
    assert links == {(BUSES[0], BUSES[1]): "PCIE", (BUSES[1], BUSES[0]): "XGMI"}


def test_the_link_table_of_the_text_form_is_read() -> None:
    row = f"{'':13}{BUSES[0]} {BUSES[1]}\n"
    table = f"{BUSES[0]} SELF XGMI\n{BUSES[1]} XGMI SELF\n"
    text = f"ACCESS TABLE:\n{row}{BUSES[0]} ENABLED ENABLED\n\nLINK TYPE TABLE:\n{row}{table}"
    assert amd_smi.parse_topology(text) == {(BUSES[0], BUSES[1]): "XGMI", (BUSES[1], BUSES[0]): "XGMI"}


def test_a_tool_that_fails_is_named_and_the_next_one_is_asked(box: Any) -> None:
    cards = json.dumps({"card0": {"VRAM Total Memory (B)": "17163091968", "PCI Bus": "0000:03:00.0"}})
    found = amd.inventory(box(tools={"amd-smi": {"version": ""}, "rocm-smi": cards}))
    assert [device.source for device in found.devices] == ["rocm-smi"]
    assert [problem.message for problem in found.problems] == [
        "amd-smi static: exit code 2: unknown: static --json"
    ]


@pytest.mark.parametrize("said", ["", "[", "\x00\xff" * 300, "显卡不存在", '{"gpu_data": []}', "[" * 5000])
def test_what_cannot_be_read_is_one_line_that_names_the_tool(box: Any, said: str) -> None:
    found = amd.inventory(box(tools={"amd-smi": said}))
    assert not found.devices
    [problem] = found.problems
    assert problem.source == "amd-smi"
    assert "\n" not in problem.message


def test_the_kernel_s_devices_take_their_names_from_amd_smi(box: Any, kfd_nodes: Any) -> None:
    system = box(
        tools={"amd-smi": tool(is_wrapped=True)},
        files=kfd_nodes([(90402, 0x2600, 1 << 36), (90402, 0x0500, 1 << 36)]),
    )
    devices = amd.inventory(system).devices
    assert [(device.bus_id, device.physical_index) for device in devices] == [(BUSES[1], 0), (BUSES[0], 1)]
    assert {device.name for device in devices} == {"AMD Instinct MI300X"}
    assert {device.total_bytes for device in devices} == {1 << 36}
    assert {device.source for device in devices} == {"KFD, amd-smi"}
