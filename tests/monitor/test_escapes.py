"""Text that tries to command the terminal, in every place that text comes from, on every way out."""

from collections.abc import Callable
from dataclasses import replace
from io import StringIO

import pyte
import pytest
from rich.console import Console
from textual.pilot import Pilot

from ftwiz.engine.rundir import RunFolder
from ftwiz.engine.specs.events import (
    AlertEvent,
    CheckpointEvent,
    DevicesEvent,
    Event,
    LogEvent,
    SampleEvent,
    StateEvent,
)
from ftwiz.engine.specs.machine import DeviceReading
from ftwiz.engine.specs.run import Diagnosis, RunState
from ftwiz.engine.telemetry import EventLog
from ftwiz.tui.monitor import panels, plain
from ftwiz.tui.monitor.app import Monitor
from ftwiz.tui.monitor.devices import devices
from ftwiz.tui.monitor.health import checkpoints, health, memory, ranks
from ftwiz.tui.monitor.metrics import metrics
from ftwiz.tui.monitor.reduce import History
from ftwiz.tui.monitor.report import report
from ftwiz.tui.monitor.result import result
from ftwiz.tui.monitor.samples import samples
from ftwiz.tui.monitor.view import Facts, Frame
from ftwiz.tui.text import safe

FAMILIES = {
    "clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "title": "\x1b]0;evil\x07",
    "clear": "\x1b[2J\x1b[H",
    "eight-bit csi": "\x9b2J",
    "device control": '\x1bP$q"p\x1b\\',
    "hyperlink": "\x1b]8;;http://evil\x1b\\x\x1b]8;;\x1b\\",
    "bidi override": "\u202egnp.exe\u2066x\u2069",
    "nul": "a\x00b",
    "application program": "\x1b_Gf=100;\x1b\\",
    "reset": "\x1bc\x1b[?1049l\x1b[?1000h",
    "cursor": "a\rb\b\x0b\x0c\x1b[10A",
    "eight-bit osc": "\x9d52;c;ZXZpbA==\x9c",
    "surrogate": "a\ud800\udcffb",
    "answer back": "\x05\x1b[6n\x1b[c",
}
MARKUP = {
    "unbalanced": "gpu[/]",
    "action": "[@click=app.detach]gpu0[/]",
    "link": "[link=http://evil]x[/link]",
    "style": "[bold red on white blink]x",
}


def poisoned_events(poison: str) -> list[Event]:
    return [
        LogEvent(t=1.0, message=poison),
        AlertEvent(t=2.0, level="error", code=poison, message=poison),
        CheckpointEvent(t=3.0, step=1, path=poison, size_bytes=1, seconds=1.0),
        StateEvent(t=4.0, state=poison, reason=poison),
        SampleEvent(t=5.0, step=0, index=0, prompt=poison, completion=poison, reference=poison),
        SampleEvent(t=6.0, step=9, index=0, prompt=poison, completion=poison, reference=poison, matches=True),
        DevicesEvent(t=7.0, devices=(DeviceReading(index=0, name=poison),)),
    ]


def poisoned(frame: Frame, poison: str, state: RunState) -> Frame:
    """The frame with the poison in every text that comes from outside."""
    history = History().feed(poisoned_events(poison))
    found = Diagnosis(cause=poison, message=poison, evidence=poison, advice=poison, command=poison)
    record = replace(frame.record, id=poison, name=poison, state=state, reason=poison, host=poison)
    if state is RunState.FAILED:
        record = replace(record, diagnosis=found)
    return replace(
        frame,
        record=record,
        view=history.view(),
        folder=poison,
        model=poison,
        facts=Facts(backend=poison, device_kind=poison, num_processes=2),
        log=(poison, poison),
    )


