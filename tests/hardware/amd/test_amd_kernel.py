"""The kernel's topology: order, slices, halves of a card, processors with graphics, links, processes."""

from dataclasses import replace
from typing import Any

import pytest

from ftwiz.engine.hardware import amd
from ftwiz.engine.hardware.amd import facts
from ftwiz.engine.hardware.pci import DEVICES

GIB = 1 << 30
MI300X = 196592 << 20


def sensors(bus_id: str, used: int, total: int = MI300X) -> dict[str, str]:
    folder = f"{DEVICES}/{bus_id}"
    return {
        f"{folder}/mem_info_vram_total": f"{total}\n",
        f"{folder}/mem_info_vram_used": f"{used}\n",
        f"{folder}/gpu_busy_percent": "97\n",
        f"{folder}/numa_node": "1\n",
        f"{folder}/max_link_speed": "32.0 GT/s PCIe\n",
        f"{folder}/max_link_width": "16\n",
        f"{folder}/revision": "0x00\n",
        f"{folder}/hwmon/hwmon7/temp1_input": "41000\n",
        f"{folder}/hwmon/hwmon7/temp2_input": "52000\n",
        f"{folder}/hwmon/hwmon7/power1_average": "640000000\n",
        f"{folder}/hwmon/hwmon7/power1_cap": "750000000\n",
        f"{folder}/hwmon/hwmon7/freq1_input": "2100000000\n",
        "/usr/share/libdrm/amdgpu.ids": "# names\n74A1,\t00,\tAMD Instinct MI300X\n",
    }


def test_whole_cards_have_the_order_of_the_topology_and_the_memory_of_the_driver(
    box: Any, kfd_nodes: Any
) -> None:
    files = kfd_nodes([(90402, 0xC600, MI300X), (90402, 0x0500, MI300X)], xgmi=True)
    system = box(files=files | sensors("0000:c6:00.0", 5 * GIB) | sensors("0000:05:00.0", 1 * GIB))
    found = amd.inventory(system)
    assert not found.problems
    first, second = found.devices
    assert [first.bus_id, second.bus_id] == ["0000:c6:00.0", "0000:05:00.0"]
    assert (first.name, first.architecture) == ("AMD Instinct MI300X", "gfx942")
    assert (first.uuid, first.source) == ("GPU-000000000000a001", "KFD")
    assert (first.total_bytes, first.free_bytes) == (MI300X, MI300X - 5 * GIB)
    assert (first.numa_node, first.pcie_generation, first.pcie_width) == (1, 5, 16)
    assert (first.supports_bf16, first.supports_fp8, first.supports_flash_attention_2) == (True, True, True)
    assert not first.unified_memory
    [link] = amd.links(system, found.devices)
    assert (link.first, link.second, link.kind, link.peer_access) == (0, 1, "xgmi", True)


def test_a_reading_takes_sensors_from_the_kernel(box: Any, kfd_nodes: Any) -> None:
    files = kfd_nodes([(90402, 0x0500, MI300X)]) | sensors("0000:05:00.0", 5 * GIB)
    files |= {"/sys/class/kfd/kfd/proc/4711/vram_5001": f"{4 * GIB}\n", "/proc/4711/comm": "python\n"}
    system = box(files=files)
    [device] = amd.inventory(system).devices
    [process] = device.processes
    assert (process.pid, process.name, process.used_bytes) == (4711, "python", 4 * GIB)
    [reading] = amd.usage(system, (device,))
    assert (reading.utilization_percent, reading.temperature_celsius) == (97.0, 52.0)
    assert (reading.power_watts, reading.power_limit_watts, reading.clock_mhz) == (640.0, 750.0, 2100.0)
    assert (reading.memory_used_bytes, reading.memory_total_bytes) == (5 * GIB, MI300X)
    assert reading.pids == (4711,)


