"""Faults of which the cause is a shortage: memory, numbers, disk."""

import contextlib
import math
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from common import can_go_on, demand, sets, started, stop_now
from lab import Lab, Lost, Seen, wait_for

from ftwiz.engine import checkpoints
from ftwiz.engine.specs.run import RunState
from ftwiz.engine.supervise import process

Figures = Mapping[str, float]


def memory_cgroup(lab: Lab) -> Figures:
    """F12: a rank in a memory cgroup of 16 MiB: cause named."""
    group = Path("/sys/fs/cgroup/memory") / f"ftwiz-faults-{os.getpid()}"
    if not os.access(group.parent, os.W_OK) or not (group.parent / "memory.limit_in_bytes").exists():
        raise Lost("not tried: no memory cgroup (version 1) that may be made here")
    group.mkdir()
    try:
        seen = started(lab)
        rank = 0 if lab.engine == "single" else 1
        pid = seen.rank_pid(rank)
        (group / "cgroup.procs").write_text(str(pid))
        (group / "memory.limit_in_bytes").write_text(str(16 << 20))
        began = time.monotonic()
        record = seen.until_over(seconds=90)
        demand(record.diagnosis and record.diagnosis.cause == "host_oom", f"it says: {record.reason}")
        return {"seconds until the cause is named": round(time.monotonic() - began, 1)}
    finally:
        for task in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(task), signal.SIGKILL)
        wait_for(lambda: not (group / "cgroup.procs").read_text().split(), "the cgroup is not empty")
        group.rmdir()


def out_of_memory(lab: Lab) -> Figures:
    """-: ranks limited to 1150 MiB of data: finishes by another plan, same global batch."""
    number = len(lab.runs) + 1
    done = subprocess.run(
        ["prlimit", f"--data={1150 << 20}", *_oom_job(lab)],
        env=lab.environment,
        cwd=lab.folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    seen = Seen(lab.runs[0])
    demand(len(lab.runs) == number, "no run")
    record = seen.record
    demand(done.returncode == 0, f"it exits {done.returncode}: {record.reason}")
    demand(len(record.attempts) > 1, "it never ran out of memory")
    demand(all(one.recovers_from == "device_oom" for one in record.attempts[1:]), "for another cause")
    demand([event.step for event in seen.steps][-1] == 3, "it did not get to its last step")
    return {"attempts": float(len(record.attempts))}


def _oom_job(lab: Lab) -> list[str]:
    big = lab.model.parent / "big-model"
    settings = (
        f"model.name_or_path={big}",
        "train.global_batch_size=64",
        "train.max_length=256",
        "train.packing=true",
        "train.max_steps=3",
        "run.on_oom=replan",
    )
    return lab.run_command(*settings, options=("--no-tui",))


def not_a_number(lab: Lab) -> Figures:
    """-: the loss becomes no number: an alert within five logged steps."""
    settings = ("train.learning_rate=10", "train.optim=sgd", "train.max_grad_norm=0", "train.max_steps=60")
    settings = (*settings, "train.warmup_steps=0", "train.lr_scheduler_type=constant")
    done = lab.call("run", str(lab.job), "--no-tui", *sets(lab, *settings))
    seen = Seen(lab.runs[0])
    bad = [event.step for event in seen.steps if event.loss is not None and math.isnan(event.loss)]
    told = [alert.step for alert in (*seen.alerts("nan_loss"), *seen.alerts("nan_gradient")) if alert.step]
    demand(bad, f"the loss stays a number: {[event.loss for event in seen.steps][-3:]} {done.stderr[-200:]}")
    demand(told, "no alert")
    demand(min(told) <= bad[0] + 5, f"told at step {min(told)}, was at {bad[0]}")
    return {"logged steps until it is told": max(0.0, float(min(told) - bad[0]))}


def disk_full(lab: Lab) -> Figures:
    """F20, F21: a tmpfs of 160 MiB fills up: cause named, old checkpoint kept, resumed after freeing it."""
    disk = lab.folder / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if done.returncode:
        raise Lost("not tried: a small tmpfs cannot be mounted here")
    home, lab.home = lab.home, disk
    try:
        return _filled(lab, disk)
    finally:
        for run in lab.runs:
            record = run.read_record()
            if record.supervisor is not None:
                process.send(record.supervisor, signal.SIGKILL)
            process.kill_all(f"{record.id}@{record.created_at!r}")
        lab.home = home
        time.sleep(0.5)
        subprocess.run(["umount", "-l", str(disk)], check=False)


def _filled(lab: Lab, disk: Path) -> Figures:
    seen = started(lab, "train.save_steps=4", "train.save_total_limit=2")
    wait_for(seen.saved, "nothing is saved")
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as file:
        while file.write(b"\0" * 65536):
            file.flush()
    record = seen.until_over(seconds=120)
    demand(record.state is RunState.FAILED, f"it is {record.state}: {record.reason}")
    demand(record.diagnosis and record.diagnosis.cause == "disk_full", f"it says: {record.reason}")
    demand(checkpoints.newest_whole(seen.run.checkpoints) is not None, "the old checkpoint is gone")
    filler.unlink()
    lines = seen.run.events_file.read_bytes().splitlines()
    whole = [line for line in lines if line.startswith(b"{") and line.endswith(b"}")]
    can_go_on(lab, seen)
    stop_now(lab, seen)
    return {"torn lines": float(len([line for line in lines if line]) - len(whole))}
