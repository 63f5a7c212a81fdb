"""The data that a training file names: by names in a list, by paths, or not at all.

ftwiz trains on local files; whatever else is named needs the user to say which file it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..data.read import KINDS
from ..data.sources import named_sets
from ..errors import BadInput, FtwizError, Refused
from ..job.files import shown, shown_path
from ..specs.job import DATASET_LIST
from .counting import note
from .formats import AXOLOTL, LLAMAFACTORY
from .reading import find
from .reasons import IMAGES
from .rows import Role
from .sheet import Sheet, Taken

_STRATEGIES = {
    "concat": None, "interleave_under": "first_exhausted", "interleave_over": "all_exhausted",
    "interleave_once": None,
}  # fmt: skip
"""LLaMA-Factory's words; two of them take every row once, and rows are shuffled anyhow."""
_TOLD = "say which file holds the rows: --data FILE"
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
    try:
        if given is not None:
            taken = _given(sheet, given)
        elif said:
            taken = _found(sheet, said[0], path)
        else:
            raise BadInput(f"{shown_path(path)}: names no data set, and training needs one", hint=_TOLD)
        paths = next(one.value for one in taken if one.target == "data.path")
        return [
            *taken,
            *_mixing(sheet, 1 if isinstance(paths, str) else len(tuple(paths))),  # type: ignore[arg-type]  # a path, or several
            *_held_out(sheet, path),
        ]
    except FtwizError as error:
        sheet.problems.append(error)
        return []


def _given(sheet: Sheet, given: Path) -> list[Taken]:
    said = sheet.used.get(Role.DATA, [])
    for one in (one for role in (Role.DATA, Role.DATA_FOLDER) for one in sheet.used.get(role, ())):
        note(sheet, one, f"data.path: {shown_path(given)}", "the file that you name")
    origin = said[0] if said else Taken(target="", value="", key="--data", node=sheet.root)
    return _taken(origin, [DataFile(path=str(Path.cwd() / given))])


def _found(sheet: Sheet, said: Taken, path: Path) -> list[Taken]:
    files = _named(sheet, said, path)
    shown_files = ", ".join(shown_path(file.path) for file in files)
    for one in (*sheet.used.get(Role.DATA_FOLDER, ()), said):
        note(sheet, one, f"data.path: {shown_files}", "")
    return _taken(said, files)


def _taken(one: Taken, files: list[DataFile]) -> list[Taken]:
    first = files[0]
    if any((file.format, file.columns) != (first.format, first.columns) for file in files):
        raise Refused(
            f"{one.said}: its data sets are not read in the same way, and one job reads one way",
            hint="bring them into one format, or list them in a dataset_info.json: data.path: [FOLDER/NAME]",
        )
    paths = first.path if len(files) == 1 else tuple(file.path for file in files)
    values: dict[str, object] = {"data.path": paths, "data.num_rows": first.num_rows}
    if first.format != "auto":
        values["data.format"] = first.format
    values["data.columns"] = dict(first.columns) if first.columns else None
    return [
        Taken(target=target, value=value, key=one.key, node=one.node)
        for target, value in values.items()
        if value is not None
    ]


def _mixing(sheet: Sheet, num_files: int) -> list[Taken]:
    """Return how several files are mixed: all rows of all of them, or shares."""
    taken: list[Taken] = []
    strategies, shares = sheet.used.get(Role.MIXING, []), sheet.used.get(Role.SHARES, [])
    strategy = str(strategies[0].value) if strategies else "concat"
    if strategies and strategy not in _STRATEGIES:
        raise BadInput(f"{strategies[0].said} is one of {', '.join(_STRATEGIES)}; got {shown(strategy)}")
    mixing = _STRATEGIES.get(strategy) if num_files > 1 else None
    for one in strategies:
        ours = f"data.mixing: {mixing}" if mixing else None
        note(sheet, one, ours, "" if mixing else "one file" if num_files == 1 else "every row once")
        if mixing:
            weights = _shares(shares, num_files)
            taken.append(replace(one, target="data.mixing", value=mixing))
            taken.append(replace((shares or [one])[0], target="data.weights", value=weights))
    for one in shares:
        note(sheet, one, f"data.weights: {taken[1].value}" if taken else None, "")
    return taken


def _shares(shares: list[Taken], num_files: int) -> tuple[float, ...]:
    if not shares or shares[0].value is None:
        return (1.0,) * num_files  # LLaMA-Factory then takes from each in turn
    value = shares[0].value
    words = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    try:
        found = tuple(float(word) for word in words)  # type: ignore[arg-type]  # what is no number raises
    except (TypeError, ValueError):
        found = ()
    if len(found) != num_files or not all(0 < share < float("inf") for share in found):
        raise BadInput(f"{shares[0].said} is a share for each of {num_files} data sets; got {shown(value)}")
    return found


