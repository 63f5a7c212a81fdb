"""The wizard: a few questions about model, data and method, and out of them a job file that can be launched.

Screens get what was detected and the preset in their constructors; they look at the files that are named,
and write one file, at the end.
"""

from ...engine.job import LoadedJob
from ...engine.specs.machine import Machine
from .save import WizardResult
from .state import Opening

__all__ = ["Opening", "WizardResult", "run_wizard"]


def run_wizard(machine: Machine, *, preset: LoadedJob, opening: Opening | None = None) -> WizardResult | None:
    """Show the wizard on the whole terminal and return what was written, or None when the user left.

    Args:
        machine: What was detected.
        preset: The job to begin with.
        opening: How it begins: with what given beforehand, and on which screen.
    """
    from .app import WizardApp  # noqa: PLC0415 - the plain face needs no screen library

    return WizardApp(machine, preset, opening).run()
