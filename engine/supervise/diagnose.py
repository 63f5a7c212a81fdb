"""Why an attempt failed: rules as a table, evidence in, a diagnosis out. Pure.

When no rule fits, the diagnosis is ``unknown`` and shows the last error.
"""

import re
import signal
from collections.abc import Callable
from dataclasses import dataclass

from ..specs.run import Diagnosis
from .evidence import Evidence, Killed
from .policy import describe_exit, signal_name

UNKNOWN = "unknown"
FULL_BELOW_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """A line of a log or an error that names its cause."""

    cause: str
    pattern: re.Pattern[str]
    message: str
    advice: str
    source: str
    """Where the text comes from that the pattern looks for."""
    command: Callable[[Evidence], str | None] | None = None


def _smaller_micro_batch(evidence: Evidence) -> str | None:
    size = evidence.micro_batch_size
    if size is None or size < 2:  # noqa: PLR2004 - one sequence cannot be halved
        return f"ftwiz run {evidence.job_file} --set plan.gradient_checkpointing=true"
    return f"ftwiz run {evidence.job_file} --set plan.micro_batch_size={size // 2}"


def _install(_evidence: Evidence) -> str:
    return "python -m pip install 'ftwiz[train]'"


# Order matters: an earlier rule is the cause of what a later one finds.
RULES: tuple[Rule, ...] = (
    Rule(
        cause="device_oom",
        pattern=re.compile(
            r"\b(CUDA|NPU|HIP|XPU|MPS backend)\b.{0,20}out of memory|OutOfMemoryError", re.IGNORECASE
        ),
        message="a device ran out of memory",
        advice="halve the micro batch (the global batch stays) or turn on gradient checkpointing",
        source="torch 2.13, c10/cuda/CUDACachingAllocator.cpp; torch_npu; MPSAllocator.mm",
        command=_smaller_micro_batch,
    ),
    Rule(
        cause="host_oom",
        pattern=re.compile(r"DefaultCPUAllocator: (can't|not enough)|^MemoryError|Cannot allocate memory"),
        message="the host ran out of memory",
        advice="use fewer ranks or a smaller micro batch, or a host with more memory",
        source="torch 2.13, c10/core/impl/alloc_cpu.cpp; errno ENOMEM",
        command=_smaller_micro_batch,
    ),
    Rule(
        cause="shared_memory_full",
        pattern=re.compile(
            r"out of shared memory|unable to (open|allocate) shared memory|insufficient shared memory"
        ),
        message="shared memory (/dev/shm) is full",
        advice="give the container more: docker run --shm-size=8g, or --ipc=host",
        source="torch 2.13, utils/data/_utils/signal_handling.py",
    ),
    Rule(
        cause="disk_full",
        pattern=re.compile(r"No space left on device|Errno 28\b|Disk quota exceeded|Errno 122\b"),
        message="the disk is full",
        advice="free space or lower train.save_total_limit, then resume",
        source="errno ENOSPC, EDQUOT",
    ),
    Rule(
        cause="nan",
        pattern=re.compile(
            r"\b(loss|gradient|grad_norm)\b.{0,40}\b(is|became|are|contains?)\b.{0,12}\b(nan|inf|non-?finite)\b",
            re.IGNORECASE,
        ),
        message="the loss is no longer a number",
        advice="lower the learning rate, or train in bf16 instead of fp16",
        source="ftwiz's worker",
    ),
    Rule(
        cause="port_in_use",
        pattern=re.compile(r"EADDRINUSE|[Aa]ddress already in use"),
        message="another program took the port on which the ranks meet",
        advice="start again: a free port is chosen anew",
        source="errno EADDRINUSE; torch 2.13, TCPStore",
    ),
    Rule(
        cause="stack_missing",
        pattern=re.compile(
            r"ModuleNotFoundError: No module named "
            r"'(torch|transformers|trl|peft|accelerate|datasets|tokenizers)\b"
        ),
        message="the training stack is not installed",
        advice="install it",
        source="Python's import",
        command=_install,
    ),
    Rule(
        cause="stack_version",
        pattern=re.compile(
            r"ImportError: (cannot import name|.*undefined symbol)|^ModuleNotFoundError"
            r"|is required for a normal functioning"
        ),
        message="packages of the training stack do not fit together",
        advice="install the versions that ftwiz was tested with",
        source="Python's import; transformers 5.23, dependency_versions_check.py",
        command=_install,
    ),
    Rule(
        cause="model_gated",
        pattern=re.compile(
            r"only to people who asked for it|GatedRepoError|Cannot access gated repo|gated repo"
        ),
        message="the model is gated: its owner has to let you in",
        advice="ask for access on its page, then: huggingface-cli login",
        source="ftwiz's worker; huggingface_hub, errors.py",
    ),
    Rule(
        cause="model_unreachable",
        pattern=re.compile(
            r"the hub cannot be reached|neither a local folder nor a model on the hub|the hub has no such"
            r"|OfflineModeIsEnabled|LocalEntryNotFoundError|RepositoryNotFoundError"
            r"|couldn't connect to 'https?:|is not a local folder and is not a valid model identifier"
        ),
        message="the model cannot be found here nor downloaded",
        advice="check its name and the connection, or give a local folder as model.name_or_path",
        source="ftwiz's worker; transformers 5.23, utils/hub.py; huggingface_hub, errors.py",
    ),
    Rule(
        cause="model",
        pattern=re.compile(r"\bthe (model|tokenizer) cannot be loaded\b"),
        message="the model cannot be loaded",
        advice="check its folder: config.json, weights in .safetensors and tokenizer files",
        source="ftwiz's worker",
    ),
    Rule(
        cause="data",
        pattern=re.compile(
            r"DatasetGenerationError|JSONDecodeError|ArrowInvalid|UnicodeDecodeError|\.(jsonl|json|csv):\d+: "
        ),
        message="the data cannot be read",
        advice="mend the row that is named and start again",
        source="datasets, exceptions.py; ftwiz's data room",
    ),
    Rule(
        cause="driver",
        pattern=re.compile(
            r"CUDA driver version is insufficient|no CUDA-capable device"
            r"|CUDA error: (unknown error|device-side|uncorrectable)|fallen off the bus"
            r"|NCCL.{0,40}unhandled (cuda|system) error"
        ),
        message="the device or its driver failed",
        advice="look at the driver (nvidia-smi, dmesg); a reset of the device may be needed",
        source="CUDA runtime error strings; NCCL",
    ),
    Rule(
        cause="communication",
        pattern=re.compile(
            r"Watchdog caught collective operation timeout|[Cc]onnection closed by peer"
            r"|Timed out waiting|Connection reset by peer"
        ),
        message="ranks lost each other",
        advice="see which rank's log ends first: it went away or hung, and the others waited for it",
        source="torch 2.13, ProcessGroupNCCL.cpp; gloo, transport/tcp/pair.cc",
    ),
)

