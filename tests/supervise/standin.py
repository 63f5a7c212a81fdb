"""A program that leaves the traces of a launcher and its ranks.

For histories that real training cannot be made to have on demand. Its ranks have sessions of their own, like
those of torch's launcher.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from ftwiz.engine import checkpoints
from ftwiz.engine.rundir import RunFolder, write_atomically
from ftwiz.engine.specs.events import CheckpointEvent, EndEvent, RankEvent, StepEvent
from ftwiz.engine.telemetry import EventLog


def options() -> argparse.Namespace:
    """Read what the history is to be."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10**6)
    parser.add_argument("--step-seconds", type=float, default=0.05)
    parser.add_argument("--ignore-term", action="store_true", help="ranks ignore SIGTERM")
    parser.add_argument("--deaf", action="store_true", help="ranks ignore control/stop")
    parser.add_argument(
        "--hide", action="store_true", help="each rank leaves a child in a session of its own"
    )
    parser.add_argument("--abort-after-end", action="store_true", help="rank 0 dies of SIGABRT after its end")
    parser.add_argument("--linger", action="store_true", help="ranks stay after the end")
    parser.add_argument("--fail-with", metavar="TEXT", help="rank 1 fails at step 3")
    parser.add_argument("--fail-times", type=int, default=10**6, help="how many attempts fail so")
    parser.add_argument("--fail-early", action="store_true", help="before any rank is told of")
    parser.add_argument("--launcher-exits", type=int, metavar="CODE", help="at once, without any rank")
    parser.add_argument("--resume-from")
    parser.add_argument("--rank", type=int)
    return parser.parse_args()


def launch(asked: argparse.Namespace) -> int:
    """Start the ranks and end all when one fails; like torch's launcher, wait for those that will not go."""
    if asked.launcher_exits is not None:
        return int(asked.launcher_exits)
    ranks = [
        subprocess.Popen([sys.executable, *sys.argv, "--rank", str(rank)], start_new_session=True)
        for rank in range(asked.ranks)
    ]
    write_atomically(Path("ranks.json"), json.dumps([rank.pid for rank in ranks]))
    failed: dict[int, int] = {}
    while any(rank.poll() is None for rank in ranks):
        for number, rank in enumerate(ranks):
            if rank.poll():
                failed.setdefault(number, rank.returncode)
        if failed:
            for rank in ranks:
                rank.terminate()
        time.sleep(0.02)
    failed |= {number: rank.returncode for number, rank in enumerate(ranks) if rank.returncode} | failed
    if not failed:
        return 0
    root, *others = failed
    texts = [
        f"  rank      : {number} (local_rank: {number})\n  exitcode  : {failed[number]} (pid: 1)\n"
        for number in (*others, root)
    ]
    texts.insert(len(others), "Root Cause (first observed failure):\n")
    sys.stderr.write("".join(texts))
    return 1


def train(asked: argparse.Namespace) -> None:
    """Be one rank."""
    run = RunFolder(Path.cwd())
    if asked.ignore_term:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if asked.hide:
        subprocess.Popen(["sleep", "300"], start_new_session=True, env={})
    log = EventLog(run.events_file)
    attempts = len(run.read_record().attempts)
    if attempts > asked.fail_times:
        asked.fail_with = None
    if asked.fail_early and asked.fail_with:
        _leave(run, asked, "failed", error=asked.fail_with)
    if asked.rank == 0:
        for rank, pid in enumerate(_pids()):
            log.append(_rank_event(rank, pid, asked.ranks))
    step, status = _steps(run, log, asked)
    if asked.rank == 0:
        _save(run, log, step)
        log.append(EndEvent(t=time.time(), status=status, step=step, max_steps=asked.steps))
        if asked.abort_after_end:
            os.abort()
    _leave(run, asked, status)


def _steps(run: RunFolder, log: EventLog, asked: argparse.Namespace) -> tuple[int, str]:
    step = int(asked.resume_from.removeprefix("checkpoint-")) if asked.resume_from else 0
    while step < asked.steps:
        step += 1
        time.sleep(asked.step_seconds)
        if asked.rank == 0:
            log.append(StepEvent(t=time.time(), step=step, max_steps=asked.steps, loss=1 / step))
        if asked.fail_with and asked.rank == 1 and step == 3:
            sys.stderr.write(f"{asked.fail_with}\n")
            _leave(run, asked, "failed", error=asked.fail_with)
        if run.stop_request.exists() and not asked.deaf:
            return step, "stopped"
    return step, "finished"


def _leave(run: RunFolder, asked: argparse.Namespace, status: str, *, error: str | None = None) -> None:
    code = 1 if status == "failed" else 0
    record = {"rank": asked.rank, "pid": os.getpid(), "status": status, "code": code, "error": error}
    write_atomically(run.exit_file(asked.rank), json.dumps(record))
    while asked.linger:
        time.sleep(1)
    os._exit(code)


def _save(run: RunFolder, log: EventLog, step: int) -> None:
    folder = run.checkpoints / f"checkpoint-{step}"
    folder.mkdir()
    (folder / "weights").write_text(str(step))
    checkpoints.write_manifest(folder)
    path = str(folder.relative_to(run.path))
    log.append(CheckpointEvent(t=time.time(), step=step, path=path, size_bytes=1, seconds=0.1))


def _pids() -> list[int]:
    while not Path("ranks.json").exists():
        time.sleep(0.01)
    pids: list[int] = json.loads(Path("ranks.json").read_text())
    return pids


def _rank_event(rank: int, pid: int, world: int) -> RankEvent:
    return RankEvent(
        t=time.time(), rank=rank, local_rank=rank, world_size=world, host=os.uname().nodename, pid=pid,
        device="cpu", engine="standin", num_parameters=1, num_trainable_parameters=1,
    )  # fmt: skip


if __name__ == "__main__":
    wanted = options()
    if wanted.rank is None:
        sys.exit(launch(wanted))
    train(wanted)