WAYS_OUT: dict[str, Callable[[Frame], str]] = {
    panel.__name__: lambda frame, panel=panel: "".join(
        text for row in panel(frame, 70, 12) for text, _ in row
    )  # type: ignore[misc]
    for panel in (
        panels.header,
        panels.loss,
        metrics,
        devices,
        health,
        ranks,
        checkpoints,
        memory,
        panels.events,
        panels.log,
        panels.keys,
        samples,
        result,
    )
}
WAYS_OUT["report"] = lambda frame: "".join(report(frame, over=True))


@pytest.mark.parametrize("state", [RunState.RUNNING, RunState.FINISHED, RunState.STOPPED, RunState.FAILED])
@pytest.mark.parametrize("way", WAYS_OUT)
@pytest.mark.parametrize("family", FAMILIES)
def test_no_text_from_outside_keeps_a_control(
    frame_of: Callable[[str], Frame], family: str, way: str, state: RunState
) -> None:
    shown = WAYS_OUT[way](poisoned(frame_of("running"), FAMILIES[family], state))
    assert safe(shown) == shown[:4095] + "…" if len(shown) > 4096 else safe(shown) == shown
    shown.encode("utf8")


def everything_shown(app: Monitor) -> str:
    """What the app would send for its whole screen, styles and all."""
    console = Console(
        file=StringIO(), width=120, force_terminal=True, color_system="256", legacy_windows=False
    )
    strips = app.screen._compositor.render_strips()  # noqa: SLF001 - there is no other way to the cells
    return "\n".join(strip.render(console) for strip in strips)


@pytest.mark.parametrize("family", FAMILIES | MARKUP)
async def test_the_screen_sends_only_colours(frame_of: Callable[[str], Frame], family: str) -> None:
    poison = (FAMILIES | MARKUP)[family]

    async def look(pilot: Pilot[int], app: Monitor) -> None:
        await pilot.pause()
        sent = everything_shown(app)
        plain_cells = [part.partition("m")[2] for part in sent.split("\x1b[")[1:]]
        assert all(
            part.partition("m")[0].replace(";", "").isdigit() or part[0] == "m"
            for part in sent.split("\x1b[")[1:]
        )
        assert all(safe(text.replace("\n", "")) == text.replace("\n", "") for text in plain_cells)
        if family in MARKUP:
            assert poison in "".join(plain_cells)

    app = Monitor(stop=lambda _now: None)
    async with app.run_test(size=(120, 40)) as pilot:
        for state in (RunState.RUNNING, RunState.FAILED):
            app.show(poisoned(frame_of("running"), poison, state))
            await look(pilot, app)
            for key in ("4", "5", "0"):
                await pilot.press(key)
                await look(pilot, app) if family not in MARKUP else await pilot.pause()
        await pilot.click(offset=(10, 1))
        await pilot.click(offset=(10, 22))
        assert app.is_running


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_lines_and_json_hold_no_control(recorded: Callable[[str], RunFolder], family: str) -> None:
    run = recorded("nan")
    log = EventLog(run.events_file)
    for event in poisoned_events(FAMILIES[family]):
        log.append(event)
    log.close()
    lines: list[str] = []
    plain.follow_plain(run, lines.append, until_done=False)
    assert any("log" in line for line in lines)
    assert all(safe(line) == line for line in lines)
    events: list[str] = []
    plain.follow_json(run, events.append, until_done=False)
    assert all(line.isascii() and line.isprintable() for line in events)


def test_a_terminal_that_gets_the_screen_shows_nothing_but_cells(frame_of: Callable[[str], Frame]) -> None:
    """The oracle is another terminal emulator: all families at once leave it where it was."""
    screen = pyte.Screen(70, 12)
    stream = pyte.Stream(screen)
    poison = "".join(FAMILIES[family] for family in FAMILIES if family != "surrogate")
    for way in WAYS_OUT.values():
        stream.feed("first line\r\n")
        stream.feed(way(poisoned(frame_of("running"), poison, RunState.FAILED))[:60])
        assert screen.title == ""
        screen.reset()
