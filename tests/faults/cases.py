"""The faults, one function each: what is done to a run, and what must have become of it.

A function raises ``Lost`` when something was lost, and returns figures otherwise.
"""

import contextlib
import importlib.util
import math
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from lab import ENDLESS, Lab, Lost, Seen, wait_for

from ftwiz.engine import checkpoints, supervise
from ftwiz.engine.specs.run import RunState
from ftwiz.engine.supervise import process

Figures = Mapping[str, float]


def _demand(holds: object, what: str) -> None:
    if not holds:
        raise Lost(what)


def _started(lab: Lab, *settings: str) -> Seen:
    """Start an endless run without a terminal."""
    done = lab.call("run", str(lab.job), "--detach", *_sets(lab, *ENDLESS, *settings))
    _demand(done.returncode == 0, f"it does not start: {done.stderr[-300:]}")
    return lab.newest(len(lab.runs))


def _sets(lab: Lab, *settings: str) -> list[str]:
    command = lab.run_command(*settings)
    return command[command.index("--set") :]


def _ended(seen: Seen, state: RunState, *, seconds: float = 150) -> Figures:
    began = time.monotonic()
    record = seen.until_over(seconds=seconds)
    took = time.monotonic() - began
    _demand(record.state is state, f"it is {record.state}: {record.reason}")
    return {"seconds until over": round(took, 1)}


def _can_go_on(lab: Lab, seen: Seen) -> None:
    """Resume, see a step from where the newest whole checkpoint stands, and end it."""
    newest = checkpoints.newest_whole(seen.run.checkpoints)
    done = lab.call("resume", seen.run.id, "--detach")
    _demand(done.returncode == 0, f"it cannot be resumed: {done.stderr[-300:]}")
    attempt = len(seen.run.read_record().attempts)
    wanted = checkpoints.step_of(newest) if newest else 0
    pids = {event.pid for event in seen.events if event.kind == "rank"}
    wait_for(
        lambda: (
            any(event.kind == "rank" and event.pid not in pids for event in seen.events)
            or seen.record.state.is_over
        ),
        "the resumed ranks do not come up",
        seconds=180,
    )
    count = len(seen.steps)
    wait_for(lambda: len(seen.steps) > count or seen.record.state.is_over, "no step after resuming")
    wait_for(lambda: seen.record.state is not RunState.LAUNCHING, "it stays in state launching", seconds=10)
    record = seen.run.read_record()
    _demand(record.state is RunState.RUNNING, f"resumed it is {record.state}: {record.reason}")
    _demand(attempt == len(record.attempts), "another attempt was begun")
    _demand(record.attempts[-1].resumed_from == (newest.name if newest else None), "resumed from another one")
    _demand((wanted or 0) < seen.steps[-1].step, "it did not go on from its checkpoint")


def _stop_now(lab: Lab, seen: Seen) -> None:
    lab.call("stop", seen.run.id, "--now")
    seen.until_over()


def terminal_closed(lab: Lab) -> Figures:
    """F1: `ftwiz run` in the foreground; its terminal is closed."""
    terminal = lab.terminal(lab.run_command(*ENDLESS))
    seen = lab.newest(len(lab.runs) + 1)
    terminal.close(force=True)
    figures = seen.goes_on()
    _stop_now(lab, seen)
    return figures


def nohup_and_closed(lab: Lab) -> Figures:
    """F4: `nohup ftwiz run &` in a shell whose terminal is closed."""
    number = len(lab.runs) + 1
    line = f"nohup {shlex.join(lab.run_command(*ENDLESS))} >/dev/null 2>&1 & sleep 1000"
    terminal = lab.terminal(["bash", "-ic", line])
    seen = lab.newest(number)
    terminal.close(force=True)
    figures = seen.goes_on()
    _stop_now(lab, seen)
    return figures


def ssh_cut(lab: Lab) -> Figures:
    """F2: the run was started over ssh; the client gets SIGKILL."""
    with _ssh(lab) as login:
        terminal = lab.terminal([*login[:-1], shlex.join(lab.run_command(*ENDLESS))])
        seen = lab.newest(len(lab.runs) + 1)
        os.kill(terminal.pid, signal.SIGKILL)
        figures = seen.goes_on()
    _stop_now(lab, seen)
    return figures


