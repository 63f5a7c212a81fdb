"""Causes are named from what programs really print; what no rule knows is called unknown and shown."""

import subprocess
import sys
from pathlib import Path

import pytest

from ftwiz.engine.supervise.diagnose import RULES, diagnose
from ftwiz.engine.supervise.evidence import Evidence, Killed, killed_rank, oom_kills

HERE = Path(__file__).parent

LINES = {
    "device_oom": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB.",
    "host_oom": "RuntimeError: [enforce fail at alloc_cpu] DefaultCPUAllocator: can't allocate memory:",
    "shared_memory_full": "RuntimeError: DataLoader worker (pid 7) is killed by signal: Bus error. It is "
    "possible that dataloader's workers are out of shared memory. Please try to raise it.",
    "disk_full": "OSError: [Errno 28] No space left on device: 'checkpoints/checkpoint-8/model.safetensors'",
    "nan": "FloatingPointError: the loss became nan at step 12",
    "port_in_use": "The server socket has failed to bind to [::]:29500 (errno: 98 - Address already in use).",
    "stack_missing": "ModuleNotFoundError: No module named 'torch'",
    "stack_version": "ImportError: cannot import name 'SFTConfig' from 'trl'",
    "model_gated": "huggingface_hub.errors.GatedRepoError: 401 Client Error.",
    "model_unreachable": "OSError: We couldn't connect to 'https://huggingface.co' to load the files",
    "model": "BadInput: models/x: the model cannot be loaded: ValueError: Unrecognized model in models/x.",
    "data": "datasets.exceptions.DatasetGenerationError: An error occurred while generating the dataset",
    "driver": "RuntimeError: CUDA error: uncorrectable ECC error encountered",
    "communication": "RuntimeError: [gloo/transport/tcp/pair.cc:537] Read error: Connection closed by peer",
}


def evidence(*lines: str, **changes: object) -> Evidence:
    return Evidence(run_id="run-1", job_file="job.yaml", micro_batch_size=4, lines=lines, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.cause)
def test_every_rule_knows_its_line_among_others(rule: object) -> None:
    line = LINES[rule.cause]  # type: ignore[attr-defined]
    found = diagnose(evidence("Loading weights: 100%", line, "RuntimeError: something after it"))
    assert found.cause == rule.cause  # type: ignore[attr-defined]
    assert found.evidence == line
    assert found.advice


@pytest.mark.parametrize(
    "line",
    [
        "{'loss': '2.31', 'grad_norm': '1.2', 'learning_rate': '2e-05'}",
        "UserWarning: The given NumPy array is not writable",
        "KeyError: 'output'",
        "Some weights were not initialized from the model checkpoint",
    ],
)
def test_ordinary_lines_fit_no_rule(line: str) -> None:
    assert not any(rule.pattern.search(line) for rule in RULES)


def test_out_of_memory_names_the_command_that_halves_the_micro_batch() -> None:
    found = diagnose(evidence(LINES["device_oom"]))
    assert found.command == "ftwiz run job.yaml --set plan.micro_batch_size=2"


def test_what_is_not_known_is_said_to_be_unknown_with_the_last_error() -> None:
    found = diagnose(evidence("epoch 1", "ValueError: a strange thing", "bye", launcher_code=1))
    assert found.cause == "unknown"
    assert found.evidence == "ValueError: a strange thing"
    assert found.message == "the launcher exited with code 1"
    assert found.advice == "read the logs: ftwiz logs run-1"


def test_empty_logs_are_said_to_be_empty() -> None:
    assert diagnose(evidence(launcher_code=1)).evidence == "the logs are empty"


def test_a_killed_rank_is_the_cause_and_not_the_broken_connections_of_the_others() -> None:
    found = diagnose(evidence(LINES["communication"], killed=Killed(rank=1, signal=9)))
    assert found.message == "rank 1 was killed by signal 9 (SIGKILL)"


def test_a_kill_while_the_kernel_was_short_of_memory_is_host_oom() -> None:
    found = diagnose(evidence(killed=Killed(rank=1, signal=9), new_oom_kills=1))
    assert found.cause == "host_oom"
    assert found.command is not None


def test_a_full_disk_is_the_cause_when_the_logs_could_not_say_it() -> None:
    found = diagnose(evidence("step 3", vanished_rank=0, free_bytes=4096))
    assert found.cause == "disk_full"
    assert found.evidence == "4096 bytes are free on the disk of the run folder"


def test_an_exit_record_is_evidence_also_when_the_log_is_lost() -> None:
    found = diagnose(evidence("saving", errors=("RuntimeError: CUDA out of memory",)))
    assert found.cause == "device_oom"


def test_the_kernel_counts_out_of_memory_kills() -> None:
    assert oom_kills() >= 0


SEEN_AT_ONCE = """
Failures:
[1]:
  rank      : 1 (local_rank: 1)
  exitcode  : -9 (pid: 20379)
Root Cause (first observed failure):
[0]:
  rank      : 0 (local_rank: 0)
  exitcode  : {code} (pid: 20378)
"""


@pytest.mark.parametrize("code", [1, -6, -15])
def test_the_killed_rank_is_named_also_when_the_launcher_saw_its_victim_first(code: int) -> None:
    assert killed_rank(SEEN_AT_ONCE.format(code=code)) == Killed(rank=1, signal=9)


@pytest.mark.train
def test_torchs_launcher_is_understood_when_it_tells_of_a_killed_rank(tmp_path: Path) -> None:
    script = tmp_path / "rank.py"
    script.write_text(
        "import os, signal, time\n"
        "if os.environ['RANK'] == '1': time.sleep(1); os.kill(os.getpid(), signal.SIGKILL)\n"
        "time.sleep(60)\n"
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script]
    done = subprocess.run(launch, capture_output=True, text=True, timeout=120, check=False)
    assert killed_rank(done.stderr) == Killed(rank=1, signal=9)


@pytest.mark.train
def test_accelerates_launcher_of_one_process_is_understood_too(tmp_path: Path) -> None:
    script = tmp_path / "rank.py"
    script.write_text("import os; os.kill(os.getpid(), 9)\n")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", "--cpu", script]
    done = subprocess.run(launch, capture_output=True, text=True, timeout=120, check=False)
    assert killed_rank(done.stderr) == Killed(rank=0, signal=9)
