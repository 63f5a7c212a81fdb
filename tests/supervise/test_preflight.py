"""What is in the way is found before ranks start: a disk without room, and the lock of a build that died."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine.errors import ExitCode, Refused
from ftwiz.engine.supervise.preflight import check_disk, clear_dead_locks, planned_disk_bytes

Make = Callable[..., Any]


def test_a_disk_without_room_is_refused_with_both_figures(standin: Make) -> None:
    run = standin().run
    with pytest.raises(
        Refused, match=r"GiB are free, and checkpoints and model take 1073741824\.00 GiB"
    ) as no:
        check_disk(run, 1 << 60)
    assert no.value.exit_code == ExitCode.REFUSED


def test_a_disk_with_room_and_an_unknown_need_are_no_reason_to_refuse(standin: Make) -> None:
    run = standin().run
    check_disk(run, 1000)
    check_disk(run, planned_disk_bytes(run))
    assert planned_disk_bytes(run) is None


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