@pytest.mark.parametrize("shift", [0, 28])
def test_a_card_in_cpx_mode_is_eight_devices_with_an_eighth_of_its_memory_each(
    box: Any, kfd_nodes: Any, shift: int
) -> None:
    """Older kernels number the slices by PCI function, newer ones in the highest bits of the location."""
    gpus = [(90402, 0x0500 | place << shift, MI300X // 8) for place in range(8)]
    whole = sensors("0000:05:00.0", 100 * GIB)
    whole[f"{DEVICES}/0000:05:00.0/current_compute_partition"] = "CPX\n"
    files = kfd_nodes(gpus) | whole | {"/sys/class/kfd/kfd/proc/99/vram_5003": f"{2 * GIB}\n"}
    system = box(files=files)
    devices = amd.inventory(system).devices
    assert [device.partition for device in devices] == [f"CPX {place}" for place in range(8)]
    assert {device.total_bytes for device in devices} == {25_767_706_624}
    assert {device.bus_id for device in devices} == {"0000:05:00.0"}
    assert [MI300X // 8 - (device.free_bytes or 0) for device in devices] == [0, 0, 2 * GIB, 0, 0, 0, 0, 0]
    readings = amd.usage(system, devices)
    assert {reading.utilization_percent for reading in readings} == {None}
    assert {reading.power_watts for reading in readings} == {None}
    assert readings[2].memory_used_bytes == 2 * GIB


def test_the_halves_of_an_mi250_are_two_devices(box: Any, kfd_nodes: Any) -> None:
    system = box(files=kfd_nodes([(90010, 0x2900, 64 * GIB), (90010, 0x2C00, 64 * GIB)], xgmi=True))
    devices = amd.inventory(system).devices
    assert [(device.architecture, device.partition) for device in devices] == [("gfx90a", None)] * 2
    assert {device.supports_fp8 for device in devices} == {False}
    assert amd.links(system, devices)[0].kind == "xgmi"


def test_an_mi300a_shares_the_memory_of_its_host(box: Any, kfd_nodes: Any) -> None:
    files = kfd_nodes([(90402, 0x0100, 128 * GIB)], device_id=facts.MI300A)
    files |= sensors("0000:01:00.0", 8 * GIB, 128 * GIB)
    files["/proc/meminfo"] = "MemTotal: 134217728 kB\nMemAvailable: 33554432 kB\n"
    [device] = amd.inventory(box(files=files)).devices
    assert device.unified_memory
    assert device.note == "shares its memory with the host"
    assert (device.total_bytes, device.free_bytes) == (128 * GIB, 32 * GIB)


def test_a_processor_s_small_graphics_are_left_out_though_the_kernel_lends_them_host_memory(
    box: Any, kfd_nodes: Any
) -> None:
    files = kfd_nodes([(110000, 0x0300, 24 * GIB), (90012, 0x0E00, 30 * GIB)])
    files |= sensors("0000:03:00.0", GIB, 24 * GIB) | sensors("0000:0e:00.0", 18 << 20, 512 << 20)
    found = amd.inventory(box(files=files))
    assert [(device.index, device.architecture) for device in found.devices] == [(0, "gfx1100")]
    [problem] = found.problems
    assert problem.message == "cuda:1 (AMD Instinct MI300X) has 512 MiB: left out, but torch counts it"
    assert problem.advice == "set HIP_VISIBLE_DEVICES=GPU-000000000000a001"


def test_strix_halo_counts_with_the_host_memory_that_the_kernel_gives_it(box: Any, kfd_nodes: Any) -> None:
    files = kfd_nodes([(110501, 0xC500, 96 * GIB)]) | sensors("0000:c5:00.0", 128 << 20, 512 << 20)
    files[f"{DEVICES}/0000:c5:00.0/mem_info_gtt_used"] = f"{6 * GIB}\n"
    [device] = amd.inventory(box(files=files)).devices
    assert (device.architecture, device.unified_memory) == ("gfx1151", True)
    assert (device.total_bytes, device.free_bytes) == (96 * GIB, 90 * GIB - (128 << 20))


def test_a_card_that_fell_off_the_bus_stays_visible_as_lost(box: Any, kfd_nodes: Any) -> None:
    system = box(files=kfd_nodes([(90402, 0x0500, MI300X)]))
    [device] = amd.inventory(system).devices
    gone = replace(device, uuid="GPU-00000000deadbeef", index=1)
    alive, lost = amd.usage(system, (device, gone))
    assert not alive.is_lost
    assert lost.is_lost
    assert lost.memory_total_bytes == MI300X


def test_a_container_without_the_driver_s_device_is_told_how_to_get_it(box: Any, kfd_nodes: Any) -> None:
    files = kfd_nodes([(90402, 0x0500, MI300X)])
    del files["/dev/kfd"]
    found = amd.inventory(box(files=files))
    assert not found.devices
    assert "/dev/kfd is missing" in found.problems[0].message
    assert "--device=/dev/kfd" in (found.problems[0].advice or "")


def test_a_box_without_anything_of_amd_is_not_present(box: Any) -> None:
    system = box(files={"/sys/class/drm/card0/device/vendor": "0x8086\n"})
    assert not amd.is_present(system)
    assert amd.inventory(system).devices == ()


def test_a_hygon_box_is_not_taken_for_amd_s(box: Any) -> None:
    assert not amd.is_present(box(tools={"hy-smi": "{}", "rocm-smi": "{}"}))


def test_cards_without_xgmi_are_joined_by_what_lies_between_on_pci(box: Any, kfd_nodes: Any) -> None:
    buses = ["0000:03:00.0", "0000:04:00.0", "0000:83:00.0"]
    roots = [
        "pci0000:00/0000:00:01.0/0000:01:00.0/0000:02:00.0",
        "pci0000:00/0000:00:01.0/0000:01:00.0/0000:02:01.0",
        "pci0000:80/0000:80:01.0",
    ]
    files = kfd_nodes([(110000, 0x0300, 24 * GIB), (110000, 0x0400, 24 * GIB), (110000, 0x8300, 24 * GIB)])
    links = {}
    for bus, root, node in zip(buses, roots, (0, 0, 1), strict=True):
        files[f"/sys/devices/{root}/{bus}/numa_node"] = f"{node}\n"
        links[f"{DEVICES}/{bus}"] = f"/sys/devices/{root}/{bus}"
    system = box(files=files, links=links)
    devices = amd.inventory(system).devices
    found = {(link.first, link.second): link.kind for link in amd.links(system, devices)}
    assert found == {(0, 1): "pix", (0, 2): "sys", (1, 2): "sys"}


@pytest.mark.parametrize(
    ("version", "target"),
    [
        (90402, "gfx942"),
        (90010, "gfx90a"),
        (110001, "gfx1101"),
        (120001, "gfx1201"),
        (90500, "gfx950"),
        (0, None),
    ],
)
def test_the_kernel_s_version_number_names_the_gfx_target(version: int, target: str | None) -> None:
    assert facts.from_target_version(version) == target
