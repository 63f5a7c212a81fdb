"""Run the command line with ``python -m ftwiz``."""

from .cli import main

main()
