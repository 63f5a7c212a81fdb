"""How the wizard looks: pictures of fixed machines and answers, in two sizes."""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot

from ftwiz.engine.hardware.written import parse_machine
from ftwiz.engine.job import LoadedJob, load_preset
from ftwiz.engine.specs.machine import Machine
from ftwiz.tui.wizard.app import WizardApp
from ftwiz.tui.wizard.state import Opening

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


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("keys", [(), ("f4",), ("f7", "f8")], ids=["no", "strategies", "review"])
def test_what_does_not_fit_and_what_can_be_done(
    snap_compare: Compare, folder: Path, settle: Settle, size: tuple[int, int], keys: tuple[str, ...]
) -> None:
    opening = Opening(data="sums.jsonl")
    app = WizardApp(parse_machine("2xRTX-4090+128GB"), load_preset("full-zero3"), opening)
    # The interpreter's path is this machine's own.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", "python")
        assert snap_compare(app, terminal_size=size, run_before=played(settle, *keys))
