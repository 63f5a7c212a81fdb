"""Two runs never share a device, and a dead supervisor holds none."""

import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine import supervise
from ftwiz.engine.errors import Refused
from ftwiz.engine.specs.run import RunState
from ftwiz.engine.supervise.locks import lock_devices, release

pytestmark = pytest.mark.timeout(120)
Make = Callable[..., Any]
Wait = Callable[..., Any]


def test_a_device_is_held_by_one_run_and_free_after_it(tmp_path: Path) -> None:
    held = lock_devices(["GPU-1", "GPU-2"], "first", folder=tmp_path)
    with pytest.raises(Refused, match="device GPU-2 is in use by first"):
        lock_devices(["GPU-3", "GPU-2"], "second", folder=tmp_path)
    third = lock_devices(["GPU-3"], "third", folder=tmp_path)  # the refused one has let go of it
    release([*held, *third])
    release(lock_devices(["GPU-1", "GPU-2", "GPU-3"], "fourth", folder=tmp_path))
    assert oct(next(tmp_path.iterdir()).stat().st_mode)[-3:] == "600"


def test_names_of_devices_stay_inside_the_folder(tmp_path: Path) -> None:
    release(lock_devices(["../../evil", "a/b", "GPU-1" * 100], "run", folder=tmp_path / "locks"))
    assert len(list((tmp_path / "locks").iterdir())) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["locks"]


def on_device(run: Any, uuid: str) -> Any:
    """Let a stand-in's plan say that it trains on a device of this host."""
    file = run.run.path / "plan.json"
    device = {"index": 0, "kind": "cuda", "uuid": uuid}
    machine = {"host": {"name": socket.gethostname()}, "devices": [device]}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"machine": machine, "device_indices": [0]}))
    return run


def test_a_second_run_on_the_device_is_refused_with_the_first_one_s_name(
    standin: Make, wait_for: Wait, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    first = on_device(standin(), "GPU-of-this-test").start()
    first.wait_for_step(2)
    second = on_device(standin(), "GPU-of-this-test")
    with pytest.raises(Refused, match=f"GPU-of-this-test is in use by {first.run.id}"):
        second.start()
    assert second.record.state is RunState.CREATED
    assert second.processes == []
    os.kill(first.supervisor.pid, signal.SIGKILL)
    wait_for(lambda: first.record.state is RunState.LOST)
    assert supervise.tend(first.run).state is not RunState.LOST, "the new supervisor holds the device again"
    with pytest.raises(Refused, match="in use"):
        second.start()
    supervise.request_stop(first.run, now=True)
    first.wait_until_over()
    wait_for(lambda: not first.processes)
    second.start().wait_for_step(1)
