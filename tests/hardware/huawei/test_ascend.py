"""Ascend devices of a whole box: real processes that print tables of our own, and the corpus' recordings."""

import os
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine.hardware import huawei
from ftwiz.engine.hardware.huawei.facts import facts, full_name

MIB = 1 << 20
PCI = "/sys/bus/pci/devices/0000:c1:00.0/modalias"
MODALIAS = "pci:v000019E5d0000{device}sv000019E5sd00000100bc{kind}sc00i00\n"
LINE = "+======================+===============+================================+\n"
HEAD = (
    "| npu-smi 24.1.0              Version: 24.1.0                       |\n"
    "| NPU   Name           | Health        | Power(W) Temp(C) Hugepages-Usage(page) |\n"
    "| Chip                 | Bus-Id        | AICore(%) Memory-Usage(MB) HBM-Usage(MB) |\n" + LINE
)
PROCESSES = (
    "| NPU  Chip | Process id | Process name | Process memory(MB) | Process id in container |\n" + LINE
)
LOCALIZED = "| NPU  \u540d\u79f0 | \u5065\u5eb7 | \u529f\u7387(W) |\n| 0    910B3 | OK | 93.5 41 0 / 0 |\n"
NO_SUCH_TOPIC = {"info -t": "This device does not support it."}


def chip(npu: int, used: int, *, name: str = "910B3", health: str = "OK", total: int = 65536) -> str:
    return (
        f"| {npu}     {name}     | {health}   | 93.5   41    0 / 0 |\n"
        f"| 0                    | 0000:C{npu}:00.0  | 17      0 / 0     {used}/ {total} |\n{LINE}"
    )


def idle(*npus: int) -> str:
    return "".join(f"| No running processes found in NPU {npu} |\n{LINE}" for npu in npus)


def topology(*labels: str, word: str) -> str:
    rows = (f"{one}  " + "  ".join("X" if one == other else word for other in labels) for one in labels)
    return "\t   " + "  ".join(labels) + "   CPU Affinity\n" + "\n".join(f"{row}  0-23" for row in rows)


def places(*logic: int) -> str:
    rows = "".join(f"{npu}      0      {one}      Ascend 910B3\n" for npu, one in enumerate(logic))
    return "NPU ID      Chip ID      Chip Logic ID      Chip Name\n" + rows + "0      1      -      Mcu\n"


def test_a_device_node_the_tool_or_the_card_is_enough_to_be_present(box: Any) -> None:
    assert not huawei.is_present(box())
    assert huawei.is_present(box(files={"/dev/davinci0": ""}))


def test_the_tool_is_found_where_the_driver_puts_it(box: Any) -> None:
    system = box(
        files={"/usr/local/sbin/npu-smi": f"#!/bin/sh\n/bin/cat <<'END'\n{HEAD}{chip(0, 3400)}END\n"}
    )
    assert not huawei.is_present(system)
    system.path("/usr/local/sbin/npu-smi").chmod(0o755)
    assert huawei.is_present(system)
    [device] = huawei.inventory(system).devices
    assert device.total_bytes == 65536 * MIB


@pytest.mark.parametrize(
    ("device", "kind", "is_there"), [("D802", "12", True), ("0222", "02", False), ("A250", "12", False)]
)
def test_only_accelerators_of_huaweis_pci_devices_count(
    box: Any, device: str, kind: str, is_there: bool
) -> None:
    assert huawei.is_present(box(files={PCI: MODALIAS.format(device=device, kind=kind)})) is is_there


def test_a_card_without_driver_is_a_problem_and_not_a_device(box: Any) -> None:
    found = huawei.inventory(box())
    assert found.devices == ()
    assert [problem.message for problem in found.problems] == ["npu-smi: not found"]


def test_without_the_tool_the_nodes_are_counted(box: Any) -> None:
    nodes = {f"/dev/davinci{n}": "" for n in range(4)} | {"/dev/davinci_manager": ""}
    found = huawei.inventory(box(files=nodes, environ={"ASCEND_RT_VISIBLE_DEVICES": "1,3"}))
    assert [(one.index, one.physical_index, one.total_bytes) for one in found.devices] == [
        (0, 1, None),
        (1, 3, None),
    ]
    assert "npu-smi: not found" in found.problems[0].message


