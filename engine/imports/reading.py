"""A foreign file -> its keys with their lines, through the job reader's bounds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import BadInput
from ..job.files import shown, shown_path
from ..job.reader import read_text, read_tree
from ..job.tree import Node, Origin, Source
from .formats import FORMATS, Format, recognise
from .rows import Table

_OLD_WORDS = {"yes": True, "on": True, "no": False, "off": False}
"""Words that these tools, which read YAML 1.1, take for true and false."""
_MAX_UP = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignFile:
    """A file of another tool."""

    path: Path
    format: Format
    root: Node


def read_foreign(path: Path, wanted: Format | None = None) -> ForeignFile:
    """Read a file and tell whose it is.

    Args:
        path: The file: YAML, or JSON.
        wanted: The tool, when the user or another file said so.

    Raises:
        BadInput: Not readable, beyond the job reader's bounds, or no tool's that is known.
    """
    text = read_text(path)
    if text.lstrip().startswith("{"):
        text = text.replace("\t", " ")  # JSON may be indented by tabs, and no text in it may hold one
    name = shown_path(path)
    root = read_tree(text, Origin(name=str(path), source=Source.FILE, base=_folder(path)))
    if root is None or root.value is None:
        raise BadInput(f"{name}: is empty")
    if not isinstance(root.value, dict):
        raise BadInput(f"{root.place}: is no configuration: keys and values; this is {shown(root.value)}")
    found = wanted or recognise(root.value)
    if found is None:
        raise BadInput(
            f"{name}: is no file that ftwiz knows: LLaMA-Factory, axolotl, TRL, accelerate or DeepSpeed",
            hint=f"say whose it is: --from {' | '.join(one.name for one in FORMATS)}",
        )
    return ForeignFile(path=path, format=found, root=root)


def _folder(path: Path) -> Path:
    return Path.cwd() / path.parent


def leaves(root: Node, table: Table) -> Iterator[tuple[str, Node]]:
    """Yield each key with its value, dotted down to where the table knows it; the unknown ones too."""
    yield from _below(root, "", table)


def _below(node: Node, prefix: str, table: Table) -> Iterator[tuple[str, Node]]:
    assert isinstance(node.value, dict)
    for word, child in node.value.items():
        key = f"{prefix}{word}"
        is_part = key not in table and any(known.startswith(f"{key}.") for known in table)
        if is_part and isinstance(child.value, dict):
            yield from _below(child, f"{key}.", table)
        elif is_part and child.value is not None:
            raise BadInput(f"{child.place}: {key} is keys and values; got {shown(child.value)}")
        else:
            yield key, _modern(child)


def _modern(node: Node) -> Node:
    """Return a word that YAML 1.1 takes for a switch as one."""
    if isinstance(node.value, str) and node.word and node.word.lower() in _OLD_WORDS:
        return replace(node, value=_OLD_WORDS[node.word.lower()])
    return node


def places(name: str, near: Path) -> Sequence[Path]:
    """Return where a path in a foreign file may lead.

    These tools take it from the folder that they were started in, which is often above the file's.
    """
    if name.startswith("/"):
        return (Path(name),)
    folder = _folder(near)
    above = [folder, *folder.parents][: _MAX_UP + 1]
    return tuple(dict.fromkeys(base / name for base in (*above, Path.cwd())))


def find(name: str, near: Path) -> Path | None:
    """Return the first of these places where there is something."""
    return next((place for place in places(name, near) if _is_there(place)), None)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
