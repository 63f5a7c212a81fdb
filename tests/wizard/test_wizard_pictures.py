"""How the wizard looks: pictures of fixed machines and answers, in two sizes."""

from collections.abc import Awaitable, Callable

import pytest
from textual.pilot import Pilot

from ftwiz.engine.job import LoadedJob
from ftwiz.engine.specs.machine import Machine
from ftwiz.tui.wizard.app import WizardApp

pytestmark = pytest.mark.timeout(60)

SIZES = [(80, 24), (120, 40)]
Compare = Callable[..., bool]


Settle = Callable[[Pilot[object]], Awaitable[None]]


def played(settle: Settle, *keys: str) -> Callable[[Pilot[object]], Awaitable[None]]:
    """Return what presses the keys one after the other."""

    async def play(pilot: Pilot[object]) -> None:
        await settle(pilot)
        for key in keys:
            await pilot.pause(0.2)  # a screen that gets another on top of it must be laid out by then
            await pilot.press(key)
            await settle(pilot)
        await pilot.pause(0.2)

    return play


@pytest.mark.parametrize("size", SIZES)
def test_first_screen(
    snap_compare: Compare, cpu_box: Machine, preset: LoadedJob, settle: Settle, size: tuple[int, int]
) -> None:
    assert snap_compare(WizardApp(cpu_box, preset), terminal_size=size, run_before=played(settle))


@pytest.mark.parametrize("size", SIZES)
def test_a_problem_at_a_field(
    snap_compare: Compare, gpu_box: Machine, preset: LoadedJob, settle: Settle, size: tuple[int, int]
) -> None:
    keys = ("c", "down", "x", "full_stop", "j", "s", "o", "n", "l")
    assert snap_compare(WizardApp(gpu_box, preset), terminal_size=size, run_before=played(settle, *keys))


@pytest.mark.parametrize("keys", [("enter",), ("c", "down", "f1"), ("f3",)], ids=["save", "help", "job file"])
def test_over_the_form(
    snap_compare: Compare,
    cpu_box: Machine,
    preset: LoadedJob,
    settle: Settle,
    keys: tuple[str, ...],
) -> None:
    assert snap_compare(WizardApp(cpu_box, preset), terminal_size=(80, 24), run_before=played(settle, *keys))