def test_the_drivers_own_share_of_an_idle_chip_is_no_job(box: Any) -> None:
    text = HEAD + chip(0, 3412) + chip(1, 24000) + PROCESSES + idle(0, 1)
    one, other = huawei.inventory(box(tools={"npu-smi": {"info": text}})).devices
    assert (one.free_bytes, one.reserved_bytes) == ((65536 - 3412) * MIB, 3412 * MIB)
    assert one.note == "3.3 GiB in use are the driver's own; no process is listed"
    assert (other.reserved_bytes, other.note) == (None, "23.4 GiB in use by what npu-smi does not list")


def test_a_process_takes_its_memory_and_the_driver_keeps_the_rest(box: Any) -> None:
    rows = f"| 0       0  | 4242       |              | 20000              | NA |\n{LINE}"
    [one] = huawei.inventory(
        box(tools={"npu-smi": {"info": HEAD + chip(0, 23400) + PROCESSES + rows}})
    ).devices
    [process] = one.processes
    assert (process.pid, process.name, process.used_bytes) == (4242, None, 20000 * MIB)
    assert (one.reserved_bytes, one.note) == (3400 * MIB, None)


def test_inside_a_container_the_pid_is_that_of_the_last_column(box: Any) -> None:
    rows = f"| 0 0 | 4000001 | python | 20000 | 77 |\n| 0 0 | 4000002 | python | 100 | 78 |\n{LINE}"
    tools = {"npu-smi": {"info": HEAD + chip(0, 23400) + PROCESSES + rows}}
    system = box(tools=tools, files={"/proc/77/comm": "python", "/proc/4000002/comm": "python"})
    [one] = huawei.inventory(system).devices
    assert [process.pid for process in one.processes] == [77, 4000002]


def test_devices_are_counted_by_logic_id_and_not_by_the_tables_order(box: Any) -> None:
    tools = {"npu-smi": {"info -m": places(1, 0), "info": HEAD + chip(0, 1) + chip(1, 2)}}
    found = huawei.inventory(box(tools=tools)).devices
    assert [(one.index, one.bus_id) for one in found] == [(0, "0000:C1:00.0"), (1, "0000:C0:00.0")]
    [only] = huawei.inventory(box(tools=tools, environ={"ASCEND_RT_VISIBLE_DEVICES": "1"})).devices
    assert (only.index, only.physical_index, only.bus_id) == (0, 1, "0000:C0:00.0")


def test_a_list_that_the_runtime_refuses_leaves_no_device_and_says_why(box: Any) -> None:
    tools = {"npu-smi": {"info": HEAD + chip(0, 1) + chip(1, 2)}}
    found = huawei.inventory(box(tools=tools, environ={"ASCEND_RT_VISIBLE_DEVICES": "1,0"}))
    assert found.devices == ()
    assert found.problems[-1].source == "ASCEND_RT_VISIBLE_DEVICES"
    assert "ascending order" in found.problems[-1].message


def test_sick_chips_and_chips_without_memory_are_named(box: Any) -> None:
    text = HEAD + chip(0, 0, health="Warning") + "| 1     910B3     | OK   | 93.5   41    0 / 0 |\n"
    found = huawei.inventory(box(tools={"npu-smi": {"info": text}}, files={"/dev/davinci9": ""}))
    assert [one.note for one in found.devices] == ["health: Warning", None]
    assert [problem.message for problem in found.problems] == [
        "npu-smi: memory of device 1 cannot be read",
    ]


def test_a_chip_that_is_missing_from_the_table_is_a_problem(box: Any) -> None:
    nodes = {f"/dev/davinci{n}": "" for n in range(2)}
    found = huawei.inventory(box(tools={"npu-smi": {"info": HEAD + chip(0, 0)}}, files=nodes))
    assert [problem.message for problem in found.problems] == [
        "npu-smi: 1 chips in its table for 2 nodes /dev/davinci[0-9]*"
    ]


