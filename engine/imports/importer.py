"""Files of other tools -> one job that loads, and a line for every key on what became of it."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ..data import inspect
from ..errors import BadInput, FtwizError, Refused
from ..job import parse_job
from ..job.files import shown, shown_path
from ..job.messages import bad_job, nearest
from ..job.paths import absolute, model_path, path_problems
from ..job.presets import load_preset
from ..job.schema import known_part
from ..job.tree import Node, Origin, Source
from ..job.writer import dump_job, flow
from ..specs.job import Job
from ..stages import problems as stage_problems
from .counting import global_batch, method, rhythm
from .datasets import data_keys
from .engines import follow
from .formats import FORMATS, LLAMAFACTORY, TRL, Format
from .reading import ForeignFile, find, read_foreign
from .rows import How
from .sheet import SAME, UNSAID, Change, Sheet, Taken, translate
from .stages import settle

_DEMO = "demo"
_QUANTIZED = re.compile(r"(?:^|[-_./])(GPTQ|AWQ|AQLM|HQQ|EETQ|EXL2|GGUF)(?:$|[-_.])", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wishes:
    """What the user says beside the files."""

    form: str | None = None
    """Whose the file is; ``None``: told by its keys."""
    model: str | None = None
    data: Path | None = None
    stage: str | None = None
    """What kind of training a file is for that does not say it."""
    processes: int | None = None
    """Ranks that it was trained on."""
    without: tuple[str, ...] = ()
    """Keys to go without."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """What came of the files."""

    tools: tuple[str, ...]
    changes: tuple[Change, ...]
    job: Job | None
    """``None`` when it is refused."""
    text: str
    """The job file."""
    problems: tuple[FtwizError, ...]
    """Why it is refused, the first to be said first."""


def import_files(paths: Sequence[Path], wishes: Wishes) -> Imported:
    """Import a training file, an engine's file, or one with the other.

    Args:
        paths: The files. With several, one says what is trained and the others how.
        wishes: What the user says beside them.

    Raises:
        BadInput: A file cannot be read, or nothing is known to import it.
    """
    files = [read_foreign(path, _wanted(wishes.form)) for path in paths]
    sheets = _sheets(files, wishes)
    _check_without(sheets, wishes.without)
    problems = [problem for sheet in sheets for problem in sheet.problems]
    job, text = None, ""
    if not problems:
        try:
            found = _found(sheets, wishes, files)
            job = _job(found, sheets)
            text = _text(job, files, sheets)
            sheets[0].changes += _unsaid(found, files[0])
        except FtwizError as error:
            problems.append(error)
    return Imported(
        tools=tuple(dict.fromkeys(file.format.title for file in files)),
        changes=tuple(_in_order(sheets)),
        job=job,
        text=text,
        problems=tuple(sorted(problems, key=lambda one: not isinstance(one, BadInput))),
    )


def _in_order(sheets: Sequence[Sheet]) -> list[Change]:
    """Return the diff file by file, in the order of the keys; what is not said comes last."""
    changes = [change for sheet in sheets for change in sheet.changes]
    files = list(dict.fromkeys(change.file for change in changes))
    return sorted(changes, key=lambda one: (files.index(one.file), one.line is None, one.line or 0))


def _wanted(name: str | None) -> Format | None:
    return next((one for one in FORMATS if one.name == name), None)


def _sheets(files: Sequence[ForeignFile], wishes: Wishes) -> list[Sheet]:
    trainers = [file for file in files if file.format.trains]
    if len(trainers) > 1:
        raise BadInput(
            f"{shown_path(trainers[1].path)}: is a training file, and {shown_path(trainers[0].path)} is one",
            hint="import one at a time, together with the files of its engine",
        )
    sheets = []
    for file in files:
        sheet = translate(file.root, file.format, without=wishes.without)
        sheets.append(sheet)
        if not sheet.problems:
            sheets += follow(sheet, file.path, without=wishes.without)
        if file.format.trains:
            settle(sheet, wishes.stage)
            rhythm(sheet)
            method(sheet, default_alpha=file.format is LLAMAFACTORY)
            if not sheet.problems:
                sheet.taken = _without_data(sheet, data_keys(sheet, file.path, wishes.data))
    return sheets


def _without_data(sheet: Sheet, data: list[Taken]) -> list[Taken]:
    """``max_samples`` of the file goes before the number of rows in LLaMA-Factory's list."""
    said = {one.target for one in sheet.taken}
    return [*sheet.taken, *(one for one in data if one.target not in said)]


