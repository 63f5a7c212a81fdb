"""What is in the way is found before ranks start: a disk without room, and the lock of a build that died."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine.errors import ExitCode, Refused
from ftwiz.engine.supervise.preflight import clear_dead_locks

Make = Callable[..., Any]


def needs(run: Any, num_bytes: int) -> Any:
    plan = json.loads(run.run.plan_file.read_text())
    run.run.plan_file.write_text(json.dumps(plan | {"predicted": {"disk_bytes": num_bytes}}))
    return run


def test_a_disk_without_room_is_refused_with_both_figures(standin: Make) -> None:
    run = needs(standin(), 1 << 60)
    with pytest.raises(
        Refused, match=r"GiB are free, and checkpoints and model take 1073741824\.00 GiB"
    ) as no:
        run.start()
    assert no.value.exit_code == ExitCode.REFUSED
    assert run.run.read_record().attempts == ()


def test_a_disk_with_room_is_none_of_our_business(standin: Make) -> None:
    assert needs(standin("--steps", "2"), 1000).start().wait_until_over().reason == "finished at step 2 of 2"


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "extensions" / "py311_cpu" / "cpu_adam" / "lock"
    path.parent.mkdir(parents=True)
    path.touch()
    return path


def test_the_lock_of_a_dead_build_is_removed_and_told(lock: Path) -> None:
    environ = {"TORCH_EXTENSIONS_DIR": str(lock.parents[2])}
    assert clear_dead_locks(environ) == []
    os.utime(lock, (time.time() - 60,) * 2)
    (told,) = clear_dead_locks(environ)
    assert str(lock) in told
    assert not lock.exists()


def test_the_lock_of_a_living_build_is_left_alone(lock: Path) -> None:
    os.utime(lock, (time.time() - 60,) * 2)
    with lock.open():
        assert clear_dead_locks({"TORCH_EXTENSIONS_DIR": str(lock.parents[2])}) == []
    assert lock.exists()
