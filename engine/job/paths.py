"""Where the paths of a job lead: relative ones start at the job file, or at the current folder for --set."""

import os
import re
import stat
from pathlib import Path

from ..specs.job import DEMO_MODEL, Job
from .files import kind_of, reason_of, shown, shown_path
from .tree import Node, lookup

_HUB_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,95})?")
_PATH_STARTS = ("/", "./", "../", "~")
_DATA_KEYS = ("path", "eval_path")


def resolved(job: Job, tree: Node) -> Job:
    """Return the job with absolute paths. Hub ids and ``ftwiz:demo`` stay as they are."""
    model, data = job.model, job.data
    name = model_path(model.name_or_path, _base(tree, "model", "name_or_path"))
    paths = {
        key: absolute(value, _base(tree, "data", key))
        for key in _DATA_KEYS
        if (value := getattr(data, key)) is not None
    }
    return job.model_copy(
        update={
            "model": model.model_copy(update={"name_or_path": name}),
            "data": data.model_copy(update=paths),
        }
    )


def _base(tree: Node, *keys: str) -> Path:
    node = lookup(tree, keys)
    return (node or tree).origin.base


def absolute(value: str, base: Path) -> str:
    """Return a path made absolute from ``base``, with ``~`` expanded and no link followed."""
    if value.startswith("/"):
        return value
    return str(base / os.path.expanduser(value))  # noqa: PTH111 - Path's raises for an unknown user's home


def model_path(value: str, base: Path) -> str:
    """Return the absolute path of a local model, or the name of any other as it is.

    A name is local when it begins like a path, or when there is such a file or folder.
    """
    if value == DEMO_MODEL:
        return value
    if value in {".", ".."} or value.startswith(_PATH_STARTS) or _exists(base / value):
        return absolute(value, base)
    return value


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def model_problem(value: str) -> str | None:
    """Return what is wrong with a resolved model name, or ``None``: a folder, a hub id or the demo."""
    if value == DEMO_MODEL or (_HUB_ID.fullmatch(value) and "--" not in value and ".." not in value):
        return None
    if value.startswith("/"):
        return _path_problem(value, folder=True)
    if value.startswith("ftwiz:"):
        return f"{shown(value)} is no model of ftwiz's own; there is {DEMO_MODEL}"
    return f"{shown(value)} is neither a folder here nor a model id like Qwen/Qwen3-0.6B"


def path_problems(job: Job, tree: Node) -> list[str]:
    """Return what does not exist of the files that a resolved job names, each with its place and key."""
    found = [("model", "name_or_path", model_problem(job.model.name_or_path))]
    found += [
        ("data", key, _path_problem(value, folder=False))
        for key in _DATA_KEYS
        if (value := getattr(job.data, key)) is not None
    ]
    return [
        f"{(lookup(tree, (section, key)) or tree).place}: {section}.{key}: {problem}"
        for section, key, problem in found
        if problem
    ]


def _path_problem(value: str, *, folder: bool) -> str | None:
    try:
        mode = os.stat(value).st_mode  # noqa: PTH116 - Path would hide which path was meant
    except OSError as error:
        return f"{reason_of(error)}: {shown_path(value)}"
    except ValueError:
        return "a path cannot hold a NUL character"
    if folder and not stat.S_ISDIR(mode):
        return f"is not a folder: {shown_path(value)}"
    if not folder and not stat.S_ISREG(mode):
        return f"is {kind_of(mode)}, not a data file: {shown_path(value)}"
    return None if os.access(value, os.R_OK) else f"permission denied: {shown_path(value)}"
