"""Drawing characters as ASCII, for terminals and fonts that have no others: one cell stays one cell."""

from functools import cache

_BRAILLE = 0x2800
_UPPER, _LOWER = 0b11011, 0b11100100
_TABLE = {
    "━": "=", "╸": "-", "─": "-", "│": "|", "┤": "+", "└": "+", "┴": "+", "…": "~", "→": ">", "✓": "v",
    "✗": "x", "°": " ", "·": ".", "▖": "o", "█": "#", "▓": "%", "▒": "+", "░": ":", "▸": ">",
    "←": "<", "↑": "^", "↓": "v",
    "▁": "_", "▂": "_", "▃": ".", "▄": "-", "▅": "-", "▆": "=", "▇": "*",
}  # fmt: skip


def as_ascii(text: str) -> str:
    """Return the text with our own drawing characters replaced; letters of any script stay."""
    return text if text.isascii() else text.translate(_translation())


@cache
def _translation() -> dict[int, str]:
    table = {ord(glyph): plain for glyph, plain in _TABLE.items()}
    for dots in range(256):
        upper, lower = bool(dots & _UPPER), bool(dots & _LOWER)
        table[_BRAILLE + dots] = ":" if upper and lower else "'" if upper else "." if lower else " "
    return table