_FROM_OUTSIDE = "somebody or something outside ended it: a person, a scheduler, a memory watcher"
_ERROR_LINE = re.compile(
    r"^(?:\[rank\d+\]:\s*)?[\w.]*(Error|Exception|Interrupt)\b|\b(error|fatal):", re.IGNORECASE
)


def diagnose(evidence: Evidence) -> Diagnosis:
    """Return the cause that the evidence shows, or ``unknown`` with the last error line."""
    was_killed = evidence.killed is not None and evidence.killed.signal == signal.SIGKILL
    if evidence.new_oom_kills and (was_killed or evidence.vanished_rank is not None):
        return _oom_killed(evidence)
    if evidence.killed is not None and was_killed:
        return _killed(evidence.killed)
    return _by_rule(evidence) or _by_disk(evidence) or _by_exit(evidence) or _unknown(evidence)


def _by_rule(evidence: Evidence) -> Diagnosis | None:
    texts = (*evidence.errors, *evidence.alert_messages, *evidence.lines)
    for rule in RULES:
        shown = next((text for text in texts if rule.pattern.search(text)), None)
        if shown is not None:
            return Diagnosis(
                cause=rule.cause,
                message=rule.message,
                evidence=shown.strip(),
                advice=rule.advice,
                command=rule.command(evidence) if rule.command else None,
            )
    return None


def _by_disk(evidence: Evidence) -> Diagnosis | None:
    # On a full disk the logs end before the error: the disk itself is the witness.
    if evidence.free_bytes is None or evidence.free_bytes >= FULL_BELOW_BYTES:
        return None
    rule = next(rule for rule in RULES if rule.cause == "disk_full")
    seen = f"{evidence.free_bytes} bytes are free on the disk of the run folder"
    return Diagnosis(cause=rule.cause, message=rule.message, evidence=seen, advice=rule.advice)


def _by_exit(evidence: Evidence) -> Diagnosis | None:
    if evidence.killed is not None:
        return _killed(evidence.killed)
    if evidence.launcher_code is not None and evidence.launcher_code < 0:
        message = f"the launcher {describe_exit(evidence.launcher_code)}"
        return Diagnosis(cause="killed", message=message, advice=_FROM_OUTSIDE)
    if evidence.vanished_rank is not None:
        return Diagnosis(
            cause="rank_died",
            message=f"rank {evidence.vanished_rank} died without a word",
            evidence=evidence.failed_rank,
            advice=f"{_FROM_OUTSIDE}; see ftwiz logs {evidence.run_id} --rank {evidence.vanished_rank}",
        )
    return None


def _oom_killed(evidence: Evidence) -> Diagnosis:
    rank = evidence.killed.rank if evidence.killed is not None else evidence.vanished_rank
    return Diagnosis(
        cause="host_oom",
        message=f"the host ran out of memory and the kernel killed rank {rank}",
        evidence=f"the kernel's count of out-of-memory kills rose by {evidence.new_oom_kills} meanwhile",
        advice="use fewer ranks or a smaller micro batch, or raise the memory limit of the job or container",
        command=_smaller_micro_batch(evidence),
    )


def _killed(killed: Killed) -> Diagnosis:
    is_outside = killed.signal in {signal.SIGKILL, signal.SIGTERM}
    return Diagnosis(
        cause="killed",
        message=f"rank {killed.rank} was killed by signal {killed.signal} ({signal_name(killed.signal)})",
        evidence="the launcher reports it",
        advice=_FROM_OUTSIDE if is_outside else "it crashed below Python: the end of its log may say where",
    )


def _unknown(evidence: Evidence) -> Diagnosis:
    last_error = next((line for line in reversed(evidence.lines) if _ERROR_LINE.search(line)), None)
    last_line = evidence.lines[-1] if evidence.lines else "the logs are empty"
    message = next(iter(evidence.errors), None) or f"the launcher {describe_exit(evidence.launcher_code)}"
    return Diagnosis(
        cause=UNKNOWN,
        message=message,
        evidence=(last_error or last_line).strip(),
        advice=f"read the logs: ftwiz logs {evidence.run_id}",
    )