@contextlib.contextmanager
def _ssh(lab: Lab) -> Iterator[list[str]]:
    place = Path(__file__).resolve().parent.parent / "e2e" / "conftest.py"
    spec = importlib.util.spec_from_file_location("ssh_of_e2e", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sshd = module._program("sshd")  # noqa: SLF001 - looks in /usr/sbin too
    if sshd is None:
        raise Lost("not tried: sshd is not installed")
    folder = lab.folder / f"sshd-{time.monotonic_ns()}"
    folder.mkdir(mode=0o700)
    server = module.SshServer(sshd, folder, lab.environment)
    try:
        yield server.login("true")
    finally:
        server.close()


def follower_signalled(lab: Lab) -> Figures:
    """F5, F6: SIGSTOP, SIGHUP, SIGINT, SIGTERM, SIGKILL to whoever follows the run."""
    number = len(lab.runs) + 1
    first = lab.front(lab.run_command(*ENDLESS, options=("--no-tui",)))
    seen = lab.newest(number)
    first.send_signal(signal.SIGSTOP)
    figures = dict(seen.goes_on(steps=10))
    first.send_signal(signal.SIGCONT)
    first.send_signal(signal.SIGHUP)
    for wanted in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        seen.goes_on(steps=2)
        other = lab.front(lab.command("watch", seen.run.id, "--plain"))
        time.sleep(1)
        other.send_signal(wanted)
        other.wait(20)
    figures |= {"after the kills": seen.goes_on()["longest gap in usual steps"]}
    first.kill()
    first.wait(20)
    _stop_now(lab, seen)
    return figures


def foreground_signalled(lab: Lab) -> Figures:
    """F9, F10, F34: `--foreground` gets SIGTERM, SIGINT, SIGUSR1: a verified checkpoint, exit 75, resumed."""
    figures = {}
    for wanted in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        number = len(lab.runs) + 1
        front = lab.front(lab.run_command(*ENDLESS, options=("--foreground",)))
        seen = lab.newest(number)
        began = time.monotonic()
        front.send_signal(wanted)
        code = front.wait(150)
        figures[f"seconds of {wanted.name}"] = round(time.monotonic() - began, 1)
        _demand(code == 75, f"{wanted.name} exits {code}")
        record = seen.until_over()
        _demand(record.state is RunState.STOPPED, f"after {wanted.name} it is {record.state}")
        newest = checkpoints.newest_whole(seen.run.checkpoints)
        _demand(newest is not None and newest.name == record.resumable_from, "no whole checkpoint")
    _can_go_on(lab, seen)
    _stop_now(lab, seen)
    return figures


def foreground_twice(lab: Lab) -> Figures:
    """F10: `--foreground` gets two within a second: ended at once."""
    number = len(lab.runs) + 1
    front = lab.front(lab.run_command(*ENDLESS, options=("--foreground",)))
    seen = lab.newest(number)
    began = time.monotonic()
    front.send_signal(signal.SIGINT)
    time.sleep(0.3)
    front.send_signal(signal.SIGINT)
    front.wait(60)
    seen.until_over()
    return {"seconds until over": round(time.monotonic() - began, 1)}


def supervisor_signalled(lab: Lab) -> Figures:
    """-: SIGHUP to the supervisor: nothing; SIGTERM: saves and stops, resumed."""
    seen = _started(lab)
    os.kill(seen.supervisor.pid, signal.SIGHUP)
    figures = dict(seen.goes_on())
    os.kill(seen.supervisor.pid, signal.SIGTERM)
    figures |= _ended(seen, RunState.STOPPED)
    _can_go_on(lab, seen)
    _stop_now(lab, seen)
    return figures


def supervisor_killed(lab: Lab) -> Figures:
    """F7: SIGKILL to the supervisor: training goes on, the next command adopts, stop works."""
    seen = _started(lab)
    before = seen.supervisor
    os.kill(before.pid, signal.SIGKILL)
    wait_for(lambda: seen.record.state is RunState.LOST, "nobody notices that the supervisor is gone")
    figures = dict(seen.goes_on())
    began = time.monotonic()
    supervise.tend(seen.run)
    figures["seconds to adopt"] = round(time.monotonic() - began, 2)
    _demand(seen.supervisor != before and seen.record.state is RunState.RUNNING, "it was not taken over")
    done = lab.call("stop", seen.run.id)
    _demand(done.returncode == 0, done.stderr[-300:])
    figures |= _ended(seen, RunState.STOPPED)
    return figures


def rank_killed(lab: Lab) -> Figures:
    """F11: SIGKILL to the last rank: others ended, cause named, resumed."""
    seen = _started(lab)
    rank = 0 if lab.engine == "single" else 1
    pid = seen.rank_pid(rank)
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    others = [seen.rank_pid(other) for other in range(rank)]
    wait_for(lambda: not any(map(process.identify, others)), "the others train on", seconds=15)
    figures = {"seconds until the others are gone": round(time.monotonic() - began, 1)}
    record = seen.until_over()
    figures["seconds until the cause is named"] = round(time.monotonic() - began, 1)
    _demand(record.state is RunState.FAILED, f"it is {record.state}")
    said = f"rank {rank} was killed by signal 9"
    _demand(record.diagnosis and said in record.diagnosis.message, f"it says: {record.reason}")
    _can_go_on(lab, seen)
    _stop_now(lab, seen)
    return figures


def launcher_signalled(lab: Lab) -> Figures:
    """-: SIGKILL, then SIGTERM, to the launcher: no rank is left."""
    figures = {}
    for wanted in (signal.SIGKILL, signal.SIGTERM):
        seen = _started(lab)
        began = time.monotonic()
        os.kill(seen.launcher.pid, wanted)
        record = seen.until_over(seconds=30)
        figures[f"seconds after {wanted.name}"] = round(time.monotonic() - began, 1)
        _demand(record.state is RunState.FAILED, f"after {wanted.name} it is {record.state}: {record.reason}")
    return figures


def all_but_the_supervisor_killed(lab: Lab) -> Figures:
    """-: SIGKILL to launcher and ranks together."""
    seen = _started(lab)
    began = time.monotonic()
    for identity in supervise.leftovers(seen.run.read_record()):
        process.send(identity, signal.SIGKILL)
    record = seen.until_over(seconds=30)
    _demand(record.state is RunState.FAILED, f"it is {record.state}")
    _demand(record.diagnosis and record.diagnosis.cause != "unknown", f"it says: {record.reason}")
    return {"seconds until the cause is named": round(time.monotonic() - began, 1)}


def everything_killed_while_saving(lab: Lab) -> Figures:
    """F16, F24: SIGKILL to all processes while every step saves; the newest whole checkpoint is resumed."""
    seen = _started(lab, "train.save_steps=1", "train.save_total_limit=3")
    wait_for(lambda: len(seen.saved()) >= 3, "nothing is saved")
    time.sleep(0.037 * (time.monotonic_ns() % 17))
    told = seen.saved()[-1].step
    for identity in (seen.supervisor, *supervise.leftovers(seen.run.read_record())):
        process.send(identity, signal.SIGKILL)
    wait_for(lambda: not supervise.leftovers(seen.run.read_record()), "something lives")
    newest = checkpoints.newest_whole(seen.run.checkpoints)
    _demand(newest is not None, "no whole checkpoint is left")
    assert newest is not None
    _demand(
        (checkpoints.step_of(newest) or 0) >= told, f"{newest.name} is older than {told}, which was told of"
    )
    supervise.tend(seen.run)
    seen.until_over()
    _can_go_on(lab, seen)
    _stop_now(lab, seen)
    return {}


def rank_stopped(lab: Lab) -> Figures:
    """F13: SIGSTOP of a rank: told with its name; SIGCONT: goes on."""
    seen = _started(lab)
    rank = 0 if lab.engine == "single" else 1
    pid = seen.rank_pid(rank)
    began = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    try:
        (alert,) = wait_for(lambda: seen.alerts("stall"), "no alert", seconds=120)
        took = time.monotonic() - began
    finally:
        os.kill(pid, signal.SIGCONT)
    _demand(f"rank {rank}" in alert.message, f"it says: {alert.message}")
    seen.goes_on()
    _stop_now(lab, seen)
    return {"seconds until it is told": round(took, 1)}


def rank_stopped_and_restarted(lab: Lab) -> Figures:
    """F13: the same: started again from the newest whole checkpoint."""
    seen = _started(lab, "run.on_stall=restart", "train.save_steps=5")
    wait_for(seen.saved, "nothing is saved")
    os.kill(seen.rank_pid(0 if lab.engine == "single" else 1), signal.SIGSTOP)
    began = time.monotonic()
    wait_for(lambda: len(seen.record.attempts) > 1, "it is not started again", seconds=150)
    figures = {"seconds until it is started again": round(time.monotonic() - began, 1)}
    attempt = seen.record.attempts[-1]
    _demand(attempt.recovers_from == "stall", f"because of {attempt.recovers_from}")
    _demand(attempt.resumed_from is not None, "from the beginning, though there is a checkpoint")
    count = len(seen.steps)
    wait_for(lambda: len(seen.steps) > count, "no step afterwards", seconds=180)
    _stop_now(lab, seen)
    return figures


def memory_cgroup(lab: Lab) -> Figures:
    """F12: a rank in a memory cgroup of 16 MiB: cause named."""
    group = Path("/sys/fs/cgroup/memory") / f"ftwiz-faults-{os.getpid()}"
    if not os.access(group.parent, os.W_OK) or not (group.parent / "memory.limit_in_bytes").exists():
        raise Lost("not tried: no memory cgroup (version 1) that may be made here")
    group.mkdir()
    try:
        seen = _started(lab)
        rank = 0 if lab.engine == "single" else 1
        pid = seen.rank_pid(rank)
        (group / "cgroup.procs").write_text(str(pid))
        (group / "memory.limit_in_bytes").write_text(str(16 << 20))
        began = time.monotonic()
        record = seen.until_over(seconds=90)
        _demand(record.diagnosis and record.diagnosis.cause == "host_oom", f"it says: {record.reason}")
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
    _demand(len(lab.runs) == number, "no run")
    record = seen.record
    _demand(done.returncode == 0, f"it exits {done.returncode}: {record.reason}")
    _demand(len(record.attempts) > 1, "it never ran out of memory")
    _demand(all(one.recovers_from == "device_oom" for one in record.attempts[1:]), "for another cause")
    _demand([event.step for event in seen.steps][-1] == 3, "it did not get to its last step")
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
    done = lab.call("run", str(lab.job), "--no-tui", *_sets(lab, *settings))
    seen = Seen(lab.runs[0])
    bad = [event.step for event in seen.steps if event.loss is not None and math.isnan(event.loss)]
    told = [alert.step for alert in (*seen.alerts("nan_loss"), *seen.alerts("nan_gradient")) if alert.step]
    _demand(bad, f"the loss stays a number: {[event.loss for event in seen.steps][-3:]} {done.stderr[-200:]}")
    _demand(told, "no alert")
    _demand(min(told) <= bad[0] + 5, f"told at step {min(told)}, was at {bad[0]}")
    return {"logged steps until it is told": max(0.0, float(min(told) - bad[0]))}


def disk_full(lab: Lab) -> Figures:
    """F20, F21: a tmpfs of 3 MiB fills up: cause named, old checkpoint kept, resumed after freeing space."""
    disk = lab.folder / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True, check=False
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
    seen = _started(lab, "train.save_steps=4", "train.save_total_limit=2")
    wait_for(seen.saved, "nothing is saved")
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as file:
        while file.write(b"\0" * 65536):
            file.flush()
    record = seen.until_over(seconds=120)
    _demand(record.state is RunState.FAILED, f"it is {record.state}: {record.reason}")
    _demand(record.diagnosis and record.diagnosis.cause == "disk_full", f"it says: {record.reason}")
    _demand(checkpoints.newest_whole(seen.run.checkpoints) is not None, "the old checkpoint is gone")
    filler.unlink()
    lines = seen.run.events_file.read_bytes().splitlines()
    whole = [line for line in lines if line.startswith(b"{") and line.endswith(b"}")]
    _can_go_on(lab, seen)
    _stop_now(lab, seen)
    return {"torn lines": float(len([line for line in lines if line]) - len(whole))}


def started_twice(lab: Lab) -> Figures:
    """F27: `ftwiz resume` of a living run: refused, exit 3, nothing touched."""
    seen = _started(lab)
    done = lab.call("resume", seen.run.id)
    _demand(done.returncode == 3, f"it exits {done.returncode}")
    _demand(str(seen.supervisor.pid) in done.stderr, f"it says: {done.stderr}")
    figures = seen.goes_on()
    _stop_now(lab, seen)
    return figures


CASES: Mapping[str, Callable[[Lab], Figures]] = {
    "terminal closed": terminal_closed,
    "ssh cut": ssh_cut,
    "nohup, then terminal closed": nohup_and_closed,
    "follower stopped and killed": follower_signalled,
    "signals in the foreground": foreground_signalled,
    "SIGINT twice": foreground_twice,
    "supervisor signalled": supervisor_signalled,
    "supervisor killed": supervisor_killed,
    "rank killed": rank_killed,
    "launcher killed": launcher_signalled,
    "all but the supervisor killed": all_but_the_supervisor_killed,
    "everything killed while saving": everything_killed_while_saving,
    "rank stands still": rank_stopped,
    "rank stands still, on_stall: restart": rank_stopped_and_restarted,
    "kernel kills for memory": memory_cgroup,
    "out of memory, on_oom: replan": out_of_memory,
    "NaN": not_a_number,
    "disk full": disk_full,
    "started twice": started_twice,
}
"""By name. Their first lines say which rows of the catalogue of faults they stand for, and what is done."""