def _check_without(sheets: Sequence[Sheet], without: Iterable[str]) -> None:
    seen = {key for sheet in sheets for key in sheet.seen}
    for key in without:
        if key not in seen:
            raise BadInput(f"--drop {key}: there is no such key{nearest(key, seen)}")


def _found(sheets: Sequence[Sheet], wishes: Wishes, files: Sequence[ForeignFile]) -> dict[str, Taken]:
    """Return what the files come to, by our keys."""
    found = _merged(sheets)
    batch = global_batch(sheets, wishes.processes)
    if batch is not None:
        found["train.global_batch_size"] = batch
    _fill_in(found, sheets, wishes, files)
    return found


def _unsaid(found: Mapping[str, Taken], file: ForeignFile) -> Iterator[Change]:
    """Yield a line for each default of theirs that is not ours."""
    for target, one in found.items():
        ours = known_part(target.split("."))[1].get("default")
        if one.is_default and one.value != ours:
            yield Change(
                file=shown_path(file.path), line=None, key=one.key, value=UNSAID, how=How.TAKE,
                ours=f"{target}: {flow(one.value)}", reason=f"what {file.format.title} does then",
            )  # fmt: skip


def _job(found: Mapping[str, Taken], sheets: Sequence[Sheet]) -> Job:
    tree = _tree(found, sheets[0].root)
    try:
        job = Job.model_validate(_values(found))
    except ValidationError as error:
        raise _in_their_words(bad_job(error, tree), found) from None
    _check_model(job, found)
    problems = path_problems(job, tree)
    if problems:
        raise BadInput(problems[0], hint="name one that is there: --model, --data")
    for problem in stage_problems(job):
        one = found.get(problem.key)
        place = one.said if one else shown_path(sheets[0].root.origin.name)
        raise Refused(f"{place}: {problem.key}: {problem.text}", hint=problem.hint)
    summary = inspect(job.data, stage=job.stage)
    is_trl = any(sheet.format is TRL for sheet in sheets)
    if is_trl and summary.shape == "messages" and "train.assistant_only_loss" not in found:
        # TRL learns whole conversations unless it is told otherwise (trl 1.16, sft_config.py).
        job = job.model_copy(update={"train": job.train.model_copy(update={"assistant_only_loss": False})})
    return job


def _merged(sheets: Sequence[Sheet]) -> dict[str, Taken]:
    """Return each key of ours once: what is said before a default, and never two that differ."""
    found: dict[str, Taken] = {}
    for one in (one for sheet in sheets for one in sheet.taken):
        before = found.get(one.target)
        if before is None or (before.is_default and not one.is_default):
            found[one.target] = one
        elif before.value != one.value and not one.is_default:
            raise BadInput(
                f"{one.said} comes to {one.target}: {flow(one.value)}, and {before.said} to "
                f"{flow(before.value)}",
                hint=f"take one of them out, or go without it: --drop {one.key}",
            )
    return found


def _fill_in(
    found: dict[str, Taken], sheets: Sequence[Sheet], wishes: Wishes, files: Sequence[ForeignFile]
) -> None:
    """Put in the model and the data: the user's, the file's, or the demo's for a file that has none."""
    root, path = sheets[0].root, files[0].path
    name = found.get("model.name_or_path")
    if wishes.model is not None:
        _put(found, "model.name_or_path", model_path(wishes.model, Path.cwd()), key="--model", node=root)
    elif name is not None and isinstance(name.value, str):
        place = find(name.value, path) if not name.value.startswith("~") else None
        value = str(place) if place else model_path(name.value, path.parent)
        _put(found, "model.name_or_path", value, key=name.key, node=name.node)
    if any(file.format.trains for file in files):
        return
    demo = load_preset(_DEMO).job
    if wishes.model is None:
        _put(found, "model.name_or_path", demo.model.name_or_path, key="--model", node=root)
    data = absolute(str(wishes.data), Path.cwd()) if wishes.data else demo.data.path
    _put(found, "data.path", data, key="--data", node=root)


