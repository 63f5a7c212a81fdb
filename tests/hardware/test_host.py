"""What the process may use of the host: limits of containers count as much as the hardware."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from ftwiz.engine.hardware import HostSampler, detect, host_reading
from ftwiz.engine.hardware.host import cpu_limits, memory_limits, read_host
from ftwiz.engine.specs.machine import Machine

MIB = 2**20


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf8")
    return root


def test_this_host_is_read() -> None:
    machine = detect({"CUDA_VISIBLE_DEVICES": ""})
    assert machine == Machine(host=machine.host)
    assert 1 <= machine.host.num_cpus <= (os.cpu_count() or 1)
    assert machine.host.total_bytes is not None
    assert machine.host.available_bytes is not None
    assert 0 < machine.host.available_bytes <= machine.host.total_bytes <= psutil.virtual_memory().total


def test_version_2_limits_of_the_group_and_of_its_parents_count(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/slurm/job"
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/slurm/job",
            f"{group}/memory.max": str(900 * MIB),
            f"{group}/memory.current": str(300 * MIB),
            f"{group}/memory.stat": f"anon 5\ninactive_file {100 * MIB}",
            f"{group}/cpu.max": "max 100000",
            "sys/fs/cgroup/slurm/memory.max": str(800 * MIB),
            "sys/fs/cgroup/slurm/memory.current": str(700 * MIB),
            "sys/fs/cgroup/slurm/cpu.max": "150000 100000",
        },
    )
    assert list(memory_limits(root)) == [(900 * MIB, 200 * MIB), (800 * MIB, 700 * MIB)]
    assert list(cpu_limits(root)) == [1.5]
    host = read_host(root)
    assert (host.total_bytes, host.available_bytes, host.num_cpus) == (800 * MIB, 100 * MIB, 1)


def test_version_1_limits_count_also_where_the_path_is_the_outer_one(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": str(512 * MIB),
            "sys/fs/cgroup/memory/memory.usage_in_bytes": str(200 * MIB),
            "sys/fs/cgroup/memory/memory.stat": f"total_inactive_file {50 * MIB}",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
        },
    )
    host = read_host(root)
    assert (host.total_bytes, host.available_bytes, host.num_cpus) == (512 * MIB, 362 * MIB, 1)
    reading = HostSampler(root).read()
    assert (reading.memory_used_bytes, reading.memory_total_bytes) == (150 * MIB, 512 * MIB)


def test_no_limit_is_the_hardware(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "garbage\n4:memory:/\n2:cpu:/\n0::/",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "1",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory.max": "max",
            "sys/fs/cgroup/cpu.max": "nonsense",
        },
    )
    assert read_host(root).total_bytes == psutil.virtual_memory().total
    assert list(cpu_limits(root)) == []
    assert read_host(tmp_path / "nothing").total_bytes == psutil.virtual_memory().total


def test_a_busy_process_is_seen_from_the_second_reading_on() -> None:
    busy = "import sys; print(flush=True)\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        process.stdout.readline()
        sampler = HostSampler()
        first = sampler.read([process.pid])
        time.sleep(0.5)
        second = sampler.read([process.pid, 2**22 + 1])
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
    assert (first.cpu_percent, first.run_cpu_percent) == (None, None)
    assert (first.run_memory_bytes or 0) > MIB
    assert 5 < (second.run_cpu_percent or 0) < 120
    assert 0 < (second.cpu_percent or 0) <= 100
    gone = sampler.read([process.pid])
    assert (gone.run_memory_bytes, gone.run_cpu_percent) == (None, None)


def test_the_door_keeps_its_own_earlier_reading() -> None:
    host_reading([os.getpid()])
    time.sleep(0.1)
    reading = host_reading([os.getpid()])
    assert reading.run_cpu_percent is not None
    assert (reading.run_memory_bytes or 0) > MIB
