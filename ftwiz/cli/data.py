"""``ftwiz data``: what a data file is, how long its rows are, what of a row is learned, and what is wrong."""

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

if TYPE_CHECKING:
    from ..engine.data.survey import Survey
    from ..engine.specs.job import Job
    from ..engine.worker.spelling import Speller
    from .show_data import Measured

_STAGES = ("pt", "sft", "rm", "dpo", "kto", "orpo", "simpo", "grpo", "rloo")
_JOBS = (".yaml", ".yml")
MOST_WIDTH = 100


class Look(NamedTuple):
    """What rows are looked at with."""

    speller: "Speller | None"
    missing: str
    """Why there is no tokenizer."""
    answers_only: bool
    max_length: int


@click.command()
@click.argument("path", metavar="PATH|JOB.yaml")
@click.option("--stage", type=click.Choice(_STAGES), help="What it is for; told by its columns otherwise.")
@click.option("--model", metavar="MODEL", help="Whose tokens are counted; the job's otherwise.")
@click.option(
    "--max-length", metavar="N", type=click.IntRange(1, 100_000_000),
    help="Longest sequence in tokens; the job's otherwise.",
)  # fmt: skip
@click.option(
    "--rows", "num_shown", metavar="N", type=click.IntRange(0, 1000), default=1,
    help="Rows to show as the model sees them; 1.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
def data(
    path: str, *, stage: str | None, model: str | None, max_length: int | None, num_shown: int, as_json: bool
) -> int:
    """Look at every row of a data file, or of a job's data. Nothing is trained, and nothing is downloaded.

    PATH is a data file, or FOLDER/NAME for a name in a folder's dataset_info.json. Ends with 2 when rows
    cannot be used.
    """
    from ..engine.data.sources import sources
    from ..engine.data.survey import stage_for, survey
    from ..engine.errors import ExitCode
    from .show_data import lines_of

    job, own = _job(path, model, max_length)
    section = job.data
    stage = stage or (job.stage if own else None)
    named = sources(section.paths, section, stage=stage or "sft")
    stage = stage or stage_for(named[0])
    files = sources((*section.paths, *section.eval_paths), section, stage=stage)
    speller, missing = _speller(job)
    answers_only = stage != "pt" and (job.train.assistant_only_loss or stage != "sft")
    look = Look(speller, missing, answers_only, job.train.max_length)
    found = [_measured(survey(source, stage=stage, num_first=num_shown), look) for source in files]
    if as_json:
        click.echo(
            json.dumps({"version": 1, "stage": stage, "files": [one.as_json() for one in found]}, indent=2)
        )
    else:
        width = min(shutil.get_terminal_size().columns, MOST_WIDTH)
        click.echo("\n".join(lines_of(found, stage=stage, width=width)))
    return ExitCode.BAD_INPUT if any(one.survey.num_bad for one in found) else ExitCode.OK


def _job(path: str, model: str | None, max_length: int | None) -> "tuple[Job, bool]":
    """Return the job that is looked at, and whether it is the user's: a bare file is put into one."""
    from ..engine.job import load_job
    from ..engine.job.paths import absolute, model_path
    from ..engine.specs.job import DEMO_MODEL, Data, Job, Model

    own = Path(path).suffix.lower() in _JOBS
    if own:
        job = load_job(Path(path)).job
    else:
        place = absolute(path, Path.cwd())
        job = Job(model=Model(name_or_path=model or DEMO_MODEL), data=Data(path=place))
    if model is not None:
        name = model_path(model, Path.cwd())
        job = job.model_copy(update={"model": job.model.model_copy(update={"name_or_path": name})})
    if max_length is not None:
        job = job.model_copy(update={"train": job.train.model_copy(update={"max_length": max_length})})
    return job, own


def _speller(job: "Job") -> "tuple[Speller | None, str]":
    """Return the model's tokenizer, or why there is none here."""
    from ..engine.errors import BadInput
    from ..engine.job.local_models import find_cached, hub_cache
    from ..engine.specs.job import DEMO_MODEL
    from ..engine.worker.spelling import Speller

    name = job.model.name_or_path
    if name == DEMO_MODEL:
        return None, "no model is named: --model"
    folder: Path | None = Path(name)
    if not name.startswith("/"):
        cached = find_cached(hub_cache(os.environ), name, revision=job.model.revision)
        folder = cached.folder if cached else None
    if folder is None:
        return None, f"{name} is not on this machine"
    try:
        return Speller(folder), ""
    except ImportError as error:
        return None, f"{error.name or 'tokenizers'} is not installed"
    except BadInput as error:
        return None, error.message


def _measured(surveyed: "Survey", look: "Look") -> "Measured":
    """Return a file with its lengths and its first rows spelled."""
    from ..engine.errors import BadInput
    from .show_data import Lengths, Measured, plain_pieces

    lengths = Lengths.of(surveyed.characters, unit="characters", limit=None)
    missing, shown, lost = look.missing, None, Counter[str]()
    if look.speller is not None:
        try:
            counts, lost = _spelled(surveyed, look.speller)
            lengths = Lengths.of(counts, unit="tokens", limit=look.max_length)
            shown = [
                look.speller.spell(row, surveyed.shape, answers_only=look.answers_only)
                for row in surveyed.first
            ]
        except BadInput as error:
            missing = error.message
    return Measured(
        survey=surveyed,
        lengths=lengths,
        rows=tuple(
            [plain_pieces(row, surveyed.shape, answers_only=look.answers_only) for row in surveyed.first]
            if shown is None
            else shown
        ),
        missing=missing,
        lost=dict(lost),
        is_spelled=shown is not None,
        has_template=look.speller is not None and look.speller.has_template,
    )


def _spelled(surveyed: "Survey", speller: "Speller") -> tuple[Counter[int], Counter[str]]:
    """Return the lengths of the rows that were drawn, in tokens, and what the template leaves out of them."""
    counts: Counter[int] = Counter()
    lost: Counter[str] = Counter()
    for row in surveyed.drawn:
        texts = speller.spell(row, surveyed.shape, answers_only=True)
        counts[max(speller.num_tokens(one.text) for one in texts)] += 1
        missing = None if surveyed.shape in {"text", "prompt_only"} else speller.lost(row, texts)
        lost.update([missing] if missing else [])
    return counts, lost
