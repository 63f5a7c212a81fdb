"""A job from its layers: defaults, then file or preset, then command line; every value knows its source."""

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pydantic import ValidationError

from ..errors import BadInput
from ..specs.job import Job, Section
from ..stages import problems
from . import paths
from .files import shown
from .messages import bad_job
from .reader import read_job_tree, read_text, read_tree
from .scalars import resolve
from .tree import Node, Origin, Source, lookup, merge, plain, walk

_EXAMPLE = "for example: --set train.learning_rate=1e-4"
_MAX_NAME = 64
_ORDER = tuple(Source)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedJob:
    """A valid job and where it came from."""

    job: Job
    """With absolute paths."""
    sources: Mapping[str, Source]
    """Who decided each value, by dotted key: ``train.learning_rate``."""
    path: Path
    """The job file, absolute."""
    name: str
    """Name of its runs: ``run.name``, or the file's name in letters that suit a folder."""


def load_job(path: Path, *, overrides: Sequence[str] = ()) -> LoadedJob:
    """Read a job file, check it, and check that the files it names are there.

    Args:
        path: The file. Relative paths in it start at its folder.
        overrides: ``train.learning_rate=1e-4``, as given to ``--set``; paths start at the current folder.

    Raises:
        BadInput: With one line that names file, line and key.
    """
    return load_file(path, overrides=overrides, source=Source.FILE)


def load_file(path: Path, *, overrides: Sequence[str], source: Source) -> LoadedJob:
    """Read a job file or a preset: ``load_job`` for either source."""
    whole = _absolute(path)
    origin = Origin(name=str(path), source=source, base=whole.parent)
    tree = _with_overrides(read_job_tree(read_text(path), origin), overrides)
    loaded = _checked(tree, whole)
    problems = paths.path_problems(loaded.job, tree)
    if problems:
        raise BadInput(problems[0], hint=f"then: {problems[1]}" if problems[1:] else None)
    return loaded


def parse_job(text: str, *, name: str, base: Path, overrides: Sequence[str] = ()) -> LoadedJob:
    """Read a job from text. Looks at the disk only to tell a model folder from a model id.

    Args:
        text: The YAML.
        name: What messages call it.
        base: Folder that relative paths start from.
        overrides: As for ``load_job``.

    Raises:
        BadInput: With one line that names ``name``, line and key.
    """
    origin = Origin(name=name, source=Source.FILE, base=_absolute(base))
    return _checked(_with_overrides(read_job_tree(text, origin), overrides), origin.base / name)


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - a link to a job file means the folder of the link


def _with_overrides(tree: Node, overrides: Sequence[str]) -> Node:
    for override in overrides:
        tree = merge(tree, _override(override))
    return tree


def _override(text: str) -> Node:
    """Return ``a.b=value`` as a tree with one branch."""
    dotted, equals, value = text.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise BadInput(f"--set {shown(text)}: is not KEY=VALUE", hint=_EXAMPLE)
    origin = Origin(name=f"--set {dotted.strip()}", source=Source.COMMAND_LINE, base=Path.cwd())
    node = _override_value(value, origin)
    for key in reversed(keys):
        node = Node(value={key: node}, origin=origin)
    return node


def _override_value(text: str, origin: Origin) -> Node:
    """Lists, keys in braces and quoted text are YAML; anything else is one word, whatever signs it holds."""
    word = text.strip()
    if word.startswith(("[", "{", '"', "'")):
        return read_tree(word, origin) or Node(value=None, origin=origin)
    try:
        return Node(value=resolve(word), origin=origin, word=word)
    except ValueError as error:
        raise BadInput(f"{origin.name}: {error}") from None


def _checked(tree: Node, path: Path) -> LoadedJob:
    values = plain(tree)
    assert isinstance(values, dict)
    for name, value in tuple(values.items()):
        if value is None and _is_section(name):
            values[name] = {}  # a section whose every line is commented out
    try:
        job = paths.resolved(Job.model_validate(values), tree)
    except ValidationError as error:
        raise bad_job(error, tree) from None
    _check_stage(job, tree)
    name = job.run.name or run_name(path.stem)
    return LoadedJob(job=job, sources=MappingProxyType(_sources(job, tree)), path=path, name=name)


def _check_stage(job: Job, tree: Node) -> None:
    """Refuse keys that contradict the kind of training."""
    found = problems(job)
    if not found:
        return
    keys = found[0].key.split(".")
    place = (lookup(tree, keys) or lookup(tree, ["stage"]) or tree).place
    more = f"then: {found[1].key}: {found[1].text}" if found[1:] else None
    raise BadInput(f"{place}: {found[0].key}: {found[0].text}", hint=found[0].hint or more)


def _is_section(name: str) -> bool:
    known = Job.model_fields.get(name)
    return known is not None and isinstance(known.annotation, type) and issubclass(known.annotation, Section)


def _sources(job: Job, tree: Node) -> dict[str, Source]:
    sources = {}
    for name in Job.model_fields:
        value = getattr(job, name)
        for keys in (
            [(name, key) for key in type(value).model_fields] if isinstance(value, Section) else [(name,)]
        ):
            sources[".".join(keys)] = _source(lookup(tree, keys))
    return sources


def _source(node: Node | None) -> Source:
    if node is None:
        return Source.DEFAULT
    return max((inner.origin.source for inner in walk(node)), key=_ORDER.index)


def run_name(stem: str) -> str:
    """Return a name for runs in the letters that a run folder may have: ``my job (1)`` -> ``my-job-1``."""
    ascii_only = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._]+", "-", ascii_only).strip("-._")[:_MAX_NAME] or "run"
