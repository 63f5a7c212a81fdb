"""Fixed machines and a fixed preset in an empty folder: all screens of these tests look the same anywhere."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import pytest
from textual.pilot import Pilot

from ftwiz.engine.job import LoadedJob, Source
from ftwiz.engine.job.loader import load_file
from ftwiz.engine.specs.machine import Device, Host, Machine

GIB = 2**30
PRESET = """version: 1
model:
  name_or_path: ftwiz:demo
data:
  path: demo.jsonl
  eval_fraction: 0.1
method:
  kind: full
train:
  num_train_epochs: 4
  global_batch_size: 32
  max_length: 64
  learning_rate: 1.0e-3
"""
Rows = Sequence[Mapping[str, object]]


@pytest.fixture
def cpu_box() -> Machine:
    """A machine without an accelerator."""
    return Machine(host=Host(name="box", num_cpus=8, total_bytes=64 * GIB, available_bytes=60 * GIB))


@pytest.fixture
def gpu_box() -> Machine:
    """A machine with two cards of one kind."""
    host = Host(name="box", num_cpus=32, total_bytes=256 * GIB, available_bytes=240 * GIB)
    cards = (
        Device(
            kind="cuda",
            index=index,
            name="NVIDIA L40S",
            total_bytes=48 * GIB,
            free_bytes=(47 - index) * GIB,
            supports_bf16=True,
        )
        for index in range(2)
    )
    return Machine(host=host, devices=tuple(cards))


def write_rows(path: Path, rows: Rows) -> Path:
    """Write a .jsonl file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, which is also the home: it holds ``sums.jsonl`` with 200 rows, and ``empty/``."""
    path = tmp_path / "work"
    path.mkdir()
    monkeypatch.chdir(path)
    monkeypatch.setenv("HOME", str(path))
    write_rows(
        path / "sums.jsonl",
        [{"question": f"What is {n} plus {n}?", "answer": str(2 * n)} for n in range(200)],
    )
    (path / "empty").mkdir()
    return path


@pytest.fixture
def preset(folder: Path) -> LoadedJob:
    """A preset with its own data file, both in ``presets/`` of the current folder."""
    home = folder / "presets"
    home.mkdir()
    (home / "demo.yaml").write_text(PRESET, encoding="utf8")
    write_rows(
        home / "demo.jsonl",
        [{"question": f"Reverse the word: w{n}", "answer": f"{n}w"} for n in range(600)],
    )
    return load_file(home / "demo.yaml", overrides=(), source=Source.PRESET)


async def settled(pilot: Pilot[object]) -> None:
    """Wait until every check is over, and until a dialog that was asked for is there."""
    app = pilot.app
    await pilot.pause()
    while any(
        worker.group in {"check", "help", "look"}
        or (worker.group in {"finish", "pick", "review"} and len(app.screen_stack) == 1)
        for worker in app.workers
        if not worker.is_finished
    ):
        await pilot.pause(0.01)
    await pilot.pause()


@pytest.fixture
def settle() -> Callable[[Pilot[object]], Awaitable[None]]:
    """How a test waits until everything that the last key started is done."""
    return settled
