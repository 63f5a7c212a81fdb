"""The smoke test: trials of a job at two lengths, a line through what they took, and what was predicted."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..calibration import Calibration
from ..errors import BadInput
from ..job import LoadedJob
from ..known import Fit, fit_of, known_of
from ..prepare import check_stack, prepare
from ..rundir import runs_root
from ..specs.machine import CPU, Machine
from ..specs.run import RunState
from ..supervise.diagnose import UNKNOWN
from .result import Result, ok, problem, size, warning
from .trial import Outcome, plan_trial, run_trial, trial_folder, trial_lengths

Narrate = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """One counter at one token count: predicted by the fast estimate, and measured."""

    tokens: int
    counter: str
    measured_bytes: int
    predicted_bytes: int | None = None

    @property
    def error(self) -> float | None:
        """Share by which the prediction is off what was measured."""
        if self.predicted_bytes is None or not self.measured_bytes:
            return None
        return self.predicted_bytes / self.measured_bytes - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Smoke:
    """What a smoke test found."""

    outcomes: Mapping[int, Outcome]
    """By sequence length, the shorter first; the longer is not tried when the shorter fails."""
    fit: Fit | None = None
    """``None`` when a trial failed, or both had the same tokens."""

    @property
    def is_well(self) -> bool:
        """Whether both lengths ran to their end."""
        return all(outcome.is_well for outcome in self.outcomes.values())


def smoke_test(
    loaded: LoadedJob,
    machine: Machine,
    environ: Mapping[str, str],
    *,
    num_steps: int,
    seconds: float,
    narrate: Narrate,
) -> Smoke:
    """Run the exact configuration for some steps at half its length and at its length. Main thread only.

    Nothing of it is left: no process and no folder. What was measured is in ``calibration.jsonl``.

    Args:
        loaded: The job.
        machine: What it runs on.
        environ: Says where runs are.
        num_steps: Optimizer steps of each; two or more, so that optimizer states are there.
        seconds: Time for both together.
        narrate: Told in a sentence what happens.

    Raises:
        FtwizError: The job cannot be prepared, or a trial cannot be started.
    """
    check_stack()
    lengths = trial_lengths(loaded.job.train.max_length)
    strategy = prepare(loaded, machine, measured=known_of(environ, machine)).plan.strategy
    deadline = time.monotonic() + seconds
    outcomes: dict[int, Outcome] = {}
    with trial_folder(runs_root(environ).parent) as folder:
        for length in lengths:
            narrate(f"{num_steps} steps with {strategy.micro_batch_size} x {length:,} tokens on each rank")
            prepared = plan_trial(
                loaded, strategy, machine, length=length, num_steps=num_steps, folder=folder
            )
            outcomes[length] = run_trial(prepared, folder, seconds=max(1.0, deadline - time.monotonic()))
            if not outcomes[length].is_well:
                break
    return Smoke(outcomes=outcomes, fit=_fit([outcome.row for outcome in outcomes.values()]))


def results(smoke: Smoke) -> list[Result]:
    """Return what a smoke test found, a line for each length."""
    return [line for length, outcome in smoke.outcomes.items() for line in _lines(length, outcome)]


def comparisons(smoke: Smoke) -> list[Comparison]:
    """Return every counter that was measured, beside what the fast estimate says of it."""
    rows = [outcome.row for outcome in smoke.outcomes.values() if outcome.row is not None]
    return [one for row in rows for one in _compared(row)]


def _fit(rows: list[Calibration | None]) -> Fit | None:
    try:
        return fit_of([row for row in rows if row is not None])
    except BadInput:
        return None


def _lines(length: int, outcome: Outcome) -> list[Result]:
    check = f"smoke {length:,}"
    row = outcome.row
    if outcome.is_well and row is not None:
        peak = f", at most {size(_main(row))} on a rank" if _main(row) is not None else ""
        speed = f", {row.tokens_per_second:,.0f} tokens/s" if row.tokens_per_second else ""
        lines = [ok(check, f"{row.num_steps} steps in {outcome.seconds:.0f} s{peak}{speed}")]
        planned = row.sequence_tokens * row.micro_batch_size
        if row.batch_tokens is not None and row.batch_tokens < planned:
            text = f"a micro batch had {row.batch_tokens:,} tokens, not {planned:,}: not the worst case"
            lines.append(warning(check, text))
        return lines
    if outcome.timed_out:
        text = f"not done after {outcome.seconds:.0f} s, and ended"
        return [problem(check, text, "give it more time: --limit SECONDS")]
    return [_failed(check, outcome)]


def _failed(check: str, outcome: Outcome) -> Result:
    found = outcome.diagnosis
    if found is None:
        stopped = outcome.state is RunState.STOPPED
        return problem(check, "was stopped from outside" if stopped else f"ended as {outcome.state}")
    advice = "; ".join(text for text in (found.advice, found.command) if text)
    if found.cause == UNKNOWN:  # its message is the rank's own error
        return problem(check, found.message, advice or None)
    seen = f" ({found.evidence})" if found.evidence else ""
    return problem(check, f"{found.cause}: {found.message}{seen}", advice or None)


def _main(row: Calibration) -> int | None:
    if row.steps is None:
        return None
    if row.device_kind == CPU:
        return row.steps.grown_bytes
    return row.steps.process_bytes or row.steps.reserved_bytes or row.steps.allocated_bytes


def _compared(row: Calibration) -> list[Comparison]:
    # On the CPU tensors are in the process: its growth is what the estimate calls allocated.
    on_cpu = (("grown_bytes", "allocated_bytes"),)
    on_device = tuple((name, name) for name in ("allocated_bytes", "reserved_bytes", "process_bytes"))
    found = []
    for measured, predicted in on_cpu if row.device_kind == CPU else on_device:
        value = getattr(row.steps, measured) if row.steps else None
        if value is not None:
            guess = getattr(row.predicted, predicted) if row.predicted else None
            found.append(
                Comparison(tokens=row.tokens, counter=measured, measured_bytes=value, predicted_bytes=guess)
            )
    return found
