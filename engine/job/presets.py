"""Presets: job files that come with ftwiz."""

from collections.abc import Sequence
from pathlib import Path

from ..errors import BadInput
from .files import shown
from .loader import LoadedJob, load_file
from .messages import nearest
from .tree import Source

_FOLDER = Path(__file__).parents[2] / "presets"


def preset_names() -> tuple[str, ...]:
    """Return the names that ``load_preset`` knows, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


def load_preset(name: str, overrides: Sequence[str] = ()) -> LoadedJob:
    """Read a preset.

    Args:
        name: One of ``preset_names()``.
        overrides: As for ``load_job``.

    Raises:
        BadInput: No such preset, or an override is wrong.
    """
    names = preset_names()
    if name not in names:
        raise BadInput(f"no preset {shown(name)}{nearest(name, names)}", hint=f"presets: {', '.join(names)}")
    return load_file(_FOLDER / f"{name}.yaml", overrides=overrides, source=Source.PRESET)


def preset_summary(name: str) -> str:
    """Return the first sentence of a preset's comment: what it is for."""
    lines = (_FOLDER / f"{name}.yaml").read_text(encoding="utf8").partition("version:")[0].splitlines()
    words = " ".join(line.strip("# ") for line in lines if not line.startswith("# ftwiz "))
    return words.strip().partition(". ")[0].partition(": ")[0].rstrip(".:")
