"""Host, hardware, environment and Ascend: this machine's own where it has them."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftwiz.engine.doctor import (
    Level,
    ascend,
    environment_checks,
    hardware_checks,
    host_checks,
)
from ftwiz.engine.doctor.finding import Finding
from ftwiz.engine.hardware.system import System
from ftwiz.engine.specs.machine import Device, DeviceProcess, Limit, Machine, NetworkPort, Problem

from .conftest import GPU_TORCH, HOST, MakePatient

GPU = Device(
    kind="cuda",
    index=0,
    name="NVIDIA H100",
    vendor="nvidia",
    total_bytes=80 << 30,
    free_bytes=79 << 30,
)
NPU = Device(kind="npu", index=0, name="Ascend910B3", vendor="huawei")


def _levels(findings: list[Finding]) -> list[Level]:
    return [finding.level for finding in findings]


# host


def test_this_python_is_well(patient: MakePatient) -> None:
    findings = list(host_checks.look_at_python(patient()))
    assert findings[0].level is Level.OK
    assert findings[0].what.startswith("Python 3.")
    assert Level.ERROR not in _levels(findings)


def test_wsl_is_told_by_its_kernel(patient: MakePatient) -> None:
    files = {"/proc/sys/kernel/osrelease": "5.15.90.1-microsoft-standard-WSL2\n"}
    assert "this is WSL" in [one.what for one in host_checks.look_at_python(patient(files=files))]


def test_a_small_dev_shm_is_told_with_its_size(patient: MakePatient) -> None:
    real = replace(patient(), system=System({}, Path("/")))
    total = os.statvfs("/dev/shm")  # noqa: S108 - asked for its size
    (finding,) = host_checks.look_at_shared_memory(real)
    is_small = total.f_blocks * total.f_frsize < 1 << 30
    assert finding.level is (Level.WARNING if is_small else Level.OK)
    (missing,) = host_checks.look_at_shared_memory(patient())
    assert missing.level is Level.WARNING


def test_limits_of_the_shell_are_told(patient: MakePatient) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        findings = list(host_checks.look_at_limits(patient()))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "only 256 files may be open at once" in [one.what for one in findings]


def test_locked_memory_matters_where_infiniband_is_active(patient: MakePatient) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    ports = (NetworkPort(name="mlx5_0/1", is_active=True), NetworkPort(name="mlx5_1/1", is_active=False))
    joined = patient(machine=Machine(host=HOST, ports=ports))
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 20, hard))
    try:
        told = [one for one in host_checks.look_at_limits(joined) if "locked" in one.what]
        alone = [one for one in host_checks.look_at_limits(patient()) if "locked" in one.what]
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (soft, hard))
    assert (len(told), len(alone)) == (1, 0)
    assert "mlx5_0/1" in (told[0].evidence or "")
    assert "mlx5_1" not in (told[0].evidence or "")


def test_the_end_of_a_slurm_job_is_told(patient: MakePatient) -> None:
    def inside(hours: float) -> Finding:
        end = str(int(time.time() + hours * 3600))
        (finding,) = host_checks.look_at_time(
            patient(environ={"SLURM_JOB_ID": "77", "SLURM_JOB_END_TIME": end})
        )
        return finding

    assert inside(20).what == "inside SLURM job 77: 20.0 h left"
    assert (inside(20).level, inside(0.5).level) == (Level.NOTE, Level.WARNING)


def test_a_login_node_is_told_by_its_tools(patient: MakePatient, program: Callable[[str, str], Path]) -> None:
    path = program("sbatch", "exit 0")
    (finding,) = host_checks.look_at_time(patient(environ={"PATH": str(path)}))
    assert "not inside one of its jobs" in finding.what


# hardware


def test_a_broken_driver_is_an_error_alone_and_a_warning_beside_a_working_card(patient: MakePatient) -> None:
    problem = Problem(source="NVML", message="NVML: driver and library differ", advice="reboot")
    alone = list(hardware_checks.look(patient(machine=Machine(host=HOST, problems=(problem,)))))
    beside = list(
        hardware_checks.look(patient(machine=Machine(host=HOST, devices=(GPU,), problems=(problem,))))
    )
    assert _levels(alone) == [Level.ERROR]
    assert _levels(beside) == [Level.OK, Level.WARNING]
    assert alone[0].advice == "reboot"


def test_lost_busy_and_mixed_devices_are_told(patient: MakePatient) -> None:
    busy = replace(
        GPU, index=1, free_bytes=20 << 30, processes=(DeviceProcess(pid=7, name="/usr/bin/python train.py"),)
    )
    lost = replace(GPU, index=2, physical_index=5, is_lost=True)
    other = replace(GPU, index=3, name="NVIDIA L4", free_bytes=None)
    findings = list(hardware_checks.look(patient(devices=(GPU, busy, lost, other))))
    text = [one.what for one in findings]
    assert text[0] == "2 x NVIDIA H100 (80 GiB), 1 x NVIDIA L4 (80 GiB)"
    assert text[1] == "NVIDIA H100 (number 5) no longer answers"
    assert text[2] == "1 of 3 devices is in use"
    assert findings[2].evidence == "number 1: 60 GiB taken by python (pid 7)"
    assert text[3] == "different devices in one box"


def test_what_an_idle_ascend_keeps_for_itself_is_nobody(patient: MakePatient) -> None:
    idle = replace(NPU, total_bytes=32 << 30, free_bytes=27 << 30)
    assert _levels(list(hardware_checks.look(patient(devices=(idle,))))) == [Level.OK]


def test_limits_of_a_container_are_notes(patient: MakePatient) -> None:
    host = replace(
        HOST,
        num_cpus=4,
        container="docker",
        limits=(
            Limit(what="cpus", by="cgroup /x", value=4),
            Limit(what="memory", by="SLURM", value=32 << 30),
        ),
    )
    first, second = hardware_checks.look_at_limits(patient(machine=Machine(host=host, devices=(GPU,) * 8)))
    assert first.what.endswith("in a docker container")
    assert first.evidence == "cpus: 4 by cgroup /x; memory: 32 GiB by SLURM"
    assert second.what.startswith("4 CPUs for 8 devices")


# environment


def test_a_quiet_environment_is_well(patient: MakePatient) -> None:
    assert _levels(list(environment_checks.look(patient()))) == [Level.OK]


@pytest.mark.parametrize(
    ("environ", "level", "words"),
    [
        ({"CUDA_VISIBLE_DEVICES": ""}, Level.WARNING, "hides every device"),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, Level.WARNING, "hides every device"),
        ({"ASCEND_RT_VISIBLE_DEVICES": "-1"}, Level.WARNING, "hides every device"),
        ({"PYTORCH_CUDA_ALLOC_CONF": "a:1"}, Level.NOTE, "older name"),
        ({"PYTORCH_CUDA_ALLOC_CONF": "a:1", "PYTORCH_ALLOC_CONF": "a:2"}, Level.WARNING, "only one"),
        ({"OMP_NUM_THREADS": "65"}, Level.NOTE, "on 64 CPUs"),
        ({"OMP_NUM_THREADS": "1"}, Level.NOTE, "uses one of 64"),
        ({"OMP_NUM_THREADS": "many"}, Level.WARNING, "not a number"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, Level.WARNING, "ACCELERATE_USE_FSDP, FSDP_V"),
        ({"RANK": "0", "WORLD_SIZE": "8"}, Level.WARNING, "left over from a launcher"),
        ({"CUDA_LAUNCH_BLOCKING": "1"}, Level.WARNING, "slow"),
        ({"HSA_OVERRIDE_GFX_VERSION": "10.3.0"}, Level.WARNING, "another one"),
    ],
)
def test_variables_that_bite_are_told(
    environ: dict[str, str], level: Level, words: str, patient: MakePatient
) -> None:
    (finding,) = environment_checks.look(patient(environ=environ))
    assert finding.level is level
    assert words in finding.what


@pytest.mark.parametrize("value", ["0", "0,1", "GPU-1f2e"])
def test_chosen_devices_are_no_finding(value: str, patient: MakePatient) -> None:
    assert _levels(list(environment_checks.look(patient(environ={"CUDA_VISIBLE_DEVICES": value})))) == [
        Level.OK
    ]


def test_a_default_configuration_of_accelerate_is_told(patient: MakePatient, tmp_path: Path) -> None:
    path = tmp_path / ".cache" / "huggingface" / "accelerate" / "default_config.yaml"
    assert list(environment_checks.look_at_accelerate(patient())) == []
    path.parent.mkdir(parents=True)
    path.touch()
    (finding,) = environment_checks.look_at_accelerate(patient())
    assert finding.evidence == str(path)


# Ascend

NPU_FILES = {"/dev/davinci_manager": "", "/usr/local/Ascend/ascend-toolkit/set_env.sh": ""}


def test_a_box_without_npus_is_not_asked(patient: MakePatient) -> None:
    assert list(ascend.look(patient(devices=(GPU,)))) == []


def test_npus_without_cann_and_torch_npu_are_told_what_is_missing(patient: MakePatient) -> None:
    findings = list(
        ascend.look(patient(devices=(NPU, NPU), files=NPU_FILES, versions={"torch": "2.13.0+cpu"}))
    )
    text = [one.what for one in findings]
    assert text == [
        "npu-smi is missing: ftwiz cannot see how busy the NPUs are",
        "CANN's environment is not set: torch-npu cannot find its libraries",
        "torch-npu is not installed: torch cannot use 2 NPUs",
    ]
    assert findings[1].command == "source /usr/local/Ascend/ascend-toolkit/set_env.sh"
    assert findings[2].command == "pip install torch-npu==2.13.0"
    assert _levels(findings)[1:] == [Level.ERROR, Level.ERROR]


def test_a_toolkit_that_was_moved_and_a_wrong_pair_are_errors(
    patient: MakePatient, program: Callable[[str, str], Path]
) -> None:
    environ = {"ASCEND_TOOLKIT_HOME": "/gone", "PATH": str(program("npu-smi", "exit 0"))}
    made = patient(devices=(NPU,), environ=environ, versions={"torch": "2.13.0", "torch-npu": "2.9.0.post1"})
    first, second = ascend.look(made)
    assert first.what == "ASCEND_TOOLKIT_HOME leads nowhere: /gone"
    assert second.what == "torch-npu 2.9.0.post1 does not fit torch 2.13.0"


def test_why_torch_npu_does_not_work_is_told(
    patient: MakePatient, program: Callable[[str, str], Path]
) -> None:
    environ = {"ASCEND_TOOLKIT_HOME": "/cann", "PATH": str(program("npu-smi", "exit 0"))}
    made = patient(
        devices=(NPU,),
        environ=environ,
        files={"/cann/version": ""},
        versions={"torch": "2.13.0", "torch-npu": "2.13.0"},
        torch=replace(GPU_TORCH, npu_available=False, npu_why_not="error code is 507033"),
    )
    (finding,) = ascend.look(made)
    assert (finding.level, finding.what) == (Level.ERROR, "the NPU could not be set up")


LOGS = {
    "EJ0001": "EJ0001: 2024-05-21 Failed to initialize the HCCP process. Reason: Maybe the last training ...",
    "EI0006": "EI0006: Getting socket times out. Reason: Remote Rank did not send the data in time.",
    "EI0002": "The error from device(chipId:3), hccl fftsplus task timeout occurred during task execution",
    "507018": "RuntimeError: ACL stream synchronize failed, error code:507018",
    "507015": "RuntimeError: ACL stream synchronize failed, error code:507015",
    "cuda": "AssertionError: Torch not compiled with CUDA enabled",
    "cpu": "RuntimeError: DeviceType must be NPU. Actual DeviceType is: cpu, [ERROR] MulKernelNpuOpApi",
    "fuser": "NotImplementedError: Unknown device for graph fuser",
}


@pytest.mark.parametrize("code", LOGS)
def test_ascends_failures_are_told_apart(code: str) -> None:
    assert [answer.code for answer in ascend.answers(f"line\n{LOGS[code]}\nline")] == [code]


def test_a_log_without_them_tells_nothing() -> None:
    assert ascend.answers("step 507018123 loss 1.2\nNCCL WARN socket closed") == []


def test_a_run_that_ended_with_one_is_told(patient: MakePatient, finished_run: Path) -> None:
    made = patient(runs=finished_run.parent)
    assert list(ascend.look_at_runs(made)) == []
    (finished_run / "log" / "rank-0.log").write_bytes(b"\xff" * 1000 + LOGS["EJ0001"].encode())
    (finding,) = ascend.look_at_runs(made)
    assert finding.command == f"ftwiz logs {finished_run.name}"
    assert "wait 10 s" in (finding.advice or "")


@given(st.text())
def test_any_text_is_searched_for_answers(text: str) -> None:
    assert len(ascend.answers(text)) <= len(ascend.ANSWERS)
