"""How the wizard looks: pictures of fixed machines and answers, in two sizes."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.worker import WorkerCancelled

from ftwiz.engine.job import LoadedJob
from ftwiz.engine.specs.machine import Machine
from ftwiz.tui.wizard.app import WizardApp

pytestmark = pytest.mark.timeout(60)

SIZES = [(80, 24), (120, 40)]
Compare = Callable[..., bool]


def played(*keys: str) -> Callable[[Pilot[object]], object]:
    """Return what presses the keys and waits for the last check."""

    async def play(pilot: Pilot[object]) -> None:
        for key in ("", *keys):
            if key:
                await pilot.press(key)
            await pilot.pause()
            for worker in list(pilot.app.workers):
                if worker.group == "check" and not worker.is_finished:
                    with contextlib.suppress(WorkerCancelled):  # overtaken by a newer one
                        await worker.wait()
            await pilot.pause()

    return play


@pytest.mark.parametrize("size", SIZES)
def test_first_screen(
    snap_compare: Compare, cpu_box: Machine, preset: LoadedJob, size: tuple[int, int]
) -> None:
    assert snap_compare(WizardApp(cpu_box, preset), terminal_size=size, run_before=played())


@pytest.mark.parametrize("size", SIZES)
def test_a_problem_at_a_field(
    snap_compare: Compare, gpu_box: Machine, preset: LoadedJob, size: tuple[int, int]
) -> None:
    keys = ("c", "down", "x", "full_stop", "j", "s", "o", "n", "l")
    assert snap_compare(WizardApp(gpu_box, preset), terminal_size=size, run_before=played(*keys))


@pytest.mark.parametrize("keys", [("enter",), ("c", "down", "f1"), ("f3",)], ids=["save", "help", "job file"])
def test_over_the_form(
    snap_compare: Compare, gpu_box: Machine, preset: LoadedJob, folder: Path, keys: tuple[str, ...]
) -> None:
    assert not list(folder.glob("*.yaml"))
    assert snap_compare(WizardApp(gpu_box, preset), terminal_size=(80, 24), run_before=played(*keys))
