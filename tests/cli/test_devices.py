"""What ``ftwiz devices`` prints, and plans for machines that are somewhere else."""

import dataclasses
import json
import resource
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest
import yaml

from ftwiz.cli.show_machine import busy_lines, machine_lines
from ftwiz.engine.hardware.machine_file import machine_from_json
from ftwiz.engine.hardware.written import FILE_HINT, parse_machine
from ftwiz.engine.specs.machine import (
    Device,
    DeviceProcess,
    DeviceReading,
    Disk,
    Host,
    HostReading,
    Limit,
    Link,
    LinkKind,
    Machine,
    NetworkPort,
    Problem,
)
from ftwiz.tui.text import width_of

GIB = 2**30
ROOT = Path(__file__).resolve().parents[2]


def plain(lines: object) -> list[str]:
    import click

    return [click.unstyle(line) for line in lines]  # type: ignore[attr-defined]


def card(index: int, **fields: object) -> Device:
    known: dict[str, object] = {
        "kind": "cuda",
        "vendor": "nvidia",
        "index": index,
        "name": "NVIDIA H100 80GB HBM3",
        "architecture": "sm_90",
        "bus_id": f"00000000:{16 + index:02X}:00.0",
        "total_bytes": 80 * GIB,
        "free_bytes": 79 * GIB,
    }
    return Device(**(known | fields))  # type: ignore[arg-type]


def reading(index: int, **fields: object) -> DeviceReading:
    known: dict[str, object] = {
        "index": index,
        "name": "NVIDIA H100 80GB HBM3",
        "utilization_percent": 98.4,
        "memory_used_bytes": 60 * GIB,
        "memory_total_bytes": 80 * GIB,
        "temperature_celsius": 65.0,
        "power_watts": 690.0,
        "power_limit_watts": 700.0,
        "clock_mhz": 1755.0,
    }
    return DeviceReading(**(known | fields))  # type: ignore[arg-type]


def links(count: int, kind: LinkKind = "nvlink") -> tuple[Link, ...]:
    pairs = ((i, j) for i in range(count) for j in range(i + 1, count))
    return tuple(Link(first=i, second=j, kind=kind, count=18) for i, j in pairs)


HOLDERS = tuple(DeviceProcess(pid=pid, name="/bin/python") for pid in range(5))
LOST = "NVML: card 2: the card is lost (code 15)"
BOX = Machine(
    host=Host(
        name="gpu-node-7",
        num_cpus=96,
        total_bytes=512 * GIB,
        available_bytes=400 * GIB,
        limits=(
            Limit(what="cpus", by="SLURM_CPUS_ON_NODE", value=96),
            Limit(what="memory", by=f"cgroup /sys/fs/cgroup/{'job_123456/' * 9}user", value=512 * GIB),
        ),
        cpu_name="Intel(R) Xeon(R) Platinum 8480+",
        cpu_flags=("avx512f", "amx_bf16"),
        num_numa_nodes=2,
        container="kubernetes",
        shm_bytes=64 * 2**20,
    ),
    devices=(
        card(0),
        card(
            1,
            free_bytes=19 * GIB,
            processes=tuple(DeviceProcess(pid=n, name="/bin/python") for n in range(5)),
        ),
        card(2, is_lost=True, free_bytes=None),
        card(3),
    ),
    links=links(4),
    disks=(
        Disk(path="/", file_system="overlay", medium="overlay", total_bytes=100 * GIB, free_bytes=5 * GIB),
        Disk(path="/scratch", file_system="lustre", medium="network", holds=("runs", "models")),
    ),
    ports=tuple(
        NetworkPort(name=f"mlx5_{n}/1", link_layer="infiniband", is_active=n != 3, bits_per_second=400e9)
        for n in range(8)
    ),
    problems=(
        Problem(
            source="NVML", message="NVML: card 2: the card is lost (code 15)", advice="look for Xid in dmesg"
        ),
    ),
)
READINGS = (reading(0), reading(1, throttle_reasons=("heat",)), reading(2, is_lost=True), reading(3))


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_everything_has_its_place_and_no_line_is_too_long(width: int) -> None:
    lines = plain(machine_lines(BOX, READINGS, width=width))
    whole_words = [line for line in lines if "job_123456" not in line]
    assert max(map(width_of, whole_words)) <= width
    text = " ".join("\n".join(lines).split())
    for said in ("4 x NVIDIA H100 80GB HBM3 on gpu-node-7", "79.0 of 80.0 GiB", "98 %", "2 NUMA nodes"):
        assert said in text
    assert "between every two: NVLink (18 joined)" in text, "a lost card has no links"
    assert "held by python 0, python 1, python 2 and 2 more" in text
    assert "slowed down by heat" in text
    assert "SLURM_CPUS_ON_NODE leaves 96" in text
    assert "7 x InfiniBand, 400 Gbit/s, active: mlx5_0/1" in text
    assert "NVML: card 2: the card is lost" in text
    assert ("CLOCK" in text) == (width >= 120), "what has no room is left out"


