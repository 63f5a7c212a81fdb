"""Runs a command in a real pseudo terminal and renders what it shows to a PNG.

    python bench/screenshot.py --size 120x40 --out monitor.png -- ftwiz watch
    python bench/screenshot.py --size 80x24 --keys '4' --out samples.png -- ftwiz watch my-run

The terminal is pyte, the picture an exact grid of cells; braille is drawn as dots, since the usual
monospace fonts have none. For the README and for looking at what was built. Also prints how many bytes a
second the command sent after its first picture.
"""

import argparse
import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time
from dataclasses import dataclass, field

import pyte
from PIL import Image, ImageDraw, ImageFont

CELL = (9, 18)
FONT_SIZE = 15
BACKGROUND, FOREGROUND = "121212", "d0d0d0"
FONTS = "/usr/share/fonts/truetype/dejavu/DejaVuSansMono{}.ttf"
BASIC = dict(
    zip(
        ("black", "red", "green", "brown", "blue", "magenta", "cyan", "white"),
        ("000000", "cd3131", "0dbc79", "e5e510", "2472c8", "bc3fbc", "11a8cd", "e5e5e5"),
        strict=True,
    )
)
ANSWERS = {
    b"\x1b[?2026$p": b"\x1b[?2026;2$y",
    b"\x1b[?2048$p": b"\x1b[?2048;0$y",
    b"\x1b[c": b"\x1b[?62;22c",
    b"\x1b[6n": b"\x1b[1;1R",
}
PRIVATE = re.compile(rb"\x1b\[[?<>=][0-9;]*[a-zA-Z$]+[a-z]?")
LEAVE = b"\x1b[?1049l"


@dataclass
class Terminal:
    """A command in a pseudo terminal that answers as a modern one does."""

    command: list[str]
    columns: int
    rows: int
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Start the command."""
        self.output = bytearray()
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            time.sleep(0.05)  # until the size is set
            os.execvpe(self.command[0], self.command, self._environment())  # noqa: S606
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", self.rows, self.columns, 0, 0))

    def _environment(self) -> dict[str, str]:
        # As over SSH: a terminal type and nothing about colours.
        kept = {name: value for name, value in os.environ.items() if name not in {"COLORTERM", "TMUX"}}
        return kept | {"TERM": "xterm-256color", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"} | self.env

    def listen(self, seconds: float) -> int:
        """Read for so long; returns the number of bytes that came."""
        end, before = time.monotonic() + seconds, len(self.output)
        while (left := end - time.monotonic()) > 0:
            if not select.select([self.descriptor], [], [], left)[0]:
                break
            try:
                data = os.read(self.descriptor, 1 << 16)
            except OSError:
                break
            if not data:
                break
            self.output += data
            for question, answer in ANSWERS.items():
                if question in data:
                    os.write(self.descriptor, answer)
        return len(self.output) - before

    def press(self, keys: str) -> None:
        """Type; escapes such as those of tab and esc are understood."""
        os.write(self.descriptor, keys.encode().decode("unicode_escape").encode())

    def screen(self) -> pyte.Screen:
        """Return what stands on the screen now (before it was left, when the command has ended)."""
        shown = bytes(self.output)
        left = shown.rfind(LEAVE)
        screen = pyte.Screen(self.columns, self.rows)
        pyte.ByteStream(screen).feed(PRIVATE.sub(b"", shown[:left] if left > 0 else shown))
        return screen

    def close(self) -> None:
        """Hang up."""
        os.close(self.descriptor)
        os.waitpid(self.pid, 0)


def render(screen: pyte.Screen) -> Image.Image:
    """Draw the cells of a screen."""
    width, height = CELL
    image = Image.new("RGB", (screen.columns * width, screen.lines * height), f"#{BACKGROUND}")
    draw = ImageDraw.Draw(image)
    fonts = [ImageFont.truetype(FONTS.format(style), FONT_SIZE) for style in ("", "-Bold")]
    for y in range(screen.lines):
        for x in range(screen.columns):
            cell = screen.buffer[y][x]
            colours = _colour(cell.fg, FOREGROUND), _colour(cell.bg, BACKGROUND)
            ink, paper = reversed(colours) if cell.reverse else colours
            left, top = x * width, y * height
            draw.rectangle([left, top, left + width - 1, top + height - 1], fill=paper)
            _draw_character(draw, cell.data, (left, top), ink=ink, font=fonts[cell.bold])
    return image


def _draw_character(
    draw: ImageDraw.ImageDraw,
    text: str,
    corner: tuple[int, int],
    *,
    ink: str,
    font: ImageFont.FreeTypeFont,
) -> None:
    pattern = ord(text[0]) - 0x2800 if text else -1
    if not 0 <= pattern <= 0xFF:  # noqa: PLR2004 - the braille block
        if text.strip():
            draw.text(corner, text, font=font, fill=ink)
        return
    places = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3))
    for bit, (right, down) in enumerate(places):
        if pattern >> bit & 1:
            x, y = corner[0] + CELL[0] * (0.25 + 0.5 * right), corner[1] + CELL[1] * (0.125 + 0.25 * down)
            draw.ellipse([x - 1.4, y - 1.4, x + 1.4, y + 1.4], fill=ink)


def _colour(name: str, default: str) -> str:
    return "#" + (default if name == "default" else BASIC.get(name.removeprefix("bright"), name))


def main() -> None:
    """Run, press the keys, wait, draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--size", default="120x40")
    parser.add_argument("--seconds", type=float, default=3.0, help="until the picture is taken")
    parser.add_argument("--keys", default="", help="pressed half-way; each waits a moment")
    parser.add_argument("--measure", type=float, default=0.0, help="then count bytes for so many seconds")
    parser.add_argument("--env", action="append", default=[])
    parser.add_argument("--out", required=True)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    columns, rows = map(int, options.size.split("x"))
    env = dict(pair.split("=", 1) for pair in options.env)
    terminal = Terminal(options.command, columns, rows, env)
    terminal.listen(options.seconds)
    for key in options.keys.split(" ") if options.keys else ():
        terminal.press(key)
        terminal.listen(0.7)
    render(terminal.screen()).save(options.out)
    if options.measure:
        count = terminal.listen(options.measure)
        sys.stdout.write(f"{count / options.measure:.0f} bytes/s\n")
    terminal.close()


if __name__ == "__main__":
    main()
