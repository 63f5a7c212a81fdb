"""The data that a training file names: by a name in a list, by a path, or not at all.

ftwiz trains on one local file; whatever else is named needs the user to say which file it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadInput, FtwizError, Refused
from ..job.files import shown, shown_path
from ..job.model_folder import read_config
from .counting import note
from .formats import AXOLOTL, LLAMAFACTORY
from .reading import find
from .reasons import IMAGES
from .rows import Role
from .sheet import Sheet, Taken

_SUFFIXES = (".jsonl", ".json", ".csv")
_LIST = "dataset_info.json"
_TOLD = "say which file holds the rows: --data FILE"
_ALPACA = {
    "prompt": ("instruction", "instruction"), "query": ("input", "input"),
    "response": ("output", "output"), "history": ("history", "history"), "system": ("system", "system"),
}  # fmt: skip
"""LLaMA-Factory's word in ``columns`` -> our name of the column, and the column when nothing is said.

Source: src/llamafactory/data/parser.py at ff6d4d12e (DatasetAttr).
"""
_AXOLOTL_TYPES = {
    "alpaca": "alpaca", "chat_template": "messages", "sharegpt": "sharegpt", "completion": "text",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFile:
    """A data file and how its rows are read."""

    path: str
    format: str = "auto"
    columns: Mapping[str, str] | None = None
    num_rows: int | None = None


def data_keys(sheet: Sheet, path: Path, given: Path | None) -> list[Taken]:
    """Return ``data.path`` and what belongs to it.

    Args:
        sheet: A training file.
        path: Where it lies.
        given: The data file that the user names, which replaces what the file says.
    """
    said = sheet.used.get(Role.DATA, [])
    if given is not None:
        for one in (one for role in (Role.DATA, Role.DATA_FOLDER) for one in sheet.used.get(role, ())):
            note(sheet, one, f"data.path: {shown_path(given)}", "the file that you name")
        origin = said[0] if said else Taken(target="", value="", key="--data", node=sheet.root)
        return _taken(origin, DataFile(path=str(Path.cwd() / given)))
    if not said:
        sheet.problems.append(
            BadInput(f"{shown_path(path)}: names no data set, and training needs one", hint=_TOLD)
        )
        return []
    try:
        found = _named(sheet, said[0], path)
    except FtwizError as error:
        sheet.problems.append(error)
        return []
    for one in sheet.used.get(Role.DATA_FOLDER, ()):
        note(sheet, one, f"data.path: {shown_path(found.path)}", "")
    note(sheet, said[0], f"data.path: {shown_path(found.path)}", "")
    return _taken(said[0], found)


def _taken(one: Taken, found: DataFile) -> list[Taken]:
    values: dict[str, object] = {"data.path": found.path, "data.num_rows": found.num_rows}
    if found.format != "auto":
        values["data.format"] = found.format
    values["data.columns"] = dict(found.columns) if found.columns else None
    return [
        Taken(target=target, value=value, key=one.key, node=one.node)
        for target, value in values.items()
        if value is not None
    ]


def check_held_out(sheet: Sheet) -> None:
    """Held-out data of its own has to be named by the user."""
    for one in sheet.used.get(Role.EVAL_DATA, ()):
        if one.value in (None, "", []):
            note(sheet, one, None, "the same without it")
            continue
        sheet.problems.append(
            Refused(
                f"{one.said}: held-out data of its own is not taken over",
                hint=f"--drop {one.key}, and write data.eval_path into the job",
            )
        )


def _named(sheet: Sheet, one: Taken, path: Path) -> DataFile:
    names = one.value
    if sheet.format is AXOLOTL or isinstance(names, list):
        return _listed(one, path)
    if not isinstance(names, str):
        raise BadInput(f"{one.said} is the name of a data set; got {shown(names)}")
    if sheet.format is LLAMAFACTORY:
        return _in_list(sheet, one, path, [name.strip() for name in names.split(",") if name.strip()])
    return DataFile(path=_local(one, names, path))


def _one_of(one: Taken, names: list[object]) -> object:
    if len(names) != 1:
        raise Refused(
            f"{one.said}: {len(names)} data sets; ftwiz trains on one file",
            hint="put their rows into one file and name it: --data FILE",
        )
    return names[0]


def _local(one: Taken, name: str, path: Path) -> str:
    place = find(name, path)
    if place is not None and place.is_file() and place.suffix in _SUFFIXES:
        return str(place)
    raise BadInput(f"{one.said}: {shown(name)} is no data file here (.jsonl, .json or .csv)", hint=_TOLD)


def _listed(one: Taken, path: Path) -> DataFile:
    """Return the only one of axolotl's ``datasets`` (or TRL's), when it is a file here."""
    entries = one.value
    if not isinstance(entries, list):
        raise BadInput(f"{one.said} is a list of data sets; got {shown(entries)}")
    entry = _one_of(one, list(entries))
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        raise BadInput(f"{one.said}: a data set has a path; got {shown(entry)}")
    kind = entry.get("type")
    kind = kind.split(".")[0] if isinstance(kind, str) else kind
    known = {"path", "type", "ds_type", "split", "field_messages"}
    other = [key for key, value in entry.items() if key not in known and value is not None]
    if other or (kind is not None and kind not in _AXOLOTL_TYPES):
        what = f"the key {shown(other[0])}" if other else f"the type {shown(kind)}"
        raise Refused(
            f"{one.said}: {what} of a data set is not taken over",
            hint="name the file with --data; data.format and data.columns say how it is read",
        )
    name = entry["path"]
    field = entry.get("field_messages")
    columns = {"messages": field} if isinstance(field, str) and kind == "chat_template" else None
    return DataFile(
        path=_local(one, name, path), format=_AXOLOTL_TYPES.get(str(kind), "auto"), columns=columns
    )  # fmt: skip


def _in_list(sheet: Sheet, one: Taken, path: Path, names: list[str]) -> DataFile:
    """Look a data set up in LLaMA-Factory's ``dataset_info.json``."""
    name = str(_one_of(one, list(names)))
    folders = [str(used.value) for used in sheet.used.get(Role.DATA_FOLDER, ())] or ["data"]
    place = find(f"{folders[0]}/{_LIST}", path)
    if place is None:
        raise BadInput(
            f"{one.said}: {shown(name)}: there is no {shown_path(folders[0])}/{_LIST} beside the file or "
            "above it to look it up in",
            hint=_TOLD,
        )
    entries = read_config(place)
    entry = entries.get(name)
    if not isinstance(entry, dict):
        raise BadInput(f"{one.said}: {shown(name)} is not in {shown_path(place)}", hint=_TOLD)
    return _entry(one, name, entry, place.parent)


