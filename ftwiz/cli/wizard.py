"""``ftwiz`` without a command: asks what to train on this machine, and launches it like ``ftwiz run``."""

import os
import sys

from ..engine.errors import BadInput, ExitCode

DEFAULT_PRESET = "demo"


def wizard(*, preset: str | None, plain: bool) -> int:
    """Ask, write the job file and launch it.

    Args:
        preset: Name of the preset to begin with; the demo when absent.
        plain: Ask line by line.

    Raises:
        BadInput: There is no terminal to ask on, or no such preset.
    """
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if not is_terminal and not plain:
        raise BadInput("the wizard needs a terminal", hint="ftwiz run JOB.yaml")
    from ..engine.hardware import detect
    from ..engine.job import load_preset

    start = load_preset(preset or DEFAULT_PRESET)
    by_line = plain or os.environ.get("TERM", "dumb") == "dumb"
    if by_line:
        from ..tui.plain import run_plain_wizard

        result = run_plain_wizard(detect(), preset=start)
    else:
        from ..tui.wizard import run_wizard

        result = run_wizard(detect(), preset=start)
    if result is None:
        return ExitCode.OK
    sys.stderr.write(f"wrote {result.path}\n")
    if not result.launch:
        sys.stderr.write(f"start it with: ftwiz run {result.path}\n")
        return ExitCode.OK
    from ..engine.job import load_job
    from .follow import Follow
    from .run import launch

    return launch(load_job(result.path), Follow(no_tui=by_line))
