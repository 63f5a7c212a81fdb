"""Text for screens: harmless whoever wrote it, and one way to write every quantity.

Everything that comes from a file, a model, a data set or another host goes through ``safe`` before it
reaches a terminal. Imports no screen library, so that plain output can use it.
"""

import math
import re
from typing import Final

from rich.cells import cell_len, set_cell_size

NOT_AVAILABLE: Final = "n/a"
_REPLACEMENT: Final = "\ufffd"
_MAX_CHARACTERS: Final = 4096
_LINE_BREAKS: Final = re.compile("\r\n|[\t\n\v\f\r\x85\u2028\u2029]")
# All controls (C0 with ESC and NUL, DEL, C1), surrogates, and characters that nobody has defined.
_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufff9-\ufffb\ufffe\uffff]")
# Invisible characters that reorder or join their neighbours or change their width: bidi marks, embeddings,
# overrides and isolates, zero-width ones, variation selectors, byte order marks, tags.
_INVISIBLE: Final = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff]"
)
_KIB: Final = 1024.0
_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86400


def safe(text: str) -> str:
    """Return text that cannot command a terminal, on one line.

    Tabs and line breaks become a space, every other control character the replacement character, and
    characters that reorder text or change widths (bidi overrides, joiners) are dropped. Of a very long
    text only the beginning is kept.
    """
    if len(text) > _MAX_CHARACTERS:
        text = text[: _MAX_CHARACTERS - 1] + "…"
    if text.isascii() and text.isprintable():
        return text
    text = _LINE_BREAKS.sub(" ", text)
    return _INVISIBLE.sub("", _CONTROLS.sub(_REPLACEMENT, text))


def width_of(text: str) -> int:
    """Return the terminal cells that a text takes."""
    return cell_len(text)


def fit(text: str, width: int, *, right: bool = False) -> str:
    """Return the text in exactly ``width`` cells, cut with an ellipsis or filled with spaces."""
    short = shorten(text, width)
    blank = " " * (width - cell_len(short))
    return blank + short if right else short + blank


def shorten(text: str, width: int) -> str:
    """Return the text in at most ``width`` cells, cut with an ellipsis."""
    if width <= 0:
        return ""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1).rstrip() + "…"


def beginning(text: str, width: int) -> str:
    """Return as many characters from the start as fit into ``width`` cells."""
    taken = 0
    for end, character in enumerate(text):
        taken += cell_len(character)
        if taken > width:
            return text[:end]
    return text


def number(value: float | None, *, digits: int = 4) -> str:
    """Return a measured number: as many significant digits as asked, ``NaN`` and ``inf`` by name."""
    if value is None:
        return NOT_AVAILABLE
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -3 or exponent >= 7:  # noqa: PLR2004 - 0.001 to 9,999,999 reads best without an exponent
        mantissa, power = f"{value:.{max(0, digits - 2)}e}".split("e")
        return f"{mantissa}e{int(power)}"
    return f"{value:,.{max(0, digits - 1 - exponent)}f}"


def rate(value: float | None) -> str:
    """Return a learning rate: always with an exponent, so that two are compared at a glance."""
    if value is None or not math.isfinite(value) or value == 0:
        return number(value)
    mantissa, power = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(power)}"


def count(value: float | None) -> str:
    """Return a count with thousands set apart."""
    return NOT_AVAILABLE if value is None or not math.isfinite(value) else f"{value:,.0f}"


def percent(share: float | None) -> str:
    """Return a share (0 to 1) in percent."""
    return NOT_AVAILABLE if share is None or not math.isfinite(share) else f"{100 * share:.0f} %"


def size(num_bytes: float | None) -> str:
    """Return bytes in the unit that reads best."""
    if num_bytes is None:
        return NOT_AVAILABLE
    value = float(num_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < _KIB or unit == "TiB":
            break
        value /= _KIB
    digits = 0 if unit == "B" or value >= 100 else 1  # noqa: PLR2004 - three digits are enough
    return f"{value:.{digits}f} {unit}"


def duration(seconds: float | None) -> str:
    """Return a time span: ``0.45 s``, ``1:12``, ``2:36:11``, ``3 d 04:05``."""
    if seconds is None or not math.isfinite(seconds):
        return NOT_AVAILABLE
    if seconds < 10:  # noqa: PLR2004 - below ten seconds the fractions matter
        return f"{number(max(0.0, seconds), digits=2)} s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    days, rest = divmod(whole, _DAY)
    hours, minutes = rest // _HOUR, rest % _HOUR // _MINUTE
    if days:
        return f"{days} d {hours:02}:{minutes:02}"
    if hours:
        return f"{hours}:{minutes:02}:{whole % _MINUTE:02}"
    return f"{minutes}:{whole % _MINUTE:02}"


def clock(seconds: float) -> str:
    """Return elapsed time in a width that does not jump: ``0:00:07``."""
    whole = max(0, round(seconds))
    days, rest = divmod(whole, _DAY)
    text = f"{rest // _HOUR}:{rest % _HOUR // _MINUTE:02}:{rest % _MINUTE:02}"
    return f"{days} d {text}" if days else text
