"""How a plan reads on a terminal."""

from pathlib import Path
from textwrap import wrap

from ..engine.prepare import Prepared

LEAST_TEXT = 30
"""Columns below which a reason is not squeezed beside its head."""


def plan_text(prepared: Prepared, width: int | None = None) -> str:
    """Return the plan with its reasons, and what was rejected with the reason against it.

    Args:
        prepared: The plan and its job.
        width: Columns of the terminal; ``None``: lines are as long as they are.
    """
    strategy = prepared.plan.strategy
    rows = [
        (f"{reason.about} = {getattr(strategy, reason.about, '')}".removesuffix(" = "), reason.text)
        for reason in prepared.plan.reasons
    ]
    rows += [(f"not {rejected.choice}", rejected.text) for rejected in prepared.plan.rejected]
    column = max(len(head) for head, _ in rows[: len(prepared.plan.reasons)])
    lines = [line for head, text in rows for line in _row(head, text, column, width)]
    return "\n".join([f"plan for {prepared.loaded.name}", *lines])


def _row(head: str, text: str, column: int, width: int | None) -> list[str]:
    """Return a reason beside its head; below it where the head is long or the terminal narrow."""
    if width is None:
        return [f"  {head:<{column}}  {text}"]
    beside = width - column - 5
    if beside < LEAST_TEXT:
        return [f"  {line}" for line in wrap(head, width - 3)] + [
            f"      {line}" for line in wrap(text, width - 7)
        ]
    if len(head) > column:
        heads = wrap(head, width - 3)
        return [f"  {line}" for line in heads] + [f"  {'':<{column}}  {line}" for line in wrap(text, beside)]
    first, *more = wrap(text, beside)
    return [f"  {head:<{column}}  {first}", *(f"  {'':<{column}}  {line}" for line in more)]


WHAT = {
    "job.yaml": "the job, with absolute paths",
    "train.yaml": "what every rank reads: model, data, trainer's arguments",
    "accelerate.yaml": "how accelerate launch starts the ranks",
    "deepspeed.json": "DeepSpeed's own settings",
    "hostfile": "the nodes for DeepSpeed's launcher; without --hostfile it would take /job/hostfile",
    "launch.sh": "starts the ranks by hand",
    "job.sbatch": "the same in SLURM's queue: sbatch job.sbatch",
    "plan.json": "the plan with its reasons; every rank holds itself against it",
}


def written_text(prepared: Prepared, folder: Path) -> str:
    """Return a line for every file that was written."""
    rows = [(str(folder / name), WHAT.get(name, _of_node(name))) for name in prepared.files]
    column = max(len(path) for path, _ in rows)
    return "\n".join(f"{path:<{column}}  {what}" for path, what in rows)


def _of_node(name: str) -> str:
    rank = name.removeprefix("accelerate-node-").removesuffix(".yaml")
    return f"accelerate.yaml for node {rank}"


def files_text(prepared: Prepared) -> str:
    """Return every file that a run would write, each under its name."""
    return "\n".join(f"--- {name}\n{text}" for name, text in prepared.files.items())
