"""Huawei's Ascend NPUs: driver, CANN and torch-npu must all be there, and their failures look alike.

``ANSWERS`` tells them apart by the codes that CANN and HCCL print.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import FtwizError
from ..rundir import RunFolder, list_runs
from .finding import Finding, error, note, ok, warning
from .patient import Patient

TOOLKIT = ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH")
SET_ENV = ("/usr/local/Ascend/ascend-toolkit/set_env.sh", "/usr/local/Ascend/cann/set_env.sh")
MANAGER = "/dev/davinci_manager"
TAIL_BYTES = 256 << 10
RECENT_RUNS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A failure by the words that it prints."""

    code: str
    pattern: re.Pattern[str]
    what: str
    advice: str
    source: str


# Codes 5070xx are CANN's runtime errors, E?nnnn those of its components: EJ device management, EI HCCL.
ANSWERS: tuple[Answer, ...] = (
    Answer(
        code="EJ0001",
        pattern=re.compile(r"\bEJ0001\b|Failed to initialize the HCCP process"),
        what="HCCL found a process of an earlier training still on the NPU",
        advice="end what is left on the NPUs (npu-smi info lists it), wait 10 s, start again",
        source="hiyouga/LLaMA-Factory#3839",
    ),
    Answer(
        code="EI0006",
        pattern=re.compile(r"\bEI0006\b|Getting socket times out"),
        what="HCCL waited in vain for another rank to connect",
        advice="look for the rank that failed first; if all wait, set HCCL_SOCKET_IFNAME to the interface "
        "that joins the machines, and HCCL_CONNECT_TIMEOUT=900 where loading is slow",
        source="vllm-project/vllm-ascend#486",
    ),
    Answer(
        code="EI0002",
        pattern=re.compile(r"\bEI0002\b|hccl fftsplus task timeout|fftsplus timeout"),
        what="HCCL waited in vain for another rank in the middle of a collective",
        advice="one rank stopped or lags: look at every rank's log; HCCL_EXEC_TIMEOUT is the limit",
        source="vllm-project/vllm-ascend#1193",
    ),
    Answer(
        code="507018",
        pattern=re.compile(r"\b507018\b"),
        what="an operator failed on the NPU's AI CPU, which sampling of text is known for",
        advice="generate without sampling (do_sample off); in ftwiz: --set run.num_samples=0",
        source="hiyouga/LLaMA-Factory#3840",
    ),
    Answer(
        code="507015",
        pattern=re.compile(r"\b5070(11|15|35)\b"),
        what="an operator failed on the NPU's cores",
        advice="run once with ASCEND_LAUNCH_BLOCKING=1: the traceback then names the operator",
        source="vllm-project/vllm-ascend#5661, #7676",
    ),
    Answer(
        code="507033",
        pattern=re.compile(r"\b507033\b"),
        what="the NPU could not be set up",
        advice="another process or container has it, or the container lacks its /dev/davinci files",
        source="CANN, runtime error codes",
    ),
    Answer(
        code="cuda",
        pattern=re.compile(r"Torch not compiled with CUDA enabled"),
        what="the model's own code asks for cuda",
        advice="use transformers' own model class (trust_remote_code off), or write npu for cuda in its code",
        source="LLaMA-Factory documentation, NPU",
    ),
    Answer(
        code="cpu",
        pattern=re.compile(r"DeviceType must be NPU\. Actual DeviceType is: *cpu"),
        what="a tensor was left on the CPU",
        advice="use transformers' own model class (trust_remote_code off), or move it in the model's code",
        source="LLaMA-Factory documentation, NPU",
    ),
    Answer(
        code="fuser",
        pattern=re.compile(r"Unknown device for graph fuser"),
        what="the model's own code is compiled by torch.jit, which has no NPUs",
        advice="remove its torch.jit.script decorators",
        source="hiyouga/LLaMA-Factory#3788",
    ),
)


def answers(text: str) -> list[Answer]:
    """Return the failures that a log tells of, likeliest cause first."""
    return [answer for answer in ANSWERS if answer.pattern.search(text)]


