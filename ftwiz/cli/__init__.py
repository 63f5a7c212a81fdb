"""The command line: parses, calls one room, prints what went wrong, and knows the exit code.

Nothing is imported here that a bare ``python -c pass`` does not: help and version answer from a file, and
every other command imports its own room only.
"""

import sys


def main() -> None:
    """Run ``ftwiz`` and leave with its exit code."""
    arguments = sys.argv[1:]
    if arguments in (["--help"], ["-h"]):
        _print_help()
    elif arguments == ["--version"]:
        from .. import __version__

        sys.stdout.write(f"ftwiz {__version__}\n")
    else:
        from .group import run_group

        sys.exit(run_group(arguments))


def _print_help() -> None:
    # click alone costs three bare Python starts; tests/cli/test_help.py keeps the file true.
    with open(f"{__path__[0]}/help.txt", encoding="utf8") as file:  # noqa: PTH123 - pathlib costs a start too
        sys.stdout.write(file.read())
