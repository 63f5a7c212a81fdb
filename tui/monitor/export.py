"""What is on the screen, as files: an SVG of its cells, a PNG where Pillow is there, the curves as CSV.

The SVG is drawn from cells, with braille as dots: fonts lack those characters or draw them too wide.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from .metrics import figures
from .view import Frame

if TYPE_CHECKING:
    from PIL import ImageFont

CELL_WIDTH, CELL_HEIGHT = 9, 18
_FONT_SIZE = 15
_BRAILLE = range(0x2800, 0x2900)
_DOTS = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3))
_RADIUS = 1.4
_FONTS = (
    "/usr/share/fonts/truetype/dejavu/DejaVuSansMono.ttf",
    "/usr/share/fonts/dejavu-sans-mono-fonts/DejaVuSansMono.ttf",
    "DejaVuSansMono.ttf",
)


@dataclass(frozen=True, slots=True)
class Part:
    """Text of one style at a column of a row; colours as ``#rrggbb``."""

    column: int
    text: str
    ink: str
    paper: str
    is_bold: bool = False


Picture = Sequence[Sequence[Part]]


def as_svg(picture: Picture, *, width: int, background: str) -> str:
    """Return the picture, ``width`` cells wide, as SVG."""
    size = f'width="{width * CELL_WIDTH}" height="{len(picture) * CELL_HEIGHT}"'
    font = f'font-family="DejaVu Sans Mono, monospace" font-size="{_FONT_SIZE}"'
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font} xml:space="preserve">',
        f'<rect {size} fill="{background}"/>',
    ]
    for y, row in enumerate(picture):
        for part in row:
            out += _svg_part(part, y, background)
    return "\n".join([*out, "</svg>", ""])


def _svg_part(part: Part, y: int, background: str) -> Iterable[str]:
    top = y * CELL_HEIGHT
    if part.paper != background:
        yield (
            f'<rect x="{part.column * CELL_WIDTH}" y="{top}" width="{len(part.text) * CELL_WIDTH}" '
            f'height="{CELL_HEIGHT}" fill="{part.paper}"/>'
        )
    letters = "".join(" " if ord(character) in _BRAILLE else character for character in part.text)
    if letters.strip():
        places = " ".join(str((part.column + at) * CELL_WIDTH) for at in range(len(letters)))
        bold = ' font-weight="bold"' if part.is_bold else ""
        yield f'<text x="{places}" y="{top + 14}" fill="{part.ink}"{bold}>{escape(letters)}</text>'
    for at, character in enumerate(part.text):
        for x, dot_y in dots(character):
            left, down = (part.column + at + x) * CELL_WIDTH, top + CELL_HEIGHT * dot_y
            yield f'<circle cx="{left:.1f}" cy="{down:.1f}" r="{_RADIUS}" fill="{part.ink}"/>'


def dots(character: str) -> list[tuple[float, float]]:
    """Return the dots of a braille character as shares of a cell's width and height."""
    bits = ord(character) - _BRAILLE.start if ord(character) in _BRAILLE else 0
    return [
        (0.25 + 0.5 * right, 0.125 + 0.25 * down)
        for bit, (right, down) in enumerate(_DOTS)
        if bits >> bit & 1
    ]


def write_png(picture: Picture, path: Path, *, width: int, background: str) -> bool:
    """Write the picture as PNG; ``False`` where Pillow is not installed."""
    try:
        from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415 - not one of our needs
    except ImportError:
        return False
    image = Image.new("RGB", (width * CELL_WIDTH, len(picture) * CELL_HEIGHT), background)
    draw = ImageDraw.Draw(image)
    font = next(filter(None, map(_font, _FONTS)), None) or ImageFont.load_default(_FONT_SIZE)
    for y, row in enumerate(picture):
        for part in row:
            for at, character in enumerate(part.text):
                left, top = (part.column + at) * CELL_WIDTH, y * CELL_HEIGHT
                draw.rectangle((left, top, left + CELL_WIDTH - 1, top + CELL_HEIGHT - 1), fill=part.paper)
                for x, dot_y in dots(character):
                    centre = left + CELL_WIDTH * x, top + CELL_HEIGHT * dot_y
                    edges = (
                        centre[0] - _RADIUS,
                        centre[1] - _RADIUS,
                        centre[0] + _RADIUS,
                        centre[1] + _RADIUS,
                    )
                    draw.ellipse(edges, fill=part.ink)
                if character.strip() and ord(character) not in _BRAILLE:
                    draw.text((left, top), character, font=font, fill=part.ink)
    image.save(path)
    return True


def _font(name: str) -> "ImageFont.FreeTypeFont | None":
    from PIL import ImageFont  # noqa: PLC0415 - as above

    try:
        return ImageFont.truetype(name, _FONT_SIZE)
    except OSError:
        return None


def as_csv(frame: Frame) -> str:
    """Return every curve that there is: name, step, lowest, highest and smoothed value of its buckets."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("metric", "step", "low", "high", "mean", "smooth"))
    for name, curve in [("loss", frame.view.loss), *((one.name, one.curve) for one in figures(frame))]:
        for point in curve.points:
            writer.writerow((name, point.step, point.low, point.high, point.mean, point.smooth))
    for event in frame.view.evals:
        if event.loss is not None:
            writer.writerow(("eval loss", event.step, event.loss, event.loss, event.loss, event.loss))
    return out.getvalue()
