"""A box whose NVML library is of no use: the tool, and then the kernel, are asked instead."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ftwiz.engine.hardware import nvidia
from ftwiz.engine.hardware.nvidia import proc, smi
from ftwiz.engine.hardware.system import System
from ftwiz.engine.specs.machine import DeviceProcess, Link

from .conftest import Ask

MIB, GIB = 2**20, 2**30
FIXTURE = Path(__file__).parent.parent / "fixtures" / "nvidia-smi-q-x.xml"
XML = FIXTURE.read_text(encoding="utf8")
FUZZ = settings(max_examples=int(os.environ.get("FTWIZ_FUZZ", "200")), deadline=None)
Replay = Callable[..., System]

LIST = """GPU 0: NVIDIA Example 80GB (UUID: GPU-aaaaaaaa-0000-4000-8000-000000000001)
  MIG 3g.40gb     Device  0: (UUID: MIG-cccccccc-0000-4000-8000-000000000003)
  MIG 1g.10gb     Device  3: (UUID: MIG-dddddddd-0000-4000-8000-000000000004)
GPU 1: NVIDIA Example Old (UUID: GPU-bbbbbbbb-0000-4000-8000-000000000002)
"""
CAPABILITIES = """uuid, compute_cap
GPU-aaaaaaaa-0000-4000-8000-000000000001, 9.0
GPU-bbbbbbbb-0000-4000-8000-000000000002, 7.5
"""
SAID = {"-q -x": XML, "-L": LIST, "--query-gpu=uuid,compute_cap --format=csv": CAPABILITIES}
INFORMATION = """Model: \t\t NVIDIA Example 80GB
IRQ:   \t\t 553
GPU UUID: \t GPU-aaaaaaaa-0000-4000-8000-000000000001
Bus Location: \t 0000:3b:00.0
"""


def kernel(system: System, *cards: tuple[str, str], version: str = "") -> None:
    """Write what the kernel module tells of its cards."""
    folder = system.root / "proc/driver/nvidia"
    folder.mkdir(parents=True)
    (folder / "version").write_text(version, encoding="utf8")
    for bus, text in cards:
        (folder / "gpus" / bus).mkdir(parents=True)
        (folder / "gpus" / bus / "information").write_text(text, encoding="utf8")


def test_cards_and_slices_are_read_from_the_tool(replay: Replay) -> None:
    found = nvidia.inventory(replay(SAID, CUDA_DEVICE_ORDER="PCI_BUS_ID"))
    assert not found.problems
    large, small, old, whole = found.devices
    assert [device.index for device in found.devices] == [0, 1, 2, 3]
    assert (large.partition, large.uuid) == ("3g.40gb", "MIG-cccccccc-0000-4000-8000-000000000003")
    assert (large.total_bytes, large.free_bytes) == (40448 * MIB, 39400 * MIB)
    assert large.processes == (DeviceProcess(pid=4711, name="python3", used_bytes=1036 * MIB),)
    assert (small.partition, small.uuid) == ("1g.10gb", "MIG-dddddddd-0000-4000-8000-000000000004")
    assert not small.processes
    assert (large.architecture, large.supports_flash_attention_3) == ("sm_90", True)
    assert (old.name, old.architecture, old.supports_bf16) == ("NVIDIA Example Old", "sm_75", False)
    assert old.processes == (DeviceProcess(pid=99),)
    assert whole.partitioned
    assert (whole.total_bytes, whole.free_bytes, whole.reserved_bytes) == (
        81559 * MIB,
        80020 * MIB,
        479 * MIB,
    )
    assert (whole.bus_id, whole.pcie_generation, whole.pcie_width) == ("00000000:3B:00.0", 5, 16)
    assert {device.source for device in found.devices} == {"nvidia-smi -q -x"}


def test_a_slice_is_chosen_by_either_of_its_names(replay: Replay) -> None:
    system = replay(SAID, CUDA_VISIBLE_DEVICES="MIG-GPU-aaaaaaaa-0000-4000-8000-000000000001/9/0")
    (device,) = nvidia.inventory(system).devices
    assert (device.index, device.partition) == (0, "1g.10gb")


def test_readings_come_from_the_tool_too(replay: Replay) -> None:
    system = replay(SAID)
    large, _small, old, whole = nvidia.usage(system, nvidia.inventory(system).devices)
    assert (whole.utilization_percent, whole.memory_used_bytes) == (None, 1060 * MIB)
    assert (whole.power_watts, whole.power_limit_watts, whole.clock_mhz) == (120.5, 700.0, 1980.0)
    assert whole.throttle_reasons == ("power", "heat")
    assert (large.power_watts, large.memory_used_bytes, large.temperature_celsius) == (None, 1048 * MIB, 44.0)
    assert large.pids == (4711,)
    assert (old.index, old.utilization_percent, old.power_watts) == (2, 7.0, 31.0)
    assert old.throttle_reasons == ("hardware",)


def test_without_a_capability_the_architecture_says_what_all_its_cards_can_do(replay: Replay) -> None:
    found = nvidia.inventory(replay({"-q -x": XML, "-L": LIST}))
    assert [(d.architecture, d.supports_bf16, d.supports_fp8) for d in found.devices] == [
        (None, True, True),
        (None, True, True),
        (None, False, False),
        (None, True, True),
    ]


def test_warnings_around_the_document_do_no_harm(replay: Replay) -> None:
    noisy = f"WARNING: infoROM is corrupted at gpu 0000:3B:00.0\n{XML}\nWARNING: more\n"
    found = nvidia.inventory(replay(SAID | {"-q -x": noisy}, CUDA_DEVICE_ORDER="PCI_BUS_ID"))
    assert len(found.devices) == 4
    assert not found.problems


def test_of_a_cut_document_whole_cards_are_read_and_the_rest_is_told(replay: Replay) -> None:
    cut = XML[: XML.index("<power_readings>")]
    found = nvidia.inventory(replay(SAID | {"-q -x": cut}))
    assert [device.partition for device in found.devices] == ["3g.40gb", "1g.10gb", None]
    assert [problem.message for problem in found.problems] == [
        "nvidia-smi -q -x: ends early; 3 devices were read"
    ]


@pytest.mark.parametrize(
    "output",
    [
        "",
        "nichts gefunden",
        XML[:300],
        XML[XML.index("<gpu ") :],
        b"\x00\xff\xfe" * 1000,
        "<nvidia_smi_log>" + "<a>" * 5000,
        "x" * (9 << 20),
    ],
)
def test_an_output_that_is_none_is_one_line_and_the_kernel_is_asked(
    replay: Replay, output: str | bytes
) -> None:
    system = replay({"-q -x": output})
    kernel(system, ("0000:3b:00.0", INFORMATION))
    found = nvidia.inventory(system)
    (problem,) = found.problems
    assert problem.message.startswith("nvidia-smi")
    assert len(problem.message.splitlines()) == 1
    assert len(problem.message) < 300
    (device,) = found.devices
    assert (device.name, device.uuid, device.total_bytes, device.source) == (
        "NVIDIA Example 80GB",
        "GPU-aaaaaaaa-0000-4000-8000-000000000001",
        None,
        "/proc/driver/nvidia",
    )
    assert device.bus_id == "00000000:3B:00.0"


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        (
            "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 5.1",
            18,
            "reboot",
        ),
        ("Failed to initialize NVML: Unknown Error", 999, "daemon-reload"),
        ("Failed to initialize NVML: Insufficient Permissions", 4, "/dev/nvidia"),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", 9, "modprobe"),
        ("Unable to determine the device handle for GPU 0000:3B:00.0: GPU is lost.", 15, "Xid"),
    ],
)
def test_the_tools_failures_are_told_apart(replay: Replay, said: str, code: int, words: str) -> None:
    system = replay({"-q -x": said}, code=1)
    kernel(system, version="NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.10.01  Tue Jun 23\n")
    found = nvidia.inventory(system)
    assert not found.devices
    (problem,) = found.problems
    assert f"(code {code})" in problem.message
    assert ("570.10.01" in problem.message) == (code == 18)
    assert words in (problem.advice or "")


def test_without_the_library_a_working_tool_is_read(ask: Ask, replay: Replay, tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library", encoding="utf8")
    box = ask(FOLDER=str(tmp_path), PATH=replay(SAID).environ["PATH"], CUDA_DEVICE_ORDER="PCI_BUS_ID")
    assert [device["source"] for device in box.devices] == ["nvidia-smi -q -x"] * 4
    assert [reading["temperature_celsius"] for reading in box.readings] == [44.0, 44.0, 61.0, 44.0]
    (problem,) = box.problems
    assert problem["message"].endswith("libnvidia-ml.so.1 is not here (code 12); read through nvidia-smi")


def test_a_tool_that_hangs_is_left_after_its_time(replay: Replay) -> None:
    system = replay({}, tail="sleep 60")
    kernel(system, ("0000:3b:00.0", INFORMATION))
    found = nvidia.inventory(system)
    assert [problem.message for problem in found.problems] == ["nvidia-smi: no answer in time"]
    assert len(found.devices) == 1


def test_a_tool_that_fails_is_left_alone_for_a_while(replay: Replay) -> None:
    system = replay(SAID)
    devices = nvidia.inventory(system).devices
    broken = replay({}, tail=f"echo asked >> {system.root}/asked")
    for _ in range(3):
        assert all(reading.memory_used_bytes is None for reading in nvidia.usage(broken, devices))
    assert (system.root / "asked").read_text(encoding="utf8") == "asked\n"


def test_a_card_that_the_tool_calls_lost_is_lost(replay: Replay) -> None:
    text = XML.replace("15360 MiB", "GPU is lost").replace("NVIDIA Example Old", "GPU is lost")
    system = replay(SAID | {"-q -x": text})
    found = nvidia.inventory(system)
    lost = next(device for device in found.devices if device.physical_index == 1)
    assert [problem.message for problem in found.problems] == [
        "nvidia-smi card 1: the card is lost (code 15)"
    ]
    assert (lost.is_lost, lost.name, lost.total_bytes) == (True, "NVIDIA device", None)
    (reading,) = nvidia.usage(system, (lost,))
    assert reading.is_lost


def test_a_card_without_any_driver_is_told(replay: Replay) -> None:
    system = System({"PATH": ""}, replay({}).root)
    assert not nvidia.is_present(system)
    device = system.root / "sys/bus/pci/devices/0000:3b:00.0"
    device.mkdir(parents=True)
    (device / "class").write_text("0x030200\n", encoding="utf8")
    listed = system.root / "proc/bus/pci/devices"
    listed.parent.mkdir(parents=True)
    listed.write_text("0000\t80861237\t0\n3b00\t10de2330\t0\t0\n", encoding="utf8")
    assert nvidia.is_present(system)
    found = nvidia.inventory(system)
    assert not found.devices
    assert "--gpus all" in (found.problems[0].advice or "")
    (device / "class").write_text("0x068000\n", encoding="utf8")
    assert not nvidia.is_present(system)


@pytest.mark.parametrize("name", ["NVIDIA GB10", "Orin (nvgpu)"])
def test_a_board_of_shared_memory_has_the_hosts(replay: Replay, name: str) -> None:
    text = f"""<nvidia_smi_log><gpu id="0000000F:01:00.0"><product_name>{name}</product_name>
        <fb_memory_usage><total>Not Supported</total><used>Not Supported</used></fb_memory_usage>
        <processes><process_info><pid>5</pid><used_memory>300 MiB</used_memory></process_info></processes>
        </gpu></nvidia_smi_log>"""
    system = replay({"-q -x": text})
    (system.root / "proc").mkdir()
    meminfo = "MemTotal: 125000000 kB\nMemFree: 1 kB\nMemAvailable: 90000000 kB\nSwapTotal: 16000000 kB\n"
    (system.root / "proc/meminfo").write_text(meminfo, encoding="ascii")
    (device,) = nvidia.inventory(system).devices
    assert device.unified_memory
    assert (device.total_bytes, device.free_bytes) == (125000000 * 1024, 90000000 * 1024)
    (reading,) = nvidia.usage(system, (device,))
    assert (reading.memory_used_bytes, reading.memory_total_bytes) == (300 * MIB, 125000000 * 1024)


def test_links_come_from_the_tool(replay: Replay) -> None:
    head = "\t\x1b[4mGPU0\tGPU1\tNIC0\tCPU Affinity\x1b[0m\n"
    matrix = head + "GPU0\t X \tNV4\tPIX\t0-7\nGPU1\tNV4\t X \tSYS\t8-15\n"
    peers = " \tGPU0\tGPU1\n GPU0\tX\tGNS\n GPU1\tGNS\tX\n"
    whole = XML.replace("<current_mig>Enabled", "<current_mig>Disabled")
    system = replay({"-q -x": whole, "topo -m": matrix, "topo -p2p r": peers}, CUDA_VISIBLE_DEVICES="1,0")
    devices = nvidia.inventory(system).devices
    assert [device.physical_index for device in devices] == [1, 0]
    assert nvidia.links(system, devices) == (
        Link(first=0, second=1, kind="nvlink", count=4, peer_access=False),
    )


def test_a_table_keeps_fields_without_their_units() -> None:
    rows = smi.parse_table("index, memory.total [MiB], mode\n0, 81559 MiB, None\n1, [N/A], [GPU is lost]\n")
    assert rows == [
        {"index": "0", "memory.total": "81559 MiB", "mode": "None"},
        {"index": "1", "memory.total": None, "mode": None},
    ]


PIECES = st.one_of(
    st.text(max_size=20), st.sampled_from(["<gpu>", "</gpu>", "&x;", "\x00", "N/A", "\x1b[4m"])
)


@st.composite
def mutated(draw: st.DrawFn, text: str) -> str:
    """A text of which some stretches are gone, doubled or replaced."""
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 300)))
        text = text[:start] + draw(PIECES) + text[draw(st.sampled_from([start, end])) :]
    return text


@FUZZ
@given(st.one_of(mutated(XML), st.text()))
@example("<nvidia_smi_log></nvidia_smi_log>")
def test_any_document_is_read_or_refused(text: str) -> None:
    try:
        report = smi.parse(text)
    except smi.SmiError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 - the other outcome is a report
        return
    assert all(card.entry.device.name for card in report.cards)


@FUZZ
@given(st.one_of(mutated(LIST), mutated(CAPABILITIES), st.text()))
def test_any_list_or_table_is_read(text: str) -> None:
    assert all(uuid.startswith("MIG-") for _, uuid in smi.parse_list(text).values())
    assert all(len(pair) == 2 for pair in smi.capabilities(smi.parse_table(text)).values())


@FUZZ
@given(st.one_of(mutated(INFORMATION), st.text()))
def test_any_information_of_the_kernel_is_read(text: str) -> None:
    device = proc.parse_information(text, bus_id="0000:3b:00.0")
    assert device.name
    assert device.total_bytes is None