def _held_out(sheet: Sheet, path: Path) -> list[Taken]:
    """Return ``data.eval_path``, where a file names held-out data of its own."""
    taken = []
    for one in sheet.used.get(Role.EVAL_DATA, ()):
        if one.value in (None, "", []):
            note(sheet, one, None, "the same without it")
            continue
        try:
            found = _taken(one, _named(sheet, one, path))
        except FtwizError as error:
            hint = f"--drop {one.key}, and write data.eval_path into the job"
            raise Refused(error.message, hint=hint) from error
        taken.append(replace(found[0], target="data.eval_path"))
        note(sheet, one, "data.eval_path", "")
    return taken


def _named(sheet: Sheet, one: Taken, path: Path) -> list[DataFile]:
    names = one.value
    if sheet.format is LLAMAFACTORY:
        listed = names.split(",") if isinstance(names, str) else names
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise BadInput(f"{one.said} is the name of a data set; got {shown(names)}")
        return _in_list(sheet, one, path, [name.strip() for name in listed if name.strip()])
    if sheet.format is AXOLOTL or isinstance(names, list):
        return _listed(one, path)
    if not isinstance(names, str):
        raise BadInput(f"{one.said} is the name of a data set; got {shown(names)}")
    return [DataFile(path=_local(one, names, path))]


def _local(one: Taken, name: str, path: Path) -> str:
    place = find(name, path)
    if place is not None and place.is_file() and place.suffix in KINDS:
        return str(place)
    raise BadInput(f"{one.said}: {shown(name)} is no data file here ({', '.join(KINDS)})", hint=_TOLD)


def _listed(one: Taken, path: Path) -> list[DataFile]:
    """Return axolotl's ``datasets`` (or TRL's), when they are files here."""
    entries = one.value
    if not isinstance(entries, list) or not entries:
        raise BadInput(f"{one.said} is a list of data sets; got {shown(entries)}")
    return [_entry_of_list(one, entry, path) for entry in entries]


def _entry_of_list(one: Taken, entry: object, path: Path) -> DataFile:
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


def _in_list(sheet: Sheet, one: Taken, path: Path, names: list[str]) -> list[DataFile]:
    """Look data sets up in LLaMA-Factory's ``dataset_info.json``."""
    if not names:
        raise BadInput(f"{one.said} names no data set", hint=_TOLD)
    folders = [str(used.value) for used in sheet.used.get(Role.DATA_FOLDER, ())] or ["data"]
    place = find(f"{folders[0]}/{DATASET_LIST}", path)
    if place is None:
        raise BadInput(
            f"{one.said}: {shown(names[0])}: there is no {shown_path(folders[0])}/{DATASET_LIST} beside the "
            "file or above it to look it up in",
            hint=_TOLD,
        )
    entries = named_sets(place.parent)
    for name in names:
        _check_entry(one, name, entries.get(name), place)
    entry = entries[names[0]]
    assert isinstance(entry, dict)
    if len(names) == 1 and _is_plain(entry) and not sheet.used.get(Role.EVAL_DATA):
        return [_plain_file(entry, place.parent)]
    return [DataFile(path=str(place.parent / name)) for name in names]


def _check_entry(one: Taken, name: str, entry: object, place: Path) -> None:
    """Refuse what cannot be trained on here, in words that name the key of the file."""
    if not isinstance(entry, dict):
        raise BadInput(f"{one.said}: {shown(name)} is not in {shown_path(place)}", hint=_TOLD)
    columns = entry.get("columns", {})
    if not isinstance(columns, dict) or not all(isinstance(word, str | None) for word in columns.values()):
        raise BadInput(f"{one.said}: columns of {shown(name)} in {DATASET_LIST} are no names")
    if {"images", "videos", "audios"} & columns.keys():
        raise Refused(f"{one.said}: {shown(name)}: {IMAGES}", hint=_TOLD)
    file_name = entry.get("file_name")
    if not isinstance(file_name, str) or not (place.parent / file_name).exists():
        raise BadInput(
            f"{one.said}: {shown(name)}: {shown_path(place)} names no file that is here", hint=_TOLD
        )


def _is_plain(entry: Mapping[str, object]) -> bool:
    """Whether a job can say itself how the rows are read, without the list."""
    columns, tags = entry.get("columns") or {}, entry.get("tags") or {}
    assert isinstance(columns, dict)
    if entry.get("formatting", "alpaca") == "alpaca":
        return not columns and not entry.get("ranking")
    known = {"role_tag", "content_tag"}
    return columns.keys() <= {"messages"} and isinstance(tags, dict) and tags.keys() <= known


def _plain_file(entry: Mapping[str, object], folder: Path) -> DataFile:
    rows = entry.get("num_samples")
    num_rows = rows if isinstance(rows, int) and not isinstance(rows, bool) else None
    path = str(folder / str(entry["file_name"]))
    if entry.get("formatting", "alpaca") == "alpaca":
        return DataFile(path=path, format="alpaca", num_rows=num_rows)
    columns, tags = entry.get("columns") or {}, entry.get("tags") or {}
    assert isinstance(columns, dict)
    assert isinstance(tags, dict)
    word = "messages" if tags.get("role_tag") == "role" else "conversations"
    column = columns.get("messages") or "conversations"
    return DataFile(
        path=path, format="messages" if word == "messages" else "sharegpt", num_rows=num_rows,
        columns={} if column == word else {word: column},
    )  # fmt: skip
