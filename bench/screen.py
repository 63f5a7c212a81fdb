"""Bytes a second that the monitor sends over the line, with cells compared and without, side by side.

``python bench/screen.py``: a run with eight devices logs two steps a second; ``ftwiz watch`` is looked at
through a pty of 120x40 and 80x24.
"""

import fcntl
import json
import math
import os
import pty
import select
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path

from ftwiz.engine.rundir import RunFolder, create
from ftwiz.engine.specs.events import DevicesEvent, StateEvent, StepEvent
from ftwiz.engine.specs.machine import DeviceReading, HostReading
from ftwiz.engine.specs.run import RunRecord, RunState
from ftwiz.engine.supervise import process
from ftwiz.engine.telemetry import EventLog

WARM_UP_SECONDS, SECONDS = 4.0, 20.0
NUM_DEVICES = 8


def main() -> None:
    """Print a table."""
    with tempfile.TemporaryDirectory() as root:
        run = _run(Path(root))
        over = threading.Event()
        writer = threading.Thread(target=_train, args=(run, over))
        writer.start()
        rows = [
            {"screen": f"{columns}x{lines}", "cells compared": _bytes(run, columns, lines, off=False)}
            | {"as Textual sends": _bytes(run, columns, lines, off=True)}
            for columns, lines in ((120, 40), (80, 24))
        ]
        over.set()
        writer.join()
    for row in rows:
        row["ratio"] = round(row["as Textual sends"] / max(1, row["cells compared"]), 1)  # type: ignore[operator,call-overload]
        print(json.dumps(row | {"unit": "bytes/s"}))


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


def _bytes(run: RunFolder, columns: int, lines: int, *, off: bool) -> int:
    """Look at the run through a pty and count what comes in a second."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    environ = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    environ |= {"FTWIZ_HOME": str(run.path.parent.parent), "FTWIZ_NO_CELLDIFF": "1" if off else ""}
    command = [sys.executable, "-m", "ftwiz", "watch", str(run.path), "--readonly"]
    viewer = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ)
    os.close(theirs)
    began, counted = time.monotonic(), 0
    while (now := time.monotonic()) < began + WARM_UP_SECONDS + SECONDS:
        ready, _, _ = select.select([ours], [], [], 0.2)
        if ready:
            size = len(os.read(ours, 1 << 16))
            counted += size if now > began + WARM_UP_SECONDS else 0
    viewer.terminate()
    viewer.wait(10)
    os.close(ours)
    return round(counted / SECONDS)


if __name__ == "__main__":
    main()
