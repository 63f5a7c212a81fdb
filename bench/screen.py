"""What the monitor costs: bytes over the line with cells compared and without, processor, memory, a long log.

``python bench/screen.py``: a run with eight devices logs two steps a second; ``ftwiz watch`` is looked at
through a pty of 120x40 and 80x24, as over ssh (256 colours). Then a run that is over, a key, and the first
look into an event log of a gigabyte.
"""

import fcntl
import json
import math
import os
import pty
import resource
import select
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from dataclasses import replace
from pathlib import Path

from ftwiz.engine.rundir import RunFolder, create
from ftwiz.engine.specs.events import DevicesEvent, StateEvent, StepEvent
from ftwiz.engine.specs.machine import DeviceReading, HostReading
from ftwiz.engine.specs.run import RunRecord, RunState
from ftwiz.engine.supervise import process
from ftwiz.engine.telemetry import EventLog
from ftwiz.tui.monitor.reader import Reader

WARM_UP_SECONDS, SECONDS = 4.0, 20.0
NUM_DEVICES = 8


def main() -> None:
    """Print a table."""
    with tempfile.TemporaryDirectory() as root:
        run = _run(Path(root))
        over = threading.Event()
        writer = threading.Thread(target=_train, args=(run, over))
        writer.start()
        for columns, lines in ((120, 40), (80, 24)):
            lean, stock = (_look(run, columns, lines, off=off) for off in (False, True))
            print(json.dumps({"screen": f"{columns}x{lines}"} | lean))
            print(json.dumps({"screen": f"{columns}x{lines}, as Textual sends"} | stock))
        over.set()
        writer.join()
        run.write_record(replace(run.read_record(), state=RunState.FINISHED))
        print(json.dumps({"screen": "120x40, the run is over"} | _look(run, 120, 40, off=False)))
        print(json.dumps({"log": "1 GiB"} | _long_log(run)))


def _run(root: Path) -> RunFolder:
    job = {"version": 1, "model": {"name_or_path": "ftwiz:demo"}, "data": {"path": "/nowhere.jsonl"}}
    plan = {"launch": ["true"], "strategy": {"num_processes": NUM_DEVICES, "device_kind": "cuda"}}
    run = create(root, "bench", files={"job.yaml": json.dumps(job), "plan.json": json.dumps(plan)})
    record = RunRecord(
        id=run.id,
        name="bench",
        state=RunState.RUNNING,
        created_at=time.time(),
        host=socket.gethostname(),
        ftwiz_version="0",
        supervisor=process.identify(os.getpid()),
    )
    run.write_record(record)
    return run


def _train(run: RunFolder, over: threading.Event) -> None:
    events, devices = EventLog(run.events_file), EventLog(run.devices_file(0))
    events.append(StateEvent(t=time.time(), state="running", attempt=1))
    step = 0
    while not over.wait(0.5):
        step += 1
        wave = math.sin(step * 1.7)
        events.append(
            StepEvent(
                t=time.time(), step=step, max_steps=2000, epoch=step / 700,
                loss=3 * math.exp(-step / 80) + 0.2 * wave + 0.5, learning_rate=1e-4 * (1 - step / 2000),
                grad_norm=1 + 0.3 * wave, num_tokens=step * 16384, tokens_per_second=32000 + 900 * wave,
                step_seconds=0.5 + 0.01 * wave,
            )
        )  # fmt: skip
        if step % 2:
            readings = tuple(_reading(index, step) for index in range(NUM_DEVICES))
            host = HostReading(
                cpu_percent=20 + 5 * wave, memory_used_bytes=40 << 30, memory_total_bytes=256 << 30
            )
            devices.append(DevicesEvent(t=time.time(), host=host, devices=readings))


def _reading(index: int, step: int) -> DeviceReading:
    wave = math.sin(step * 0.9 + index)
    return DeviceReading(
        index=index, name="NVIDIA A100-SXM4-80GB", utilization_percent=round(92 + 6 * wave),
        memory_used_bytes=(61 << 30) + int(wave * (1 << 28)), memory_total_bytes=80 << 30,
        temperature_celsius=round(61 + 3 * wave), power_watts=round(350 + 30 * wave), power_limit_watts=400.0,
    )  # fmt: skip


def _look(run: RunFolder, columns: int, lines: int, *, off: bool) -> dict[str, float]:
    """Look at the run through a pty; count what comes in a second, and what it costs."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    environ = {**os.environ, "TERM": "xterm-256color", "COLORTERM": ""}
    environ |= {"FTWIZ_HOME": str(run.path.parent.parent), "FTWIZ_NO_CELLDIFF": "1" if off else ""}
    command = [sys.executable, "-m", "ftwiz", "watch", str(run.path), "--readonly"]
    viewer = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ)
    os.close(theirs)
    start_bytes = _count(ours, WARM_UP_SECONDS)
    before = _processor_seconds(viewer.pid)
    counted = _count(ours, SECONDS)
    after = _processor_seconds(viewer.pid)
    resident = _resident_mib(viewer.pid)
    os.write(ours, b"l")
    key_bytes = _count(ours, 0.3)
    viewer.terminate()
    viewer.wait(10)
    os.close(ours)
    return {
        "bytes/s": round(counted / SECONDS), "start bytes": start_bytes, "bytes after a key": key_bytes,
        "processor %": round(100 * (after - before) / SECONDS, 2), "processor s to begin": round(before, 2),
        "MiB": round(resident, 1),
    }  # fmt: skip


def _count(ours: int, seconds: float) -> int:
    end, counted = time.monotonic() + seconds, 0
    while (left := end - time.monotonic()) > 0:
        if select.select([ours], [], [], min(0.2, left))[0]:
            counted += len(os.read(ours, 1 << 16))
    return counted


def _processor_seconds(pid: int) -> float:
    """Return the time that all threads of a process were on a processor."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def _resident_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def _long_log(run: RunFolder) -> dict[str, float]:
    """Write steps until the log has a gigabyte, and look into it in a process of its own."""
    line = '{"kind":"step","t":1.75e9,"step":%d,"max_steps":100000000,"loss":%.4f,"grad_norm":0.5}\n'
    with run.events_file.open("ab") as file:
        step = 2000
        while file.tell() < 1 << 30:
            steps = range(step, step + 50_000)
            file.write("".join(line % (one, 1 + 100 / one) for one in steps).encode())
            step += 50_000
    asked = subprocess.run(
        [sys.executable, __file__, "--first-look", str(run.path)], capture_output=True, text=True, check=True
    )
    return dict(json.loads(asked.stdout))


def _first_look(folder: Path) -> None:
    began, used = time.monotonic(), time.process_time()
    reader = Reader(RunFolder(folder), readonly=True)
    frame = reader.read()
    seconds, processor = time.monotonic() - began, time.process_time() - used
    reader.read_all()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = {"seconds": round(seconds, 2), "processor s": round(processor, 2), "MiB": round(memory, 1)}
    print(json.dumps(figures | {"points": len(frame.view.loss.points)}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--first-look"]:
        _first_look(Path(sys.argv[2]))
    else:
        main()