def _put(found: dict[str, Taken], target: str, value: object, *, key: str, node: Node) -> None:
    found[target] = Taken(target=target, value=value, key=key, node=node)


def _values(found: Mapping[str, Taken]) -> dict[str, object]:
    values: dict[str, object] = {}
    for target, one in found.items():
        *above, last = target.split(".")
        inner = values
        for key in above:
            below = inner.setdefault(key, {})
            assert isinstance(below, dict)
            inner = below
        inner[last] = one.value
    return values


def _tree(found: Mapping[str, Taken], root: Node) -> Node:
    """Return our keys with the places of theirs, so that a message names their file and line."""
    tree: dict[str, Node] = {}
    for target, one in found.items():
        *above, last = target.split(".")
        inner = tree
        for key in above:
            node = inner.setdefault(key, Node(value={}, origin=root.origin, line=root.line))
            assert isinstance(node.value, dict)
            inner = node.value
        inner[last] = Node(
            value=one.node.value if not isinstance(one.value, str) else one.value,
            origin=one.node.origin, line=one.node.line, key_line=one.node.key_line, word=one.node.word,
        )  # fmt: skip
    return Node(value=tree, origin=root.origin, line=root.line)


def _check_model(job: Job, found: Mapping[str, Taken]) -> None:
    """Refuse a hub model that is quantized already; its config.json is not here to say so, its name is."""
    name = job.model.name_or_path
    quantized = _QUANTIZED.search(name) if not name.startswith("/") else None
    if quantized:
        raise Refused(
            f"{found['model.name_or_path'].said}: {shown(name)} is quantized already, by its name "
            f"({quantized[1]}); such models are not there yet",
            hint="train the plain model instead: --model NAME, and plan.quantization: nf4 in the job",
        )


def _in_their_words(error: BadInput, found: Mapping[str, Taken]) -> BadInput:
    """``lora_rank (method.r) must be ...``: their word before ours."""
    message = error.message
    for target, one in found.items():
        message = message.replace(f": {target} ", f": {one.key} ({target}) ", 1)
    return BadInput(message, hint=error.hint)


def _text(job: Job, files: Sequence[ForeignFile], sheets: Sequence[Sheet]) -> str:
    """Return the job file: our keys, and below them what was left out of theirs and why."""
    names = " and ".join(f"{file.format.title}'s {_comment(file.path.name)}" for file in files)
    changes = _in_order(sheets)
    head, _, body = dump_job(job).partition("\n")
    lines = [head, f"# Imported from {names}.", *_stand_ins(files)]
    lines += [f"# {_comment(f'{one.ours}: {one.reason}')}" for one in changes if one.value == UNSAID]
    lines.append(body.rstrip("\n"))
    left_out = [one for one in changes if one.how in {How.DROP, How.SECRET} and one.reason != SAME]
    if left_out:
        lines += ["", "# Left out:"]
        lines += [f"#   {_comment(f'{one.key}: {one.value}  ({one.reason})')}" for one in left_out]
    text = "\n".join(lines) + "\n"
    origin = Origin(name="imported", source=Source.FILE, base=Path.cwd())
    assert parse_job(text, name=origin.name, base=origin.base).job == job
    return text


def _stand_ins(files: Sequence[ForeignFile]) -> list[str]:
    if any(file.format.trains for file in files):
        return []
    return ["# It says how to train, not what: where the demo's model and data stand below, put your own."]


def _comment(text: str) -> str:
    """Return text that stays in its comment."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
