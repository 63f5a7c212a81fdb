"""One file through its table: what is taken, used, dropped and refused, each with its line and reason."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from ..errors import BadInput, FtwizError, Refused
from ..job.files import shown, shown_path
from ..job.scalars import resolve
from ..job.schema import allowed, choices, known_part
from ..job.tree import Node, plain
from ..job.writer import flow
from .formats import Format, nearest_key
from .reading import leaves
from .rows import NOTHING, How, NotYet, Role, Row, Table, Wrong

_EXTRA = "train.extra."
_MAX_SHOWN = 60
SAME = "the same without it"
UNSAID = "(not said)"
_PURPOSES = frozenset(
    {"stage", "do_predict", "export_dir", "infer_backend", "task", "peft_config.export_dir"}
)
"""Keys that say what a file is for; what is refused of them is said first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What became of one key: a line of the diff."""

    file: str
    line: int | None
    """Of the key; ``None`` for what the file leaves unsaid."""
    key: str
    value: str
    how: How
    ours: str | None = None
    """``train.max_length: 2048``."""
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """A value for a key of ours, or for one of ``Role``."""

    target: str
    value: object
    key: str
    node: Node
    is_default: bool = False

    @property
    def said(self) -> str:
        """``train.yaml:12: cutoff_len``, for a message."""
        return f"{self.node.key_place}: {self.key}"


@dataclass(slots=True)
class Sheet:
    """What one file comes to."""

    format: Format
    root: Node
    changes: list[Change] = field(default_factory=list)
    taken: list[Taken] = field(default_factory=list)
    used: dict[Role, list[Taken]] = field(default_factory=dict)
    follows: list[Taken] = field(default_factory=list)
    problems: list[FtwizError] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)


def translate(root: Node, form: Format, *, without: Collection[str] = ()) -> Sheet:
    """Put every key of a file through its table.

    Args:
        root: The file.
        form: Whose it is.
        without: Keys that the user chose to go without.
    """
    sheet = Sheet(format=form, root=root)
    for key, node in leaves(root, form.keys):
        sheet.seen.add(key)
        row = form.keys.get(key)
        if key in without:
            _note(sheet, key, node, How.DROP, reason="you chose to go without it")
        elif row is None and node.value is None and any(one.startswith(f"{key}.") for one in form.keys):
            _note(sheet, key, node, How.DROP, reason=SAME)
        elif row is None:
            sheet.problems.append(_unknown(form, key, node))
        else:
            _apply(sheet, row, node)
    _defaults(sheet, form.keys)
    for key, ours, reason in form.unsaid:
        file = shown_path(root.origin.name)
        sheet.changes.append(
            Change(file=file, line=None, key=key, value=UNSAID, how=How.TAKE, ours=ours, reason=reason)
        )
    for target, value in form.implied.items():
        sheet.taken.append(Taken(target=target, value=value, key=form.title, node=root, is_default=True))
    return sheet


def _unknown(form: Format, key: str, node: Node) -> BadInput:
    return BadInput(
        f"{node.key_place}: {form.title} has no key {shown(key)}{nearest_key(key, form.keys)}",
        hint=f"mend it, or go without it: --drop {key if key.isprintable() else ascii(key)}",
    )


def _apply(sheet: Sheet, row: Row, node: Node) -> None:
    value = plain(node)
    if row.how is How.SECRET:
        _note(sheet, row.key, node, How.SECRET, reason=row.reason)
    elif row.how is How.DROP:
        _note(sheet, row.key, node, How.DROP, reason=row.reason)
    elif _is_off(value, row):
        _note(sheet, row.key, node, How.DROP, reason=SAME)
    elif row.how is How.REFUSE:
        _refuse(sheet, row, node, row.reason)
    elif row.how is How.FOLLOW:
        sheet.follows.append(Taken(target=row.key, value=value, key=row.key, node=node))
    elif row.how is How.USE:
        sheet.used.setdefault(Role(row.target), []).append(
            Taken(target=row.target, value=value, key=row.key, node=node)
        )
    else:
        _take(sheet, row, node, value)


def _is_off(value: object, row: Row) -> bool:
    if isinstance(value, list):
        value = tuple(value)
    return any(value == off and isinstance(value, bool) is isinstance(off, bool) for off in row.off)


def _take(sheet: Sheet, row: Row, node: Node, value: object) -> None:
    try:
        ours = row.convert(value) if row.convert else value
        if ours is NOTHING:
            _note(sheet, row.key, node, How.DROP, reason=row.reason or SAME)
            return
        ours = fitted(row.target, ours)
    except NotYet as error:
        _refuse(sheet, row, node, str(error))
    except Wrong as error:
        sheet.problems.append(BadInput(f"{node.place}: {row.key} {error}; got {shown(value)}"))
    else:
        sheet.taken.append(Taken(target=row.target, value=ours, key=row.key, node=node))
        _note(sheet, row.key, node, How.TAKE, ours=f"{row.target}: {_short(ours)}", reason=row.reason)


def _refuse(sheet: Sheet, row: Row, node: Node, reason: str) -> None:
    _note(sheet, row.key, node, How.REFUSE, reason=reason)
    problem = Refused(f"{node.key_place}: {row.key}: {_short(plain(node))}: {reason}")
    sheet.problems.insert(0 if row.key in _PURPOSES else len(sheet.problems), problem)


def _note(sheet: Sheet, key: str, node: Node, how: How, *, ours: str | None = None, reason: str = "") -> None:
    value = "***" if how is How.SECRET else _short(plain(node))
    sheet.changes.append(change_of(node, key=key, value=value, how=how, ours=ours, reason=reason))


def change_of(
    node: Node, *, key: str, value: str, how: How, ours: str | None = None, reason: str = ""
) -> Change:
    """Return the line of the diff for the key of a value."""
    line = node.key_line or node.line
    file = shown_path(node.origin.name)
    return Change(file=file, line=line, key=key, value=value, how=how, ours=ours, reason=reason)


def _short(value: object) -> str:
    text = flow(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _defaults(sheet: Sheet, table: Table) -> None:
    """Fill in what the tool does where the file says nothing, and we would do something else."""
    done = {one.target for one in sheet.taken} | sheet.used.keys()
    for row in table.values():
        if row.default is None or row.target in done:
            continue
        done.add(row.target)
        one = Taken(target=row.target, value=row.default, key=row.key, node=sheet.root, is_default=True)
        if row.how is How.USE:
            sheet.used.setdefault(Role(row.target), []).append(one)
        else:
            sheet.taken.append(one)


def fitted(target: str, value: object) -> object:
    """Return a value in the form that a key of ours takes.

    Raises:
        NotYet: There is no such key, or no such word for it.
    """
    if target.startswith(_EXTRA):
        return value
    keys = tuple(target.split("."))
    known, schema = known_part(keys)
    if known != keys:
        raise NotYet(f"ftwiz has no {target} yet")
    parts: list[Any] = list(schema.get("anyOf", [schema]))
    if all("enum" in part or "const" in part or part.get("type") == "null" for part in parts):
        if str(value) not in choices(schema):
            raise NotYet(f"is not there yet; {target} is {allowed(schema)}")
        return value
    return _number(value, {str(part.get("type")) for part in parts})


def _number(value: object, types: set[str]) -> object:
    """Numbers that these tools read out of quotes, and whole numbers written as 1.0, are numbers."""
    if isinstance(value, str) and types & {"number", "integer"} and "string" not in types:
        value = _resolved(value)
    if isinstance(value, float) and types & {"integer"} and "number" not in types and value.is_integer():
        return int(value)
    return value


def _resolved(text: str) -> object:
    try:
        found = resolve(text)
    except ValueError:
        return text
    return found if isinstance(found, int | float) else text


def all_taken(sheets: Collection[Sheet]) -> Iterator[Taken]:
    """Yield what every sheet takes."""
    for sheet in sheets:
        yield from sheet.taken