def test_a_lost_card_says_so_in_red() -> None:
    (line,) = [line for line in machine_lines(BOX, READINGS, width=100) if "lost  " in line]
    assert line.startswith("\x1b[31m2  NVIDIA H100")


def test_unlike_links_are_a_matrix_with_its_words() -> None:
    near = Link(first=0, second=1, kind="pix", peer_access=False)
    lines = plain(machine_lines(dataclasses.replace(BOX, links=(near, *links(4)[2:])), (), width=100))
    start = next(place for place, line in enumerate(lines) if line.startswith("links"))
    assert [line.split() for line in lines[start : start + 4]] == [
        ["links", "0", "1", "3"],
        ["0", ".", "PIX!", "NV18"],
        ["1", "PIX!", ".", "NV18"],
        ["3", "NV18", "NV18", "."],
    ]
    assert lines[start + 4].strip() == "PIX!: one PCIe switch, without peer access"


def test_a_matrix_that_has_no_room_is_counted() -> None:
    many = Machine(
        host=BOX.host, devices=tuple(card(n) for n in range(16)), links=(*links(16)[1:], *links(2, "sys"))
    )
    text = "\n".join(plain(machine_lines(many, (), width=80)))
    assert "119 pairs by NVLink (18 joined)" in text
    assert "1 pair by the link between CPU sockets" in text


def test_a_split_card_stands_without_a_number_beside_its_slices() -> None:
    devices = (card(0, partition="3g.40gb", total_bytes=40 * GIB), card(1, partitioned=True))
    lines = plain(machine_lines(Machine(host=BOX.host, devices=devices), (), width=120))
    assert lines[0].startswith("NVIDIA H100 80GB HBM3 on ")
    assert lines[3].startswith("0  NVIDIA H100 80GB HBM3 3g.40gb")
    assert lines[4].split()[0] == "-"
    assert "split" in lines[4]


def test_a_name_cannot_command_the_terminal() -> None:
    evil = dataclasses.replace(BOX.devices[0], name="card\x1b]52;c;x\x07", note="note\x1b[2J")
    machine = dataclasses.replace(BOX, devices=(evil,), problems=(Problem(source="x", message="bad\x1b[2J"),))
    assert "\x1b" not in "".join(plain(machine_lines(machine, (), width=100))).replace("\ufffd", "")


def test_the_live_view_takes_memory_from_the_reading_and_fits_the_screen() -> None:
    host = HostReading(cpu_percent=55.0, memory_used_bytes=25 * GIB, memory_total_bytes=512 * GIB)
    readings = tuple(reading(one.index, pids=(4242,)) for one in BOX.devices)
    high = plain(busy_lines(BOX, readings, host, width=100, height=50))
    assert "20.0 of 80.0 GiB" in high[3]
    assert high[4].strip() == "held by process 4242"
    assert "55 % of 96 CPUs" in "\n".join(high)
    low = plain(busy_lines(BOX, readings, host, width=100, height=10))
    assert not any("held by" in line for line in low)