@pytest.mark.parametrize(
    "text", ["", "\x00\x7fELF\x02", "dcmi module initialize failed. ret is -8005\n", HEAD, LOCALIZED]
)
def test_what_is_no_table_is_one_problem_that_names_the_tool(box: Any, text: str) -> None:
    found = huawei.inventory(box(tools={"npu-smi": {"info": text}}))
    assert found.devices == ()
    [problem] = found.problems
    assert problem.message == "npu-smi: no chip can be read from the table of `npu-smi info`"


def test_missing_libraries_bring_advice(box: Any) -> None:
    script = "#!/bin/sh\necho 'npu-smi: error while loading shared libraries: libdrvdsmi_host.so'\nexit 127\n"
    system = box(files={"/usr/local/bin/npu-smi": script})
    system.path("/usr/local/bin/npu-smi").chmod(0o755)
    [problem] = huawei.inventory(system).problems
    assert "LD_LIBRARY_PATH" in (problem.advice or "")


def test_old_tables_get_their_processes_from_proc_mem(box: Any) -> None:
    processes = "NPU ID : 0\nProcess id:11 Process name:python   Process memory(MB):500\nChip ID : 0\n"
    tools = {"npu-smi": {"info -t proc-mem": processes, "info": HEAD + chip(0, 3500)}}
    [one] = huawei.inventory(box(tools=tools)).devices
    assert [process.pid for process in one.processes] == [11]
    assert one.reserved_bytes == 3000 * MIB


def test_readings_follow_their_chip_when_another_is_lost(box: Any) -> None:
    both = box(tools={"npu-smi": {"info": HEAD + chip(0, 3400) + chip(1, 30000)}})
    devices = huawei.inventory(both).devices
    rows = PROCESSES + f"| 1 0 | 99 | python | 26000 | NA |\n{LINE}"
    left = box(tools={"npu-smi": {"info": HEAD + chip(1, 30000) + rows}})
    lost, alive = huawei.usage(left, devices)
    assert (lost.is_lost, lost.memory_used_bytes, lost.memory_total_bytes) == (True, None, 65536 * MIB)
    assert (alive.index, alive.is_lost, alive.memory_used_bytes) == (1, False, 30000 * MIB)
    assert (alive.utilization_percent, alive.power_watts, alive.temperature_celsius) == (17.0, 93.5, 41.0)
    assert alive.pids == (99,)


def test_where_the_table_cannot_be_had_each_npu_is_asked(box: Any, corpus: Path) -> None:
    devices = huawei.inventory(box(tools={"npu-smi": {"info": HEAD + chip(0, 3400) + chip(1, 3)}})).devices
    common = (corpus / "hardware/ascend/npu-smi-info-t-common_910B_busy.txt").read_text(encoding="utf8")
    usages = (corpus / "hardware/ascend/npu-smi-info-t-usages_910ProA_1chip.txt").read_text(encoding="utf8")
    answers = {"info -t common -i 1": common, "info -t usages -i 0": usages, **NO_SUCH_TOPIC, "info": "oops"}
    one, other = huawei.usage(box(tools={"npu-smi": answers}), devices)
    assert (other.power_watts, other.clock_mhz, other.utilization_percent) == (130.4, 1800.0, 6.0)
    assert other.memory_used_bytes == int(65536 * MIB * 0.91)
    assert (one.memory_used_bytes, one.memory_total_bytes) == (0, 32768 * MIB)


def test_a_tool_that_says_nothing_costs_figures_and_no_device_is_called_lost(box: Any) -> None:
    devices = huawei.inventory(box(tools={"npu-smi": {"info": HEAD + chip(0, 3400)}})).devices
    [reading] = huawei.usage(box(tools={"npu-smi": {"info": ""}}), devices)
    assert (reading.is_lost, reading.memory_used_bytes, reading.name) == (False, None, "Ascend 910B3")


