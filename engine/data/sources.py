"""Which files a job's data is, and how their rows are read: paths, or names in a ``dataset_info.json``.

The list is LLaMA-Factory's (0.9.5, src/llamafactory/data/parser.py). Where an entry names columns, those that
it does not name are not read, not even the usual ones.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import BadInput
from ..specs.job import DATASET_LIST, Data
from .read import KINDS
from .words import short

_MAX_LIST_BYTES = 16 * 2**20
_ALPACA = {
    "prompt": "instruction", "query": "input", "response": "output", "history": "history", "system": "system",
    "chosen": "chosen", "rejected": "rejected", "kto_tag": "label",
}  # fmt: skip
"""LLaMA-Factory's word in ``columns`` -> our name of the column."""
_CHAT = {
    "messages": "messages", "system": "system", "tools": "tools",
    "chosen": "chosen", "rejected": "rejected", "kto_tag": "label",
}  # fmt: skip
_ALPACA_UNSAID = {"prompt": "instruction", "query": "input", "response": "output"}
_CHAT_UNSAID = {"messages": "conversations"}
_ROLES = {
    "user_tag": "user", "assistant_tag": "assistant", "observation_tag": "tool",
    "function_tag": "function_call", "system_tag": "system",
}  # fmt: skip
_ELSEWHERE = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
_MEDIA = ("images", "videos", "audios")
_TAGS = {("from", "value"), ("role", "content")}


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One file of rows."""

    path: Path
    data: Data
    """Format and columns of this file."""
    roles: Mapping[str, str] = field(default_factory=dict)
    """Names of speakers that are this file's own."""
    is_exact: bool = False
    """Whether no other columns are read than those that are named."""


def sources(paths: tuple[str, ...], data: Data, *, stage: str) -> list[Source]:
    """Return the files that paths stand for, in their order.

    Args:
        paths: Files, or names in the list of a folder: ``folder/name``.
        data: The job's data section, which says how rows are read unless such a list does.
        stage: The kind of training that the rows are for.

    Raises:
        BadInput: A name is not in its list, or stands for something that is no file here.
    """
    return [source for path in paths for source in _sources(Path(path), data, stage)]


def named_sets(folder: Path) -> dict[str, object]:
    """Return the entries of a folder's list of data sets.

    Raises:
        BadInput: The list cannot be read.
    """
    place = folder / DATASET_LIST
    try:
        with place.open("rb") as file:
            raw = file.read(_MAX_LIST_BYTES + 1)
        entries = json.loads(raw.decode("utf-8-sig"))
    except OSError as error:
        raise BadInput(f"{place}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{place}: is not JSON") from error
    if not isinstance(entries, dict):
        raise BadInput(f"{place}: is no list of data sets: names with their entries")
    return entries


def _sources(path: Path, data: Data, stage: str) -> Iterator[Source]:
    if _is_folder(path) and _is_file(path / DATASET_LIST):
        names = ", ".join(map(short, list(named_sets(path))[:8]))
        raise BadInput(f"{path}: is a folder of data sets; name one: {path}/NAME", hint=f"it has {names}")
    if _is_file(path.parent / DATASET_LIST) and not path.exists():
        yield from _from_list(path, data, stage)
    else:
        yield Source(path=path, data=data)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _from_list(path: Path, data: Data, stage: str) -> Iterator[Source]:
    entries = named_sets(path.parent)
    where = f"{path.parent / DATASET_LIST}: {short(path.name)}"
    entry = entries.get(path.name)
    if not isinstance(entry, dict):
        names = ", ".join(map(short, list(entries)[:8]))
        raise BadInput(f"{where}: is not in the list, nor a file beside it", hint=f"it has {names}")
    if data.columns or data.format != "auto":
        raise BadInput(
            f"{where}: the list says how its rows are read, and so does the job",
            hint="take data.format and data.columns out of the job, or name the file itself",
        )
    columns, format_, roles = _reading(entry, where, stage)
    num_rows = entry.get("num_samples")
    if isinstance(num_rows, int) and not isinstance(num_rows, bool) and num_rows > 0:
        data = data.model_copy(update={"num_rows": min(num_rows, data.num_rows or num_rows)})
    data = data.model_copy(update={"columns": columns, "format": format_})
    for file in _files(entry, path.parent, where):
        yield Source(path=file, data=data, roles=roles, is_exact=True)


