"""Where the paths of a job lead: relative ones start at the job file, or at the current folder for --set."""

import ast
import os
import re
import stat
from pathlib import Path

from ..errors import BadInput
from ..specs.job import DATASET_LIST, DEMO_MODEL, Job, Rollout
from .files import KIB, kind_of, read_regular, reason_of, shown, shown_path
from .tree import Node, lookup

_HUB_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,95})?")
_PATH_STARTS = ("/", "./", "../", "~")
_DATA_KEYS = ("path", "eval_path")
_MAX_SOURCE_BYTES = KIB * KIB


def resolved(job: Job, tree: Node) -> Job:
    """Return the job with absolute paths. Hub ids and ``ftwiz:demo`` stay as they are."""
    model, data = job.model, job.data
    name = model_path(model.name_or_path, _base(tree, "model", "name_or_path"))
    paths = {
        key: _absolute_data(value, _base(tree, "data", key))
        for key in _DATA_KEYS
        if (value := getattr(data, key)) is not None
    }
    return job.model_copy(
        update={
            "model": model.model_copy(update={"name_or_path": name}),
            "data": data.model_copy(update=paths),
            "rollout": _resolved_rollout(job.rollout, tree),
        }
    )


def _resolved_rollout(rollout: Rollout, tree: Node) -> Rollout:
    model, base = rollout.reward_model, _base(tree, "rollout", "reward_functions")
    base_of_model = _base(tree, "rollout", "reward_model")
    return rollout.model_copy(
        update={
            "reward_model": None if model is None else model_path(model, base_of_model),
            "reward_functions": tuple(_function_path(name, base) for name in rollout.reward_functions),
        }
    )


def _function_path(name: str, base: Path) -> str:
    file, colon, function = name.rpartition(":")
    return absolute(file, base) + colon + function if file else name


def _base(tree: Node, *keys: str) -> Path:
    node = lookup(tree, keys)
    return (node or tree).origin.base


def _absolute_data(value: str | tuple[str, ...], base: Path) -> str | tuple[str, ...]:
    if isinstance(value, str):
        return absolute(value, base)
    return tuple(absolute(one, base) for one in value)


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
        ("data", key, _data_problem(value))
        for key, values in (("path", job.data.paths), ("eval_path", job.data.eval_paths))
        for value in values
    ]
    if job.rollout.reward_model is not None:
        found.append(("rollout", "reward_model", model_problem(job.rollout.reward_model)))
    found += [
        ("rollout", "reward_functions", function_problem(name)) for name in job.rollout.reward_functions
    ]
    return [
        f"{(lookup(tree, (section, key)) or tree).place}: {section}.{key}: {problem}"
        for section, key, problem in found
        if problem
    ]


def function_problem(name: str) -> str | None:
    """Return what is wrong with the resolved name of a function, or ``None``. Nothing of its file is run."""
    file, _, function = name.rpartition(":")
    if not file or not function.isidentifier():
        return f"{shown(name)} is no file and function like rewards.py:brevity"
    if problem := _path_problem(file, folder=False):
        return problem
    try:
        source = read_regular(Path(file), limit_bytes=_MAX_SOURCE_BYTES, what="a file of reward functions")
        module = ast.parse(source)
    except BadInput as error:
        return error.message
    except (SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        return f"{shown_path(file)}{line}: is not Python: {getattr(error, 'msg', error)}"
    names = {one.name for one in module.body if isinstance(one, ast.FunctionDef | ast.ClassDef)}
    brought = {one for node in module.body for one in _assigned(node)}
    if function not in names | brought:
        known = f"; there are {', '.join(sorted(names))}" if names else ""
        return f"{shown_path(file)} has no function {function}{known}"
    return None


def _assigned(node: ast.stmt) -> list[str]:
    """Names that a statement brings in without defining them: imports and assignments."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [(one.asname or one.name) for one in node.names]
    if isinstance(node, ast.Assign):
        return [one.id for one in node.targets if isinstance(one, ast.Name)]
    return []


def _data_problem(value: str) -> str | None:
    """Return what is wrong with a data file; a name in ``dataset_info.json`` beside it is looked up later."""
    path = Path(value)
    if not _exists(path) and _exists(path.parent / DATASET_LIST):
        return None
    return _path_problem(value, folder=False)


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
