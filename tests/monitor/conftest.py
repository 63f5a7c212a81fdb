"""Recorded runs as frames, in one time zone and with a fixed clock."""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from ftwiz.engine.rundir import RunFolder
from ftwiz.tui.monitor.reader import Reader
from ftwiz.tui.monitor.view import Frame

RUNS = Path(__file__).parents[1] / "fixtures" / "runs"
NOW = 1_750_000_040.0


@pytest.fixture(autouse=True)
def one_time_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def recorded(tmp_path: Path) -> Callable[[str], RunFolder]:
    """A copy of a recorded run."""

    def copy(name: str) -> RunFolder:
        return RunFolder(shutil.copytree(RUNS / name, tmp_path / "runs" / name))

    return copy


@pytest.fixture
def frame_of() -> Callable[[str], Frame]:
    """The frame of a recorded run; its folder is named alike on every machine."""
    return _frame


@cache
def _frame(name: str) -> Frame:
    reader = Reader(RunFolder(RUNS / name), status=RunFolder.read_record, clock=lambda: NOW)
    frame = reader.read_all()
    reader.close()
    model = f"/runs/{name}/model" if frame.model else None
    return replace(frame, folder=f"/runs/{name}", model=model)