def _entry(one: Taken, name: str, entry: Mapping[str, object], folder: Path) -> DataFile:
    columns = entry.get("columns", {})
    if not isinstance(columns, dict) or not all(isinstance(word, str) for word in columns.values()):
        raise BadInput(f"{one.said}: columns of {shown(name)} in {_LIST} are no names")
    if {"images", "videos", "audios"} & columns.keys():
        raise Refused(f"{one.said}: {shown(name)}: {IMAGES}", hint=_TOLD)
    if entry.get("ranking") or {"chosen", "rejected", "kto_tag"} & columns.keys():
        raise Refused(f"{one.said}: {shown(name)}: is for preference training, which is not there yet")
    file_name = entry.get("file_name")
    path = folder / file_name if isinstance(file_name, str) else None
    if path is None or path.suffix not in _SUFFIXES or not path.is_file():
        raise BadInput(
            f"{one.said}: {shown(name)}: {shown_path(folder / _LIST)} names no file that is here", hint=_TOLD
        )
    rows = entry.get("num_samples")
    num_rows = rows if isinstance(rows, int) and not isinstance(rows, bool) else None
    form, ours = _layout(entry, columns)
    return DataFile(path=str(path), format=form, columns=ours, num_rows=num_rows)


def _layout(entry: Mapping[str, object], columns: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    if entry.get("formatting", "alpaca") == "alpaca":
        ours = {
            _ALPACA[word][0]: column
            for word, column in columns.items()
            if word in _ALPACA and column != _ALPACA[word][1]
        }
        return "alpaca", ours
    tags = entry.get("tags")
    is_role = isinstance(tags, dict) and tags.get("role_tag") == "role"
    word = "messages" if is_role else "conversations"
    column = columns.get("messages", "conversations")
    return ("messages" if is_role else "sharegpt"), ({} if column == word else {word: column})
