"""Writes cells onto a terminal with as few bytes as it can: the order, the jumps and the changes of style.

Pure: from cells and where they stand to the text that draws them. Uses only what every terminal since the
VT100 knows.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

_SGR = re.compile(r"\x1b\[([0-9;]*)m")
_OFF_BY = {"1": "22", "2": "22", "3": "23", "4": "24", "5": "25", "6": "25", "7": "27", "8": "28", "9": "29"}
_OFF_BY |= {"21": "24", "51": "54", "52": "54", "53": "55"}
_CUBE = (0, 95, 135, 175, 215, 255)
_MANY = 250
"""From so many pieces on they are written row by row: looking for the nearest one takes too long."""


class Look(NamedTuple):
    """The style of a cell as a terminal is told it."""

    ink: str = ""
    """Parameters that set the foreground: ``38;5;255``; empty for the terminal's own."""
    paper: str = ""
    """Parameters that set the background."""
    attributes: tuple[str, ...] = ()
    """``1`` for bold, ``3`` for italic, ..."""
    link: str = ""
    """What opens a hyperlink."""


PLAIN = Look()


class Cell(NamedTuple):
    """One position of the screen, or two for a wide character: its second half has no character."""

    character: str
    look: Look
    size: int = 1


Row = list[Cell | None]


class Spot(NamedTuple):
    """A cell to be written, and where."""

    y: int
    x: int
    cell: Cell


class _Piece(NamedTuple):
    """Cells of one style beside each other."""

    y: int
    x: int
    end: int
    look: Look
    text: str


def look_of(switched_on: str) -> Look:
    """Return the look that escape sequences switch on.

    Colours of the 256-colour cube and grey ramp are told by their number, whatever the terminal can show:
    they are the same everywhere and take half the bytes.
    """
    ink, paper, attributes = "", "", []
    for match in _SGR.finditer(switched_on):
        parameters = [part for part in match[1].split(";") if part]
        while parameters:
            first = parameters.pop(0)
            if first in {"38", "48"} and parameters:
                count = 1 if parameters[0] == "5" else 3
                colour = _shortest([first, *parameters[: count + 1]])
                del parameters[: count + 1]
                ink, paper = (colour, paper) if first == "38" else (ink, colour)
            elif 30 <= int(first) <= 37 or 90 <= int(first) <= 97 or first == "39":  # noqa: PLR2004 - SGR's ranges
                ink = "" if first == "39" else first
            elif 40 <= int(first) <= 47 or 100 <= int(first) <= 107 or first == "49":  # noqa: PLR2004
                paper = "" if first == "49" else first
            else:
                attributes.append(first)
    return Look(ink, paper, tuple(attributes), _SGR.sub("", switched_on))


def written(spots: Sequence[Spot], rows: Mapping[int, Row], *, in_order: bool = False) -> str:
    """Return the text that writes the cells, with every style switched off at its end.

    Args:
        spots: Cells that differ from what the terminal shows; where one is named twice, the last counts.
        rows: The screen as it will be.
        in_order: Write in the order given: wide characters are replaced, and what is blanked by that matters.
    """
    if in_order:
        pieces = _pieces(spots, rows)
        return _Pen(rows).write(pieces)
    newest = {(spot.y, spot.x): spot for spot in spots}
    pieces = _pieces([newest[place] for place in sorted(newest)], rows)
    if len(pieces) < _MANY:
        pieces = _nearest_first(pieces)
    return _Pen(rows).write(pieces)


def _pieces(spots: Iterable[Spot], rows: Mapping[int, Row]) -> list[_Piece]:
    pieces: list[_Piece] = []
    for y, x, cell in spots:
        last = pieces[-1] if pieces else None
        end = x + cell.size
        if last is not None and last.y == y and last.look == cell.look and last.end <= x:
            between = _cheap_gap(rows[y], last.end, x, cell.look)
            if between is not None:
                pieces[-1] = last._replace(end=end, text=last.text + between + cell.character)
                continue
        pieces.append(_Piece(y, x, end, cell.look, cell.character))
    return pieces


def _cheap_gap(row: Row, start: int, end: int, look: Look) -> str | None:
    """Return what stands between two cells where writing it again is no longer than jumping over it."""
    if start == end:
        return ""
    between = row[start:end]
    if end - start > 5 or not all(cell and cell.character and cell.look == look for cell in between):  # noqa: PLR2004
        return None
    text = "".join(cell.character for cell in between if cell)
    return text if len(text.encode()) <= len(_jump(end - start)) else None


