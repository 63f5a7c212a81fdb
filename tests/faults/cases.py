"""The faults, one function each: what is done to a run, and what must have become of it.

A function raises ``Lost`` when something was lost, and returns figures otherwise.
"""

import contextlib
import importlib.util
import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from common import can_go_on, demand, started, stop_now
from lab import ENDLESS, Lab, Lost, Seen, wait_for
from shortages import disk_full, memory_cgroup, not_a_number, out_of_memory

from ftwiz.engine import checkpoints, supervise
from ftwiz.engine.specs.run import RunState
from ftwiz.engine.supervise import process

Figures = Mapping[str, float]


def _ended(seen: Seen, state: RunState, *, seconds: float = 150) -> Figures:
    began = time.monotonic()
    record = seen.until_over(seconds=seconds)
    took = time.monotonic() - began
    demand(record.state is state, f"it is {record.state}: {record.reason}")
    return {"seconds until over": round(took, 1)}


def terminal_closed(lab: Lab) -> Figures:
    """F1: `ftwiz run` in the foreground; its terminal is closed."""
    terminal = lab.terminal(lab.run_command(*ENDLESS))
    seen = lab.newest(len(lab.runs) + 1)
    terminal.close(force=True)
    figures = seen.goes_on()
    stop_now(lab, seen)
    return figures


def nohup_and_closed(lab: Lab) -> Figures:
    """F4: `nohup ftwiz run &` in a shell whose terminal is closed."""
    number = len(lab.runs) + 1
    line = f"nohup {shlex.join(lab.run_command(*ENDLESS))} >/dev/null 2>&1 & sleep 1000"
    terminal = lab.terminal(["bash", "-ic", line])
    seen = lab.newest(number)
    terminal.close(force=True)
    figures = seen.goes_on()
    stop_now(lab, seen)
    return figures


def ssh_cut(lab: Lab) -> Figures:
    """F2: the run was started over ssh; the client gets SIGKILL."""
    with _ssh(lab) as login:
        terminal = lab.terminal([*login[:-1], shlex.join(lab.run_command(*ENDLESS))])
        seen = lab.newest(len(lab.runs) + 1)
        os.kill(terminal.pid, signal.SIGKILL)
        figures = seen.goes_on()
    stop_now(lab, seen)
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
    stop_now(lab, seen)
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
        demand(code == 75, f"{wanted.name} exits {code}")
        record = seen.until_over()
        demand(record.state is RunState.STOPPED, f"after {wanted.name} it is {record.state}")
        newest = checkpoints.newest_whole(seen.run.checkpoints)
        demand(newest is not None and newest.name == record.resumable_from, "no whole checkpoint")
    can_go_on(lab, seen)
    stop_now(lab, seen)
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
    seen = started(lab)
    os.kill(seen.supervisor.pid, signal.SIGHUP)
    figures = dict(seen.goes_on())
    os.kill(seen.supervisor.pid, signal.SIGTERM)
    figures |= _ended(seen, RunState.STOPPED)
    can_go_on(lab, seen)
    stop_now(lab, seen)
    return figures


def supervisor_killed(lab: Lab) -> Figures:
    """F7: SIGKILL to the supervisor: training goes on, the next command adopts, stop works."""
    seen = started(lab)
    before = seen.supervisor
    os.kill(before.pid, signal.SIGKILL)
    wait_for(lambda: seen.record.state is RunState.LOST, "nobody notices that the supervisor is gone")
    figures = dict(seen.goes_on())
    began = time.monotonic()
    supervise.tend(seen.run)
    figures["seconds to adopt"] = round(time.monotonic() - began, 2)
    demand(seen.supervisor != before and seen.record.state is RunState.RUNNING, "it was not taken over")
    done = lab.call("stop", seen.run.id)
    demand(done.returncode == 0, done.stderr[-300:])
    figures |= _ended(seen, RunState.STOPPED)
    return figures


def rank_killed(lab: Lab) -> Figures:
    """F11: SIGKILL to the last rank: others ended, cause named, resumed."""
    seen = started(lab)
    rank = 0 if lab.engine == "single" else 1
    pid = seen.rank_pid(rank)
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    others = [seen.rank_pid(other) for other in range(rank)]
    wait_for(lambda: not any(map(process.identify, others)), "the others train on", seconds=15)
    figures = {"seconds until the others are gone": round(time.monotonic() - began, 1)}
    record = seen.until_over()
    figures["seconds until the cause is named"] = round(time.monotonic() - began, 1)
    demand(record.state is RunState.FAILED, f"it is {record.state}")
    said = f"rank {rank} was killed by signal 9"
    demand(record.diagnosis and said in record.diagnosis.message, f"it says: {record.reason}")
    can_go_on(lab, seen)
    stop_now(lab, seen)
    return figures


