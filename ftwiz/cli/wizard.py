"""``ftwiz`` without a command: asks what to train on this machine, and launches it like ``ftwiz run``."""

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.errors import BadInput, ExitCode, Refused

if TYPE_CHECKING:
    from ..engine.job import LoadedJob
    from ..engine.specs.machine import Machine
    from ..tui.wizard import Opening, WizardResult

DEFAULT_PRESET = "demo"


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What stands on the command line."""

    preset: str | None = None
    """Name of the preset to begin with; the demo when absent."""
    job: Path | None = None
    """A job file to edit, in place of a preset."""
    model: str | None = None
    data: str | None = None
    overrides: tuple[str, ...] = ()
    spec: str | None = None
    """Another machine to plan for."""
    plain: bool = False
    """Ask line by line."""
    yes: bool = False
    """Ask nothing."""


def wizard(asked: Asked) -> int:
    """Ask, write the job file and launch it.

    Raises:
        BadInput: There is no terminal to ask on, or no such preset or file, or the answers are wrong.
        Refused: Nothing can be launched: it does not fit, or the machine is another one.
    """
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if not is_terminal and not asked.plain and not asked.yes:
        raise BadInput("the wizard needs a terminal", hint="ftwiz run JOB.yaml")
    from ..engine.hardware import detect
    from ..engine.hardware.written import parse_machine

    start = _start(asked)
    machine = detect() if asked.spec is None else parse_machine(asked.spec)
    opening = _opening(asked)
    if asked.yes:
        return _launch_at_once(machine, start, opening)
    by_line = asked.plain or os.environ.get("TERM", "dumb") == "dumb"
    result = _ask(machine, start, opening, by_line=by_line)
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


def _ask(
    machine: "Machine", start: "LoadedJob", opening: "Opening", *, by_line: bool
) -> "WizardResult | None":
    if by_line:
        from ..tui.plain import run_plain_wizard

        return run_plain_wizard(machine, preset=start, opening=opening)
    from ..tui.wizard import run_wizard

    return run_wizard(machine, preset=start, opening=opening)


def _start(asked: Asked) -> "LoadedJob":
    from ..engine.job import load_job, load_preset

    if asked.job is not None:
        return load_job(asked.job, overrides=asked.overrides)
    return load_preset(asked.preset or DEFAULT_PRESET, asked.overrides)


def _opening(asked: Asked) -> "Opening":
    from ..tui.wizard import Opening
    from ..tui.wizard.draft import draft_file

    is_bare = asked == Asked(plain=asked.plain)
    return Opening(
        model=asked.model,
        data=asked.data,
        at_review=asked.preset is not None,
        is_elsewhere=asked.spec is not None,
        path=asked.job,
        draft=draft_file() if is_bare else None,
    )


def _launch_at_once(machine: "Machine", start: "LoadedJob", opening: "Opening") -> int:
    """Launch what stands on the command line, without a question."""
    from ..engine.job import dump_job
    from ..engine.job.loader import parse_job
    from ..tui.wizard.check import Checker
    from .run import launch

    if opening.is_elsewhere:
        raise Refused(
            "--machine plans for another machine, and --yes starts on this one", hint="leave one out"
        )
    checker = Checker(machine, start)
    review = checker.check(opening.answers(checker.first_answers()))
    if review.problems:
        field, problem = next(iter(review.problems.items()))
        raise BadInput(f"{field}: {problem}")
    if review.job is None or not review.is_ready:
        raise Refused(str(review.plan_problem), hint="see what would fit: leave --yes out")
    name = review.job.run.name or start.name
    return launch(parse_job(dump_job(review.job), name=name, base=Path.cwd()))


def edited(asked: Asked, job: Path) -> Asked:
    """Return what was asked, for a job file in place of a preset: ``ftwiz saved.yaml``.

    Raises:
        BadInput: A preset is named too.
    """
    if asked.preset is not None:
        raise BadInput(f"--preset {asked.preset} and {job} are two jobs", hint="leave one of them out")
    return replace(asked, job=job)
