"""``ftwiz plan --explain KEY``: what a key of the plan, of a file or of the job is, and why it is so."""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from textwrap import wrap
from typing import Any, NamedTuple

import yaml

from ..engine.backends.keys import ACCELERATE, DEEPSPEED, TRAINER, Key
from ..engine.backends.meanings import ENVIRONMENT, SBATCH, STRATEGY
from ..engine.errors import BadInput
from ..engine.job.schema import fields
from ..engine.prepare import Prepared

WIDTH = 100
TABLES: tuple[Mapping[str, Key], ...] = (STRATEGY, ACCELERATE, TRAINER, DEEPSPEED, ENVIRONMENT, SBATCH)
_OPTION = re.compile(r"#SBATCH --([a-z-]+)(?:=(.*))?")


class Entry(NamedTuple):
    """A key where it stands."""

    name: str
    """Dotted."""
    place: str
    """``plan``, ``job``, or the name of a file."""
    value: object
    key: Key


def explanation(prepared: Prepared, wanted: str, width: int | None = None) -> str:
    """Return what is known of every key of that name.

    Args:
        prepared: The plan with its files.
        wanted: A name, or the end of a dotted one: ``stage``, ``zero_optimization.stage``.
        width: Columns of the terminal.

    Raises:
        BadInput: There is no such key; the hint names the nearest.
    """
    known = list(entries(prepared))
    found = [entry for entry in known if f".{entry.name}".endswith(f".{wanted}")]
    if not found:
        raise _unknown(known, wanted)
    return "\n\n".join(_paragraph(prepared, entry, min(width or WIDTH, WIDTH)) for entry in found)


def _unknown(known: list[Entry], wanted: str) -> BadInput:
    """Name the nearest keys; of a key that only other plans have, say what it is."""
    for table in TABLES:
        if wanted in table:
            return BadInput(f"{wanted!r} is no key of this plan, but of others: {table[wanted].what}")
    names = sorted({name for entry in known for name in (entry.name, entry.name.rpartition(".")[2])})
    names += [name for table in TABLES for name in table]
    near = list(dict.fromkeys(difflib.get_close_matches(wanted, names, n=5, cutoff=0.5)))[:3]
    hint = f"did you mean {', '.join(near)}?" if near else "see the keys with: ftwiz plan JOB.yaml --show"
    return BadInput(f"no key {wanted!r} in the plan, its files or the job", hint=hint)


def entries(prepared: Prepared) -> Iterator[Entry]:
    """Yield every key of the plan, of the files that a run would write, and of the job."""
    for name, value in asdict(prepared.plan.strategy).items():
        yield Entry(name, "plan", value, STRATEGY[name])
    for name, text in prepared.files.items():
        yield from _of_file(prepared, name, text)
    yield from _of_job(prepared)


def _of_file(prepared: Prepared, name: str, text: str) -> Iterator[Entry]:
    if name in {"accelerate.yaml", "train.yaml"}:
        table = ACCELERATE if name == "accelerate.yaml" else TRAINER
        body = yaml.safe_load(text)
        for dotted, value in _flat(body):
            yield Entry(dotted, name, value, _known(table, dotted))
    elif name == "deepspeed.json":
        for dotted, value in _flat(json.loads(text)):
            yield Entry(dotted, name, value, _known(DEEPSPEED, dotted))
    elif name == "launch.sh":
        for variable, value in prepared.plan.environment.items():
            yield Entry(variable, name, value, ENVIRONMENT.get(variable, Key("a variable of the ranks")))
    elif name == "job.sbatch":
        for option, value in _OPTION.findall(text):
            key = SBATCH.get(option, Key("an option of SLURM's sbatch", "given by --sbatch"))
            yield Entry(option, name, value or "set", key)


def _of_job(prepared: Prepared) -> Iterator[Entry]:
    loaded = prepared.loaded
    body: Mapping[str, Any] = loaded.job.model_dump()
    for dotted, schema in fields():
        section, _, name = dotted.partition(".")
        value = body[section].get(name) if name and isinstance(body.get(section), dict) else body.get(section)
        described = " ".join(str(schema.get("description", "")).split()).rstrip(".")
        where = str(loaded.sources.get(dotted, "default"))
        why = "the default" if where == "default" else f"given by: {where}"
        yield Entry(dotted, "job.yaml", value, Key(described, why))


def _flat(body: Any, before: str = "") -> Iterator[tuple[str, object]]:
    for name, value in body.items():
        dotted = f"{before}{name}"
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{dotted}.")
        else:
            yield dotted, value


def _known(table: Mapping[str, Key], dotted: str) -> Key:
    """Return what a table says of a key, by the longest end of its name; else what the job says of it."""
    parts = dotted.split(".")
    for first in range(len(parts)):
        if found := table.get(".".join(parts[first:])):
            return found
    own = {name.rpartition(".")[2]: (name, schema) for name, schema in fields()}
    if parts[-1] not in own:
        return Key("an argument that is passed on by this name", source="the trainer's own documentation")
    name, schema = own[parts[-1]]
    described = " ".join(str(schema.get("description", "")).split()).rstrip(".")
    return Key(described, otherwise=name)


def _paragraph(prepared: Prepared, entry: Entry, width: int) -> str:
    key, value = entry.key, _shown(entry.value)
    lines = {
        "what": key.what,
        "here": "; ".join(_reasons(prepared, entry)),
        "else": key.otherwise,
        "source": "; ".join(_sources(prepared, entry)),
    }
    told = [
        line
        for head, text in lines.items()
        if text
        for line in wrap(text, width, initial_indent=f"  {head:<7} ", subsequent_indent=" " * 10)
    ]
    return "\n".join([f"{entry.name} = {value}    ({entry.place})", *told])


def _reasons(prepared: Prepared, entry: Entry) -> Iterator[str]:
    """Yield why the value stands there: by the plan's own reason, and by the table."""
    if reason := entry.key.reason(_shown(entry.value)):
        yield reason
    field = _field(entry)
    yield from (reason.text for reason in prepared.plan.reasons if reason.about == field)
    if field == "backend":
        yield from (f"not {rejected.choice}: {rejected.text}" for rejected in prepared.plan.rejected)


def _sources(prepared: Prepared, entry: Entry) -> Iterator[str]:
    if entry.key.source:
        yield entry.key.source
    field = _field(entry)
    yield from (
        reason.source
        for reason in prepared.plan.reasons
        if reason.about == field and reason.source and reason.source != entry.key.source
    )


def _field(entry: Entry) -> str:
    """Return the field of the strategy that a key says; of the job's pins the one of their name."""
    if entry.place == "plan":
        return entry.name
    return entry.key.field or (entry.name.removeprefix("plan.") if entry.name.startswith("plan.") else "")


def _shown(value: object) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
