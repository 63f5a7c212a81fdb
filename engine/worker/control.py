"""Requests from outside, seen by all ranks at the same step: rank 0 looks, and says what it saw."""

from typing import Any

from ..rundir import RunFolder
from .ranks import Group

_NOTHING, _SAVE, _STOP = 0, 1, 2


def requests_callback(run: RunFolder, group: Group) -> Any:
    """Return the trainer callback that obeys ``control/stop`` and ``control/save``.

    Its attribute ``stopped`` tells afterwards whether the run was stopped before its last step.
    """
    from transformers import TrainerCallback

    class Requests(TrainerCallback):  # type: ignore[misc]
        stopped = False

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:  # noqa: ARG002
            wanted = group.from_first(_look(run) if group.rank.is_first else _NOTHING)
            if wanted == _NOTHING:
                return control
            control.should_save = True
            if wanted == _STOP and state.global_step < state.max_steps:
                self.stopped = control.should_training_stop = control.should_log = True
            return control

    return Requests()


def _look(run: RunFolder) -> int:
    if run.stop_request.exists():
        return _STOP
    if run.save_request.exists():
        run.save_request.unlink(missing_ok=True)
        return _SAVE
    return _NOTHING
