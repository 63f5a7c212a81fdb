"""Causes are named from what programs really print; what no rule knows is called unknown and shown."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from ftwiz.engine.supervise.causes import RULES
from ftwiz.engine.supervise.diagnose import diagnose
from ftwiz.engine.supervise.evidence import Evidence, Killed, killed_rank, oom_kills

LOGS = sorted((Path(__file__).parent / "logs").glob("*.log"))
DEVICE_OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB."
PEER_GONE = "RuntimeError: [gloo/transport/tcp/pair.cc:537] Read error: Connection closed by peer"


def evidence(*lines: str, **changes: object) -> Evidence:
    return Evidence(run_id="run-1", job_file="job.yaml", micro_batch_size=4, lines=lines, **changes)  # type: ignore[arg-type]


def labelled(path: Path) -> tuple[dict[str, str], Evidence]:
    """Return the label of a log, and the evidence that the supervisor would make of the rest."""
    lines = path.read_text(encoding="utf8").splitlines()
    label = dict(line.removeprefix("# ").split(": ", 1) for line in lines if line.startswith("# "))
    text = "\n".join(line for line in lines if not line.startswith("# "))
    facts = dict(part.split("=") for part in label.get("facts", "").split())
    found = evidence(*text.splitlines(), killed=killed_rank(text), **{k: int(v) for k, v in facts.items()})
    return label, found


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_a_log_is_taken_for_its_own_cause_with_advice_that_helps(path: Path) -> None:
    label, found = labelled(path)
    diagnosis = diagnose(found)
    assert diagnosis.cause == label["cause"], diagnosis
    said = f"{diagnosis.message} {diagnosis.advice} {diagnosis.command}"
    assert label["hint"].lower() in said.lower()


def test_every_log_says_where_it_is_from_and_there_are_sixty() -> None:
    sources = [labelled(path)[0]["from"].partition(":")[0] for path in LOGS]
    assert {*sources} == {"real", "written"}
    assert len(sources) >= 60
    assert sources.count("real") >= 40


def test_every_cause_has_a_log() -> None:
    assert {rule.cause for rule in RULES} <= {labelled(path)[0]["cause"] for path in LOGS}


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_a_cause_is_found_also_behind_what_other_ranks_say_of_it(path: Path) -> None:
    label, found = labelled(path)
    if label["cause"] in {"unknown", "ranks_lost", "network", "rank_died"} or "facts" in label:
        pytest.skip("a consequence is all that is known of it")
    noisy = dataclasses.replace(found, lines=(PEER_GONE, "Loading weights: 100%", *found.lines, PEER_GONE))
    assert diagnose(noisy).cause == label["cause"]


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


def test_out_of_memory_names_the_command_that_goes_on_with_a_lighter_plan() -> None:
    assert diagnose(evidence(DEVICE_OOM)).command == "ftwiz resume run-1 --replan"


def test_of_ranks_that_time_out_the_one_that_does_not_complain_is_named() -> None:
    late = "RuntimeError: Timed out waiting 4000ms for recv operation to complete"
    found = diagnose(evidence(late, rank_texts={0: late, 1: "[ftwiz] training", 2: late}))
    assert found.message == "the ranks waited too long for one of them: rank 1 does not complain"


def test_a_run_that_was_ended_because_it_stood_still_says_so() -> None:
    found = diagnose(
        evidence(PEER_GONE, stalled="nothing was heard for 60 s since step 7: rank 1 is stopped")
    )
    assert (found.cause, found.evidence) == (
        "stall",
        "nothing was heard for 60 s since step 7: rank 1 is stopped",
    )


def test_what_is_not_known_is_said_to_be_unknown_with_the_last_error() -> None:
    found = diagnose(evidence("epoch 1", "ValueError: a strange thing", "bye", launcher_code=1))
    assert found.cause == "unknown"
    assert found.evidence == "ValueError: a strange thing"
    assert found.message == "the launcher exited with code 1"
    assert found.advice == "read the logs: ftwiz logs run-1"


def test_empty_logs_are_said_to_be_empty() -> None:
    assert diagnose(evidence(launcher_code=1)).evidence == "the logs are empty"


def test_a_killed_rank_is_the_cause_and_not_the_broken_connections_of_the_others() -> None:
    found = diagnose(evidence(PEER_GONE, killed=Killed(rank=1, signal=9)))
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