def processor_seconds() -> float:
    """Return what ended children took of the processors: how busy the machine is does not count."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("arguments", [[], ["--json"], ["--machine", "8xA100-80GB"]])
def test_without_a_driver_it_answers_fast(arguments: list[str], tmp_path: Path) -> None:
    taken = []
    for _ in range(5):
        start = processor_seconds()
        done = subprocess.run(
            [sys.executable, "-m", "ftwiz", "devices", *arguments],
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
            cwd=tmp_path,
        )
        taken.append(processor_seconds() - start)
        assert done.stderr == ""
    assert min(taken) < 0.4


def test_json_is_this_machine_and_can_be_planned_with(tmp_path: Path, qa_rows: Path) -> None:
    done = ftwiz("devices", "--json")
    body = json.loads(done.stdout)
    machine = machine_from_json(done.stdout, where="stdout")
    assert body["version"] == 1
    assert body["machine"]["host"]["name"] == machine.host.name
    assert len(body["readings"]) == len(machine.devices)
    (tmp_path / "machine.json").write_text(done.stdout, encoding="utf8")
    done = ftwiz("plan", str(job(tmp_path, qa_rows)), "--machine", str(tmp_path / "machine.json"))
    assert "plan for job" in done.stdout


def test_a_plan_for_a_written_machine_is_for_its_devices(tmp_path: Path, qa_rows: Path) -> None:
    path = str(job(tmp_path, qa_rows))
    strategy = json.loads(ftwiz("plan", path, "--json", "--machine", "8xA100-80GB").stdout)["strategy"]
    assert (strategy["device_kind"], strategy["num_processes"]) == ("cuda", 8)
    assert strategy["mixed_precision"] == "bf16"
    old = json.loads(ftwiz("plan", path, "--json", "--machine", "2xT4").stdout)["strategy"]
    assert old["mixed_precision"] == "fp16"
    nodes = ftwiz("plan", path, "--json", "--machine", "2 nodes x 4xAscend910B3-64GB")
    assert nodes.stderr == ""
    both = json.loads(nodes.stdout)["strategy"]
    assert (both["device_kind"], both["num_processes"], both["num_nodes"]) == ("npu", 8, 2)


def test_an_unknown_machine_is_two_lines_and_exit_2(tmp_path: Path, qa_rows: Path) -> None:
    for arguments in (["devices"], ["plan", str(job(tmp_path, qa_rows))]):
        done = ftwiz(*arguments, "--machine", "8xH1000", code=2)
        assert done.stdout == ""
        assert done.stderr.splitlines() == [
            "error: --machine '8xH1000' has an unknown accelerator 'H1000'",
            f"hint: did you mean H100 or V100 or P100? {FILE_HINT}",
        ]


def test_watching_needs_a_terminal_and_nothing_else() -> None:
    assert "--watch needs a terminal" in ftwiz("devices", "--watch", code=2).stderr
    assert "neither --json nor --machine" in ftwiz("devices", "--watch", "--json", code=2).stderr


def test_watching_refreshes_in_place_until_it_is_interrupted() -> None:
    child = pexpect.spawn(
        sys.executable,
        ["-m", "ftwiz", "devices", "--watch"],
        dimensions=(24, 80),
        encoding="utf8",
        timeout=20,
    )
    child.expect("Ctrl-C leaves")
    child.expect(r"\d+ % of \d+ CPUs")  # the second frame: a share of CPU time needs two readings
    child.sendintr()
    child.expect(r"\x1b\[\?1049l")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_a_written_machine_says_what_was_assumed() -> None:
    lines = plain(machine_lines(parse_machine("2 nodes x 8xA100+1TB"), (), width=80))
    assert lines[0] == "2 nodes, each with 8 x NVIDIA A100-SXM4-40GB"
    assert lines[2].split() == ["#", "DEVICE", "TOTAL", "ARCH", "BANDWIDTH", "BF16"]
    assert sum("taken as" in line for line in lines) == 1, "said once, not for every card"
    assert lines[-1] == "memory    1.0 TiB"


def test_the_page_lists_every_field_of_the_file() -> None:
    page = (ROOT / "docs" / "hardware.md").read_text(encoding="utf8")
    nouns = (Machine, Host, Limit, Device, DeviceProcess, Link, Disk, NetworkPort, Problem, DeviceReading)
    for noun in nouns:
        for field in dataclasses.fields(noun):
            assert f"`{field.name}`" in page, f"{noun.__name__}.{field.name}"


def ftwiz(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "ftwiz", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, done.stderr
    return done


def job(folder: Path, rows: Path) -> Path:
    path = folder / "job.yaml"
    body = {"version": 1, "model": {"name_or_path": "ftwiz:demo"}, "data": {"path": str(rows)}}
    path.write_text(yaml.safe_dump(body), encoding="utf8")
    return path