def test_links_are_between_visible_devices(box: Any) -> None:
    text = topology("NPU0", "NPU1", "NPU2", word="HCCS")
    table = HEAD + chip(0, 1) + chip(1, 1) + chip(2, 1)
    system = box(
        tools={"npu-smi": {"info -t topo": text, "info": table}},
        environ={"ASCEND_RT_VISIBLE_DEVICES": "0,2"},
    )
    [link] = huawei.links(system, huawei.inventory(system).devices)
    assert (link.first, link.second, link.kind) == (0, 1, "hccs")


@pytest.mark.parametrize(
    ("word", "kind"),
    [("HCCS_SW", "hccs"), ("SIO", "hccs"), ("PIX", "pix"), ("PHB", "phb"), ("SYS", "sys"), ("NA", None)],
)
def test_a3_counts_its_chips_by_phy_id(box: Any, word: str, kind: str | None) -> None:
    table = HEAD.replace("Chip   ", "Chip  Phy-ID")
    for die, power in enumerate(("178.9", "-")):
        table += f"| 6     Ascend910 | OK | {power} 36 0 / 0 |\n"
        table += f"| {die}     {12 + die} | 0000:9{die}:00.0 | 0 0 / 0 3412 / 65536 |\n{LINE}"
    text = topology("Phy-ID12", "Phy-ID13", word=word)
    system = box(tools={"npu-smi": {"info -t topo": text, "info": table}})
    devices = huawei.inventory(system).devices
    assert [(one.uuid, one.architecture) for one in devices] == [
        ("NPU 6 chip 0", "Ascend910_93"),
        ("NPU 6 chip 1", "Ascend910_93"),
    ]
    assert [link.kind for link in huawei.links(system, devices)] == ([kind] if kind else [])
    system = box(tools={"npu-smi": {"info -t topo": text.replace("Phy-ID", "NPU"), "info": table}})
    assert [link.kind for link in huawei.links(system, devices)] == ([kind] if kind else [])


@pytest.mark.parametrize(
    ("name", "architecture", "bf16", "trains"),
    [
        ("910A", "Ascend910A", False, True),
        ("910ProB", "Ascend910ProB", False, True),
        ("910PremiumA", "Ascend910PremiumA", False, True),
        ("910B", "Ascend910B", False, True),
        ("910B3", "Ascend910B3", True, True),
        ("910B4-1", "Ascend910B4-1", True, True),
        ("910B2C", "Ascend910B2C", True, True),
        ("Ascend910", "Ascend910_93", True, True),
        ("Ascend910_9392", "Ascend910_9392", True, True),
        ("Ascend950DT", "Ascend950DT", True, True),
        ("310", "Ascend310", False, False),
        ("310P3", "Ascend310P3", None, False),
        ("xxx", None, None, None),
        ("920", None, None, None),
    ],
)
def test_bf16_follows_from_the_generation(
    name: str, architecture: str | None, bf16: bool | None, trains: bool | None
) -> None:
    known = facts(name)
    assert (known.architecture, known.supports_bf16, known.trains) == (architecture, bf16, trains)
    assert facts("xxx", full_name(name)).supports_bf16 is bf16


def test_of_the_recorded_a3_box_sixteen_devices_and_their_floor_are_seen(box: Any, corpus: Path) -> None:
    name = "npu-smi-info_A3_Ascend910_16chip_24.1.rc3.7_idle.txt"
    text = (corpus / "hardware" / "ascend" / name).read_text(encoding="utf8")
    found = huawei.inventory(box(tools={"npu-smi": {"info": text}}))
    assert found.problems == ()
    assert [one.index for one in found.devices] == list(range(16))
    assert all(one.reserved_bytes and one.supports_bf16 and one.kind == "npu" for one in found.devices)


@pytest.mark.timeout(30)
def test_a_hanging_tool_is_given_up(box: Any) -> None:
    system = box(files={"/usr/local/bin/npu-smi": "#!/bin/sh\nexec /bin/sleep 60\n", "/dev/davinci0": ""})
    system.path("/usr/local/bin/npu-smi").chmod(0o755)
    start = os.times().elapsed
    found = huawei.inventory(system)
    assert os.times().elapsed - start < 9
    assert [one.name for one in found.devices] == ["Ascend NPU"]
    assert "no answer in time" in found.problems[0].message