def _nearest_first(pieces: list[_Piece]) -> list[_Piece]:
    """Order pieces by style, and within one so that the next is the one that is cheapest to get to."""
    groups: dict[Look, list[_Piece]] = {}
    for piece in pieces:
        groups.setdefault(piece.look, []).append(piece)
    ordered: list[_Piece] = []
    at: tuple[int, int] | None = None
    for look in sorted(groups):
        left = groups[look]
        while left:
            nearest = min(left, key=lambda piece: len(_move(at, piece.y, piece.x)))
            left.remove(nearest)
            ordered.append(nearest)
            at = nearest.y, nearest.end
    return ordered


class _Pen:
    """Writes pieces one after the other."""

    def __init__(self, rows: Mapping[int, Row]) -> None:
        self._rows = rows

    def write(self, pieces: Iterable[_Piece]) -> str:
        out: list[str] = []
        at: tuple[int, int] | None = None
        look = PLAIN
        for piece in pieces:
            if at != (piece.y, piece.x):
                out.append(_move(at, piece.y, piece.x))
            if piece.look != look:
                out.append(_change(look, piece.look))
                look = piece.look
            out.append(piece.text)
            # At the right edge terminals differ in where the cursor is.
            at = (piece.y, piece.end) if piece.end < len(self._rows[piece.y]) else None
        if look != PLAIN:
            out.append(_change(look, PLAIN))
        return "".join(out)


def _move(at: tuple[int, int] | None, y: int, x: int) -> str:
    """Return the shortest way from one position to another."""
    absolute = f"\x1b[{y + 1};{x + 1}H"
    if at is None or (abs(y - at[0]) > 1 and abs(x - at[1]) > 3):  # noqa: PLR2004 - two jumps are longer
        return absolute
    vertical = _jump(abs(y - at[0]), "B" if y > at[0] else "A")
    sideways = x - at[1]
    horizontal = _jump(sideways) if sideways >= 0 else _back(-sideways)
    relative = vertical + horizontal
    return relative if len(relative) < len(absolute) else absolute


def _jump(distance: int, way: str = "C") -> str:
    return "" if distance == 0 else f"\x1b[{distance if distance > 1 else ''}{way}"


def _back(distance: int) -> str:
    return "\b" * distance if distance <= 3 else f"\x1b[{distance}D"  # noqa: PLR2004 - from here a jump is shorter


@lru_cache(maxsize=4096)
def _change(old: Look, new: Look) -> str:
    """Return what turns one style into another: what differs alone, or all of it after a reset."""
    links = "" if old.link == new.link else "\x1b]8;;\x1b\\" if old.link else ""
    opened = "" if old.link == new.link else new.link
    if new == PLAIN:
        return links + "\x1b[0m"
    whole = ["0"] if old != PLAIN else []
    whole += [*new.attributes, *filter(None, (new.ink, new.paper))]
    gone = [attribute for attribute in old.attributes if attribute not in new.attributes]
    kept = [attribute for attribute in old.attributes if attribute in new.attributes]
    off = [_OFF_BY.get(attribute, "0") for attribute in gone]
    # Bold and dim, and others, are switched off together: what is to stay of them is told again.
    again = [attribute for attribute in kept if _OFF_BY.get(attribute) in off]
    parts = [*dict.fromkeys(off), *again, *(one for one in new.attributes if one not in old.attributes)]
    parts += [new.ink or "39"] if new.ink != old.ink else []
    parts += [new.paper or "49"] if new.paper != old.paper else []
    shortest = whole if "0" in off or len(";".join(whole)) < len(";".join(parts)) else parts
    sgr = f"\x1b[{';'.join(shortest)}m" if shortest else ""
    return links + opened + sgr


def _shortest(parameters: list[str]) -> str:
    """Return a colour's parameters, by its number of 256 where that is exactly the colour."""
    if len(parameters) == 5 and parameters[1] == "2":  # noqa: PLR2004 - 38;2;red;green;blue
        number = _number_of(*map(int, parameters[2:]))
        if number is not None:
            return f"{parameters[0]};5;{number}"
    return ";".join(parameters)


@lru_cache(maxsize=1024)
def _number_of(red: int, green: int, blue: int) -> int | None:
    if red == green == blue and 8 <= red <= 238 and (red - 8) % 10 == 0:  # noqa: PLR2004 - the ramp: 8, 18, ... 238
        return 232 + (red - 8) // 10
    if {red, green, blue} <= set(_CUBE):
        return 16 + 36 * _CUBE.index(red) + 6 * _CUBE.index(green) + _CUBE.index(blue)
    return None