def _files(entry: Mapping[str, object], folder: Path, where: str) -> list[Path]:
    name = entry.get("file_name")
    elsewhere = next((key for key in _ELSEWHERE if entry.get(key)), None)
    if not isinstance(name, str):
        what = (
            f"comes from elsewhere ({elsewhere}: {short(entry[elsewhere])})" if elsewhere else "has no file"
        )
        raise BadInput(f"{where}: {what}", hint="download it, and name the file: data.path: FILE")
    place = folder / name
    if _is_folder(place):
        inner = sorted(one for one in place.iterdir() if one.suffix.lower() in KINDS)
        if not inner:
            raise BadInput(f"{where}: the folder {place} holds no data file", hint=", ".join(KINDS))
        return inner
    if not _is_file(place):
        raise BadInput(f"{where}: its file is not there: {place}")
    return [place]


def _reading(
    entry: Mapping[str, object], where: str, stage: str
) -> tuple[dict[str, str], str, dict[str, str]]:
    """Return the columns by our names, the format, and the names of speakers."""
    said, tags = entry.get("columns"), entry.get("tags")
    for key, value in (("columns", said), ("tags", tags)):
        words = value.values() if isinstance(value, dict) else ()
        if value is not None and (
            not isinstance(value, dict) or not all(isinstance(one, str | None) for one in words)
        ):
            raise BadInput(f"{where}: its {key} are no names")
    columns = {word: name for word, name in (said or {}).items() if name}  # type: ignore[attr-defined]  # a mapping, as was just seen
    media = next((word for word in _MEDIA if word in columns), None)
    if media is not None:
        raise BadInput(f"{where}: has {media}; only text can be trained on")
    if entry.get("formatting", "alpaca") == "alpaca":
        return *_alpaca(columns if said else dict(_ALPACA_UNSAID), stage, where), {}
    return _chat(columns if said else dict(_CHAT_UNSAID), dict(tags or {}), where)  # type: ignore[call-overload]  # a mapping


def _alpaca(columns: dict[str, str], stage: str, where: str) -> tuple[dict[str, str], str]:
    unknown = columns.keys() - _ALPACA.keys() - {"tools"}
    if unknown:
        raise BadInput(f"{where}: columns: {short(min(unknown))} is no column of the formatting alpaca")
    ours = {_ALPACA[word]: name for word, name in columns.items() if word in _ALPACA}
    if "chosen" in ours:
        ours.pop("output", None)
        return ours, "preference_alpaca"
    if "output" in ours:
        return ours, "unpaired_alpaca" if "label" in ours else "alpaca"
    if stage in {"pt", "sft"}:  # LLaMA-Factory's way to say plain text
        return {"text": ours.get("instruction", "text")}, "text"
    ours.pop("label", None)
    return ours, "prompt_only"


def _chat(
    columns: dict[str, str], tags: dict[str, str], where: str
) -> tuple[dict[str, str], str, dict[str, str]]:
    unknown = columns.keys() - _CHAT.keys()
    if unknown:
        raise BadInput(f"{where}: columns: {short(min(unknown))} is no column of conversations")
    role = tags.get("role_tag") or "from"
    content = tags.get("content_tag") or ("content" if role == "role" else "value")
    if (role, content) not in _TAGS:
        raise BadInput(
            f"{where}: tags: messages of {short(role)} and {short(content)} are not read",
            hint="rename them in the file: from and value, or role and content",
        )
    ours = {_CHAT[word]: name for word, name in columns.items()}
    ours.setdefault("messages", "conversations")
    is_pair, is_rated = "chosen" in ours, "label" in ours
    if role == "from" or is_pair:
        ours["conversations"] = ours.pop("messages")
    kind = "messages" if role == "role" else "sharegpt"
    format_ = "preference_sharegpt" if is_pair else f"unpaired_{kind}" if is_rated else kind
    roles = {name: _ROLES[word] for word, name in tags.items() if word in _ROLES and name}
    return ours, format_, roles
