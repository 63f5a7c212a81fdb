"""What the terminal of a command can do."""

import os
import sys


def on_a_terminal() -> bool:
    """Whether a full screen can be shown: it reads keys from stdin and is drawn on stderr."""
    streams = (sys.stdin, sys.stdout, sys.stderr)
    return all(stream.isatty() for stream in streams) and os.environ.get("TERM", "dumb") != "dumb"


def columns() -> int | None:
    """Return how wide the terminal is that stdout writes to; ``None`` for a file or a pipe."""
    return os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else None