def look(patient: Patient) -> Iterator[Finding]:
    """Report what keeps torch from the NPUs; nothing on a machine without them."""
    devices = [device for device in patient.devices if device.kind == "npu"]
    is_there = devices or patient.system.path(MANAGER).exists() or patient.system.has("npu-smi")
    if not is_there:
        return
    yield from _driver(patient)
    cann = list(_cann(patient))
    yield from cann
    package = list(_torch_npu(patient, len(devices)))
    yield from package
    if not cann and not package:
        yield from _torch(patient, len(devices))


def look_at_runs(patient: Patient) -> Iterator[Finding]:
    """Report Ascend's failures in the logs of the newest runs."""
    with contextlib.suppress(FtwizError):
        for run in list_runs(patient.runs)[:RECENT_RUNS]:
            found = answers(_tails(run))
            if found:
                yield warning(
                    f"run {run.id}: {found[0].what}",
                    evidence=f"{found[0].code} in its logs ({found[0].source})",
                    advice=found[0].advice,
                    command=f"ftwiz logs {run.id}",
                )


def _driver(patient: Patient) -> Iterator[Finding]:
    manager = patient.system.path(MANAGER)
    if manager.exists() and not os.access(manager, os.R_OK | os.W_OK):
        yield error(
            f"no right to use {MANAGER}",
            evidence="the NPUs belong to a group, HwHiAiUser by default",
            advice="join it and log in again: sudo usermod -aG HwHiAiUser $USER",
        )
    if manager.exists() and not patient.system.has("npu-smi"):
        yield note(
            "npu-smi is missing: ftwiz cannot see how busy the NPUs are",
            advice="in a container, mount it: -v /usr/local/bin/npu-smi:/usr/local/bin/npu-smi",
        )


def _cann(patient: Patient) -> Iterator[Finding]:
    name = next((name for name in TOOLKIT if patient.environ.get(name)), None)
    if name is not None:
        folder = patient.environ[name]
        if not patient.system.path(folder).is_dir():
            yield error(
                f"{name} leads nowhere: {folder}",
                advice="CANN was moved or removed: install toolkit and kernels, then source its set_env.sh",
            )
        return
    script = next((path for path in SET_ENV if patient.system.path(path).is_file()), None)
    yield error(
        "CANN's environment is not set: torch-npu cannot find its libraries",
        evidence=f"{TOOLKIT[0]} is not set" + (f"; CANN is in {Path(script).parent}" if script else ""),
        advice="source its script, in every shell that trains"
        if script
        else "install CANN, toolkit and kernels, for this NPU",
        command=f"source {script}" if script else None,
    )


def _torch_npu(patient: Patient, num_devices: int) -> Iterator[Finding]:
    torch, npu = patient.versions.get("torch"), patient.versions.get("torch-npu")
    if npu is None:
        wanted = f"torch-npu=={torch.partition('+')[0]}" if torch else "torch-npu"
        yield error(
            f"torch-npu is not installed: torch cannot use {_number(num_devices)}",
            advice="install the one with torch's version number, or the nearest older pair of both",
            command=f"pip install {wanted}",
        )
    elif torch is not None and _release(npu) != _release(torch):
        yield error(
            f"torch-npu {npu} does not fit torch {torch}",
            advice="install both in the same version",
            command=f"pip install torch=={_release(npu)} torch-npu=={npu}",
        )


def _torch(patient: Patient, num_devices: int) -> Iterator[Finding]:
    torch = patient.torch
    if torch is None or torch.npu_available is None:
        return
    if torch.npu_available:
        yield ok(f"torch-npu {patient.versions.get('torch-npu')} sees the NPUs")
        return
    why = torch.npu_why_not or "torch.npu.is_available() is False"
    known = answers(why)
    yield error(
        known[0].what if known else f"torch-npu cannot use {_number(num_devices)}",
        evidence=why,
        advice=known[0].advice
        if known
        else "compare driver, CANN and torch-npu with Huawei's table of versions",
    )


def _tails(run: RunFolder) -> str:
    texts = []
    for path in sorted(run.log_folder.glob("*.log"))[:64]:
        with contextlib.suppress(OSError), path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            texts.append(file.read(TAIL_BYTES).decode("utf8", errors="replace"))
    return "\n".join(texts)


def _release(version: str) -> str:
    found = re.match(r"\d+\.\d+(\.\d+)?", version)
    return found[0] if found else version


def _number(count: int) -> str:
    return f"{count} NPU{'s' if count != 1 else ''}" if count else "the NPUs"
