"""The command that shows what is in the box, and how busy it is."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator

import click

from ..engine.hardware import detect, host_reading, sample
from ..engine.specs.machine import Machine

PERIOD_SECONDS = 1.0


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON; `ftwiz plan --machine` reads it.")
@click.option("--watch", is_flag=True, help="Go on showing how busy it is, once a second, until Ctrl-C.")
@click.option("--machine", "spec", metavar="SPEC", help="A machine that is written down: 8xA100-80GB+1TB.")
def devices(*, as_json: bool, watch: bool, spec: str | None) -> None:
    """Show accelerators, their links, host, disks and network, and what could not be read.

    Memory is what is free now, with who holds the rest; host memory and CPUs are what this process may use.
    """
    if watch and (as_json or spec is not None):
        raise click.UsageError("--watch goes with neither --json nor --machine")
    if watch and (not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb"):
        raise click.UsageError("--watch needs a terminal; for a script: ftwiz devices --json")
    if spec is not None:
        from ..engine.hardware.written import parse_machine

        machine = parse_machine(spec)
    else:
        machine = detect()
    readings = () if spec is not None else sample(machine)
    if as_json:
        from ..engine.hardware.machine_file import machine_to_json

        click.echo(machine_to_json(machine, readings))
    elif watch:
        _watch(machine)
    else:
        from .show_machine import machine_lines

        _print(machine_lines(machine, readings, width=_width()))


def _print(lines: Iterator[str]) -> None:
    is_coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    text = "\n".join(line if is_coloured else click.unstyle(line) for line in lines)
    encoding = sys.stdout.encoding or "utf8"  # a terminal that cannot draw blocks gets question marks
    click.echo(text.encode(encoding, "replace").decode(encoding), color=is_coloured)


def _width() -> int:
    """Return the cells of a line; a pipe has room for everything."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 200


def _watch(machine: Machine) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from .show_machine import busy_lines

    console = Console(highlight=False)

    def frame() -> Text:
        width, height = console.size
        lines = busy_lines(machine, sample(machine), host_reading(), width=width, height=height)
        return Text.from_ansi("\n".join(lines), no_wrap=True, overflow="ellipsis")

    with Live(frame(), console=console, auto_refresh=False, screen=True, vertical_overflow="crop") as live:
        _every_second(lambda: live.update(frame(), refresh=True))


def _every_second(show: Callable[[], None]) -> None:
    """Show once a second until Ctrl-C; what takes longer is not made up for."""
    try:
        while True:
            begun = time.monotonic()
            show()
            time.sleep(max(0.1, PERIOD_SECONDS - (time.monotonic() - begun)))
    except KeyboardInterrupt:
        return
