"""Requests from outside, seen by all ranks at the same step: rank 0 looks, and says what it saw."""

from typing import Any

from transformers import TrainerCallback

from ..rundir import RunFolder
from .ranks import Group

_NOTHING, _SAVE, _STOP = 0, 1, 2


class Requests(TrainerCallback):  # type: ignore[misc]
    """Obeys ``control/stop`` and ``control/save`` at the end of an optimizer step."""

    def __init__(self, run: RunFolder, group: Group) -> None:
        self._group = group
        self._stop, self._save = run.stop_request, run.save_request  # looked for at every step
        self.stopped = False
        """Whether the run was stopped before its last step."""

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Look for a request, and agree on it with the other ranks."""
        wanted = self._group.from_first(self._look() if self._group.rank.is_first else _NOTHING)
        if wanted == _NOTHING:
            return control
        control.should_save = True
        if wanted == _STOP and state.global_step < state.max_steps:
            self.stopped = control.should_training_stop = control.should_log = True
        return control

    def _look(self) -> int:
        if self._stop.exists():
            return _STOP
        if self._save.exists():
            self._save.unlink(missing_ok=True)
            return _SAVE
        return _NOTHING