def launcher_signalled(lab: Lab) -> Figures:
    """-: SIGKILL, then SIGTERM, to the launcher: no rank is left."""
    figures = {}
    for wanted in (signal.SIGKILL, signal.SIGTERM):
        seen = started(lab)
        began = time.monotonic()
        os.kill(seen.launcher.pid, wanted)
        record = seen.until_over(seconds=30)
        figures[f"seconds after {wanted.name}"] = round(time.monotonic() - began, 1)
        demand(record.state is RunState.FAILED, f"after {wanted.name} it is {record.state}: {record.reason}")
    return figures


def all_but_the_supervisor_killed(lab: Lab) -> Figures:
    """-: SIGKILL to launcher and ranks together."""
    seen = started(lab)
    began = time.monotonic()
    for identity in supervise.leftovers(seen.run.read_record()):
        process.send(identity, signal.SIGKILL)
    record = seen.until_over(seconds=30)
    demand(record.state is RunState.FAILED, f"it is {record.state}")
    demand(record.diagnosis and record.diagnosis.cause != "unknown", f"it says: {record.reason}")
    return {"seconds until the cause is named": round(time.monotonic() - began, 1)}


def everything_killed_while_saving(lab: Lab) -> Figures:
    """F16, F24: SIGKILL to all processes while every step saves; the newest whole checkpoint is resumed."""
    seen = started(lab, "train.save_steps=1", "train.save_total_limit=3")
    wait_for(lambda: len(seen.saved()) >= 3, "nothing is saved")
    time.sleep(0.037 * (time.monotonic_ns() % 17))
    told = seen.saved()[-1].step
    for identity in (seen.supervisor, *supervise.leftovers(seen.run.read_record())):
        process.send(identity, signal.SIGKILL)
    wait_for(lambda: not supervise.leftovers(seen.run.read_record()), "something lives")
    newest = checkpoints.newest_whole(seen.run.checkpoints)
    demand(newest is not None, "no whole checkpoint is left")
    assert newest is not None
    demand(
        (checkpoints.step_of(newest) or 0) >= told, f"{newest.name} is older than {told}, which was told of"
    )
    supervise.tend(seen.run)
    seen.until_over()
    can_go_on(lab, seen)
    stop_now(lab, seen)
    return {}


def rank_stopped(lab: Lab) -> Figures:
    """F13: SIGSTOP of a rank: told with its name; SIGCONT: goes on."""
    seen = started(lab)
    rank = 0 if lab.engine == "single" else 1
    pid = seen.rank_pid(rank)
    began = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    try:
        (alert,) = wait_for(lambda: seen.alerts("stall"), "no alert", seconds=120)
        took = time.monotonic() - began
    finally:
        os.kill(pid, signal.SIGCONT)
    demand(f"rank {rank}" in alert.message, f"it says: {alert.message}")
    seen.goes_on()
    stop_now(lab, seen)
    return {"seconds until it is told": round(took, 1)}


def rank_stopped_and_restarted(lab: Lab) -> Figures:
    """F13: the same: started again from the newest whole checkpoint."""
    seen = started(lab, "run.on_stall=restart", "train.save_steps=5")
    wait_for(seen.saved, "nothing is saved")
    os.kill(seen.rank_pid(0 if lab.engine == "single" else 1), signal.SIGSTOP)
    began = time.monotonic()
    wait_for(lambda: len(seen.record.attempts) > 1, "it is not started again", seconds=150)
    figures = {"seconds until it is started again": round(time.monotonic() - began, 1)}
    attempt = seen.record.attempts[-1]
    demand(attempt.recovers_from == "stall", f"because of {attempt.recovers_from}")
    demand(attempt.resumed_from is not None, "from the beginning, though there is a checkpoint")
    count = len(seen.steps)
    wait_for(lambda: len(seen.steps) > count, "no step afterwards", seconds=180)
    stop_now(lab, seen)
    return figures


def started_twice(lab: Lab) -> Figures:
    """F27: `ftwiz resume` of a living run: refused, exit 3, nothing touched."""
    seen = started(lab)
    done = lab.call("resume", seen.run.id)
    demand(done.returncode == 3, f"it exits {done.returncode}")
    demand(str(seen.supervisor.pid) in done.stderr, f"it says: {done.stderr}")
    figures = seen.goes_on()
    stop_now(lab, seen)
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
