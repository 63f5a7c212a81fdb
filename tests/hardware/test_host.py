"""What the process may use of the host: limits of containers and batch systems count like hardware."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftwiz.engine.hardware import HostSampler, detect, host_reading
from ftwiz.engine.hardware.host import read_host
from ftwiz.engine.hardware.limits import count_of, cpu_limits, memory_bounds, slurm_limits
from ftwiz.engine.hardware.system import System
from ftwiz.engine.specs.machine import Limit, Machine

MIB = 2**20
GIB = 2**30
BIG = {
    "proc/meminfo": "MemTotal:       1056764928 kB\nMemFree: 1 kB\nMemAvailable:   900000000 kB",
    "sys/devices/system/cpu/online": "0-127",
    "proc/self/status": "Name:\tpython\nCpus_allowed_list:\t0-127\n",
}
"""A node with 1 TiB and 128 CPUs."""


def tree(root: Path, files: dict[str, str]) -> System:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf8")
    return System({}, root)


def cgroup(corpus: Path, root: Path, name: str, lines: str) -> System:
    """Return a big node whose cgroups are those of an example, which stays where it is."""
    system = tree(root, BIG | {"proc/self/cgroup": lines})
    (root / "sys/fs").mkdir(parents=True)
    (root / "sys/fs/cgroup").symlink_to(corpus / "hardware/host/cgroup_examples" / name)
    return system


def slurm(corpus: Path, name: str) -> dict[str, str]:
    lines = (corpus / "hardware/slurm" / name).read_text(encoding="utf8").splitlines()
    return dict(line.split("=", 1) for line in lines if line)


def test_this_host_is_read() -> None:
    machine = detect({"CUDA_VISIBLE_DEVICES": "", "PATH": ""})
    host = machine.host
    assert machine == Machine(host=host, disks=machine.disks, ports=machine.ports)
    assert host.num_cpus is not None
    assert 1 <= host.num_cpus <= (os.cpu_count() or 1)
    assert host.total_bytes is not None
    assert host.available_bytes is not None
    assert 0 < host.available_bytes <= host.total_bytes <= psutil.virtual_memory().total
    assert host.name == os.uname().nodename


def test_version_2_limits_of_the_group_and_of_its_parents_count(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/slurm/job"
    system = tree(
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
        }
        | BIG,
    )
    bounds = [(bound.limit.value, bound.used_bytes) for bound in memory_bounds(system)]
    assert bounds == [(900 * MIB, 200 * MIB), (800 * MIB, 700 * MIB)]
    host = read_host(system)
    assert (host.total_bytes, host.available_bytes, host.num_cpus) == (800 * MIB, 100 * MIB, 1)
    assert host.limits == (
        Limit(what="cpus", by="cgroup /sys/fs/cgroup/slurm", value=1.5),
        Limit(what="memory", by="cgroup /sys/fs/cgroup/slurm", value=800 * MIB),
        Limit(what="memory", by="cgroup /sys/fs/cgroup/slurm/job", value=900 * MIB),
    )


def test_version_1_limits_count_also_where_the_path_is_the_outer_one(tmp_path: Path) -> None:
    system = tree(
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
    host = read_host(system)
    assert (host.total_bytes, host.available_bytes, host.num_cpus) == (512 * MIB, 362 * MIB, 1)
    assert host.container == "docker"
    reading = HostSampler(system).read()
    assert (reading.memory_used_bytes, reading.memory_total_bytes) == (150 * MIB, 512 * MIB)


def test_no_limit_is_the_hardware(tmp_path: Path) -> None:
    system = tree(
        tmp_path,
        {
            "proc/self/cgroup": "garbage\n4:memory:/\n2:cpu:/\n0::/",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "1",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory.max": "max",
            "sys/fs/cgroup/cpu.max": "nonsense",
        }
        | BIG,
    )
    host = read_host(system)
    assert (host.total_bytes, host.num_cpus, host.limits) == (1056764928 * 1024, 128, ())
    nothing = read_host(System({}, tmp_path / "nothing"))
    assert (nothing.total_bytes, nothing.limits) == (psutil.virtual_memory().total, ())


def test_affinity_and_cpusets_leave_fewer_cpus(tmp_path: Path) -> None:
    files = BIG | {"proc/self/status": "Cpus_allowed:\tff\nCpus_allowed_list:\t0-3,8,64-66\n"}
    host = read_host(tree(tmp_path, files))
    assert (host.num_cpus, host.limits) == (8, (Limit(what="cpus", by="affinity", value=8),))


def test_a_version_2_group_of_the_examples_bounds_memory_cpus_and_free_memory(
    corpus: Path, tmp_path: Path
) -> None:
    host = read_host(cgroup(corpus, tmp_path, "v2_limited", "0::/"))
    used = 21474836480 - 12884901888  # file cache that nobody uses can be dropped
    assert (host.total_bytes, host.available_bytes) == (64 * GIB, 64 * GIB - used)
    assert host.num_cpus == 8
    assert {limit.by for limit in host.limits} == {"cgroup /sys/fs/cgroup"}


def test_a_parent_of_the_examples_bounds_more_than_its_child(corpus: Path, tmp_path: Path) -> None:
    folder = corpus / "hardware/host/cgroup_examples/v2_nested"
    lines = (folder / "proc-self-cgroup").read_text(encoding="utf8")
    host = read_host(cgroup(corpus, tmp_path, "v2_nested", lines))
    parent, child = (folder / name / "memory.max" for name in ("kubepods.slice", "kubepods.slice/pod1"))
    assert host.total_bytes == int(parent.read_text())
    assert host.limits[0].by == "cgroup /sys/fs/cgroup/kubepods.slice"
    assert child.read_text().strip() == "max" or int(child.read_text()) > host.total_bytes
    assert host.container == "kubernetes"


def test_a_version_1_group_of_the_examples_bounds_memory_and_cpus(corpus: Path, tmp_path: Path) -> None:
    folder = corpus / "hardware/host/cgroup_examples/v1_limited"
    host = read_host(cgroup(corpus, tmp_path, "v1_limited", "3:cpu:/\n4:memory:/"))
    assert host.total_bytes == int((folder / "memory/memory.limit_in_bytes").read_text())
    quota, period = ((folder / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    assert host.num_cpus == int(quota) // int(period)


def test_a_group_of_the_examples_without_limits_bounds_nothing(corpus: Path, tmp_path: Path) -> None:
    assert read_host(cgroup(corpus, tmp_path, "v2_unlimited", "0::/")).limits == ()


def test_a_slurm_job_bounds_memory_by_cpu_and_cpus_by_task(corpus: Path, tmp_path: Path) -> None:
    system = System(slurm(corpus, "env_1node_2gpu_subset_synthetic.env"), tree(tmp_path, BIG).root)
    host = read_host(system)
    assert (host.num_cpus, host.total_bytes, host.available_bytes) == (16, 64 * GIB, 64 * GIB)
    assert [limit.by for limit in host.limits] == ["SLURM_CPUS_PER_TASK", "SLURM_MEM_PER_CPU"]


def test_a_slurm_job_bounds_memory_by_node(corpus: Path, tmp_path: Path) -> None:
    system = System(slurm(corpus, "env_2nodes_8gpu_synthetic.env"), tree(tmp_path, BIG).root)
    host = read_host(system)
    assert (host.num_cpus, host.total_bytes) == (96, 512 * GIB)
    assert [limit.by for limit in host.limits] == ["SLURM_CPUS_ON_NODE", "SLURM_MEM_PER_NODE"]


def test_a_login_node_with_slurm_is_not_bounded(corpus: Path, tmp_path: Path) -> None:
    system = System(slurm(corpus, "env_login-shell_gpu-none_synthetic.env"), tree(tmp_path, BIG).root)
    assert read_host(system).limits == ()


def test_a_task_of_a_step_has_its_own_cpus_and_zero_memory_is_all() -> None:
    job = {"SLURM_JOB_ID": "1", "SLURM_CPUS_ON_NODE": "96", "SLURM_CPUS_PER_TASK": "12"}
    assert [limit.value for limit in slurm_limits(job | {"SLURM_MEM_PER_NODE": "0"})] == [96]
    assert [limit.value for limit in slurm_limits(job | {"SLURM_STEP_ID": "0"})] == [96, 12]
    per_gpu = job | {"SLURM_MEM_PER_GPU": "1024", "SLURM_GPUS_ON_NODE": "4"}
    assert slurm_limits(per_gpu)[0] == Limit(what="memory", by="SLURM_MEM_PER_GPU", value=4 * GIB)
    odd = {"SLURM_JOB_ID": "1", "SLURM_MEM_PER_NODE": "64G", "SLURM_CPUS_ON_NODE": "-3"}
    assert slurm_limits(odd) == []


@pytest.mark.parametrize(
    ("text", "count"),
    [("0-7", 8), ("0-7,16", 9), ("3", 1), ("", None), ("a-b", None), ("7-0", None), ("0-9999999999", None)],
)
def test_cpus_are_counted_in_the_kernels_lists(text: str, count: int | None) -> None:
    assert count_of(text) == count


def test_the_cpu_is_named_with_what_its_kernels_may_use(tmp_path: Path) -> None:
    flags = "flags\t\t: fpu avx2 avx512f amx_bf16 sse"
    cpu = f"processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Platinum 8480+\n{flags}"
    nodes = {
        f"sys/devices/system/node/node{node}/cpulist": cpus
        for node, cpus in ((0, "0-3"), (1, "4-7"), (8, ""))
    }
    host = read_host(tree(tmp_path, {"proc/cpuinfo": f"{cpu}\n\n{cpu}"} | nodes))
    assert host.cpu_name == "Intel(R) Xeon(R) Platinum 8480+"
    assert host.cpu_flags == ("avx2", "avx512f", "amx_bf16")
    assert host.num_numa_nodes == 2, "the memory of a GPU is a node without CPUs"


@pytest.mark.parametrize(
    ("files", "environ", "kind"),
    [
        ({".dockerenv": ""}, {}, "docker"),
        ({"run/.containerenv": ""}, {}, "podman"),
        ({".dockerenv": ""}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes"),
        ({"proc/self/cgroup": "0::/lxc.payload.box"}, {}, "lxc"),
        ({}, {"APPTAINER_CONTAINER": "/images/train.sif"}, "apptainer"),
        ({"proc/self/cgroup": "0::/user.slice"}, {}, None),
    ],
)
def test_a_container_is_known_by_what_it_leaves(
    files: dict[str, str], environ: dict[str, str], kind: str | None, tmp_path: Path
) -> None:
    assert read_host(System(environ, tree(tmp_path, files).root)).container == kind


@settings(max_examples=int(os.environ.get("FTWIZ_FUZZ", "100")), deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "proc/self/cgroup",
                "proc/cpuinfo",
                "proc/meminfo",
                "proc/self/status",
                "sys/devices/system/cpu/online",
                "sys/fs/cgroup/memory.max",
                "sys/fs/cgroup/memory.current",
                "sys/fs/cgroup/cpu.max",
                "sys/fs/cgroup/memory.stat",
            ]
        ),
        st.one_of(
            st.binary(),
            st.sampled_from(
                [
                    b"0::/",
                    b"0::/../..",
                    b"1:memory:/\0",
                    b"99999999999999999999999",
                    b"-1",
                    b"MemTotal: 0 kB",
                    b"1 0",
                ]
            ),
        ),
    )
)
def test_whatever_the_kernel_says_the_host_is_read(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    root = tmp_path_factory.mktemp("root")
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    host = read_host(System({}, root))
    assert (host.num_cpus or 0) >= 1
    assert (host.total_bytes or 0) >= 0
    assert all(limit.value > 0 for limit in cpu_limits(System({}, root)))


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
