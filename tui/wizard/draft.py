"""The answers so far, kept in a file: a connection that is lost loses none of them."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from ...engine.calibration import calibration_file
from ...engine.rundir import write_atomically
from .state import GOAL_WORDS, GOALS, KINDS, METHODS, Answers

NAME = "wizard-draft.json"
MOST_BYTES = 100_000


def draft_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the answers are kept: beside ftwiz's other notes on this machine."""
    return calibration_file(environ).with_name(NAME)


def keep(answers: Answers, path: Path) -> None:
    """Keep answers. A disk that is full or not ours costs the draft, and never the wizard."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(asdict(answers)))


def kept(path: Path) -> Answers | None:
    """Return what was kept; ``None`` when there is nothing, or nothing that can be used."""
    try:
        if path.stat().st_size > MOST_BYTES:
            return None
        found = json.loads(path.read_text(encoding="utf8"))
        answers = Answers(**found)
    except (OSError, ValueError, TypeError):
        return None
    is_text = all(isinstance(value, str) for value in found.values())
    is_known = answers.method in {*METHODS, *KINDS} and answers.goal in {*GOALS, *GOAL_WORDS}
    return answers if is_text and is_known else None


def forget(path: Path) -> None:
    """Remove what was kept."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
