"""Examines machine and installation: small checks, each alone and bounded in time. Works without torch."""

import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from ..hardware.system import System
from ..specs.machine import Machine
from . import (
    ascend,
    build_checks,
    disk_checks,
    environment_checks,
    hardware_checks,
    host_checks,
    hub,
    network_checks,
    package_checks,
    torch_checks,
)
from .finding import Check, Finding, Level, warning
from .patient import Awaited, Patient, installed_versions
from .torch_report import ask

__all__ = ["CHECKS", "TORCH_SECONDS", "Check", "Finding", "Level", "Patient", "examine", "meet"]

TORCH_SECONDS = 6.0
"""Importing torch takes 1 to 5 s from a local disk."""
MACHINE_SECONDS = 22.0
"""A driver that has to wake eight cards takes ten seconds, and detect() gives up after twenty."""
CHECK_SECONDS = 3.0
"""What a check may take that waits for neither."""
SPARE_SECONDS = 0.8
"""What a check may take after the slow answers are there."""

CHECKS: tuple[Check, ...] = (
    Check(name="python", about="interpreter, platform, C library", look=host_checks.look_at_python),
    Check(name="hardware", about="devices found, broken, lost, busy, mixed", look=hardware_checks.look),
    Check(
        name="host",
        about="CPUs and memory after container, cgroup, affinity and SLURM limits",
        look=hardware_checks.look_at_limits,
    ),
    Check(
        name="torch",
        about="its build against driver, devices and their architectures; why a backend is not available",
        look=torch_checks.look,
    ),
    Check(
        name="packages",
        about="versions of the training stack against the tested ranges",
        look=package_checks.look,
    ),
    Check(
        name="compiled",
        about="torchvision, torchaudio, flash-attn and bitsandbytes against the installed torch",
        look=package_checks.look_at_companions,
    ),
    Check(
        name="security",
        about="versions with holes that a model or a checkpoint can reach",
        look=package_checks.look_for_holes,
    ),
    Check(name="ascend", about="driver rights, CANN's environment, torch-npu", look=ascend.look),
    Check(
        name="runs",
        about="failures of Ascend NPUs in the logs of the newest runs, told apart by code",
        look=ascend.look_at_runs,
    ),
    Check(
        name="compilers",
        about="gcc, g++, ninja, nvcc, Python's headers and libaio, for Triton and DeepSpeed",
        look=build_checks.look_at_compilers,
    ),
    Check(
        name="build locks",
        about="locks of torch's extension builds that no living process holds",
        look=build_checks.look_for_stale_locks,
    ),
    Check(
        name="shared memory",
        about="size and free space of /dev/shm",
        look=host_checks.look_at_shared_memory,
    ),
    Check(
        name="limits",
        about="open files, processes, locked and addressable memory, file size",
        look=host_checks.look_at_limits,
    ),
    Check(
        name="time",
        about="what ends a run from outside: SLURM's time limit, CPU time limits",
        look=host_checks.look_at_time,
    ),
    Check(
        name="network",
        about="interface that NCCL, HCCL and gloo would choose, and variables that name a missing one",
        look=network_checks.look,
    ),
    Check(
        name="disk",
        about="room, inodes and permission where runs, models and temporary files go",
        look=disk_checks.look,
    ),
    Check(
        name="disk speed",
        about="writing and reading where offloaded states would go; at most 256 MiB and one second",
        look=disk_checks.look_at_speed,
    ),
    Check(name="hub", about="Hugging Face cache, offline state, whether a token is there", look=hub.look),
    Check(
        name="environment",
        about="variables that hide devices, slow training down or are left over from another launch",
        look=environment_checks.look,
    ),
    Check(
        name="accelerate",
        about="a default configuration that a plain accelerate launch would pick up",
        look=environment_checks.look_at_accelerate,
    ),
)


def meet(
    detect: Callable[[], Machine],
    *,
    runs: Path,
    system: System | None = None,
    torch_seconds: float = TORCH_SECONDS,
) -> Patient:
    """Return what the checks look at; the slow answers are being gathered when this returns.

    Args:
        detect: Reads the machine; called in a thread.
        runs: Folder of all runs.
        system: Environment and root of the box; our own when absent.
        torch_seconds: How long torch may take to answer.
    """
    system = system or System(dict(os.environ))
    # ask() keeps what torch had said when its time is up, so it is given a little longer than that.
    torch = Awaited(lambda: ask(system, seconds=torch_seconds), seconds=torch_seconds + 0.7)
    return Patient(
        system=system,
        machine_answer=Awaited(detect, seconds=MACHINE_SECONDS),
        torch_answer=torch,
        versions=installed_versions(),
        runs=runs,
    )


def examine(patient: Patient, checks: Iterable[Check] = CHECKS) -> tuple[Finding, ...]:
    """Run the checks side by side and return their findings in the order of the checks. Never raises.

    A check that fails, or is not done when its time is up, is a finding itself; the others are not held up.
    """
    began = time.monotonic()
    running = [(check, *_start(check, patient)) for check in checks]
    patient.machine_answer.get()
    patient.torch_answer.get()
    deadline = max(began + CHECK_SECONDS, time.monotonic() + SPARE_SECONDS)
    findings: list[Finding] = []
    for check, thread, said in running:
        thread.join(max(0.0, deadline - time.monotonic()))
        found = list(said)
        if thread.is_alive():
            found.append(
                warning(
                    f"this check gave no answer in {time.monotonic() - began:.0f} s",
                    advice="something that it reads hangs: a network disk, a driver or a name server",
                )
            )
        findings += [replace(finding, check=check.name) for finding in found]
    return tuple(findings)


def _start(check: Check, patient: Patient) -> tuple[threading.Thread, list[Finding]]:
    said: list[Finding] = []

    def run() -> None:
        try:
            for finding in check.look(patient):
                said.append(finding)  # noqa: PERF402 - what was said before a failure is kept
        except Exception as failure:  # noqa: BLE001 - a doctor must not fall ill himself
            said.append(
                warning(
                    "this check failed, which is a defect of ftwiz",
                    evidence=f"{type(failure).__name__}: {failure}",
                    advice="please report it with this line",
                )
            )

    # A daemon: what hangs in the kernel must not keep the program from ending.
    thread = threading.Thread(target=run, name=check.name, daemon=True)
    thread.start()
    return thread, said
