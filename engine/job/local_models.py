"""Models on this machine: folders with a config.json, and the Hugging Face cache, read without its code."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

MAX_LISTED = 2000
"""Models of a cache or folder that are looked at; more would make a list nobody reads."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalModel:
    """A model whose configuration is on this machine."""

    id: str
    """Hub id, or the folder's path."""
    folder: Path
    """Holds config.json."""
    has_weights: bool
    is_cached: bool
    """It is in the Hugging Face cache."""


def hub_cache(environ: Mapping[str, str]) -> Path:
    """Return where the Hugging Face libraries keep what they download."""
    named = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE")
    if named:
        return Path(_expanded(named, environ))
    home = environ.get("HF_HOME")
    if home:
        return Path(_expanded(home, environ)) / "hub"
    cache = environ.get("XDG_CACHE_HOME") or f"{environ.get('HOME', '~')}/.cache"
    return Path(_expanded(cache, environ)) / "huggingface" / "hub"


def cached(cache: Path) -> tuple[LocalModel, ...]:
    """Return the models in a Hugging Face cache, by id. Never raises: an unreadable cache is empty."""
    folders = sorted(_children(cache))[:MAX_LISTED]
    found = (find_cached(cache, _id(name)) for name in folders if name.startswith("models--"))
    return tuple(model for model in found if model is not None)


def find_cached(cache: Path, hub_id: str, *, revision: str | None = None) -> LocalModel | None:
    """Return a model of the cache, or ``None`` when its configuration is not there.

    Args:
        cache: The cache's folder.
        hub_id: For example ``Qwen/Qwen3-0.6B``.
        revision: Branch, tag or commit; ``main`` when absent.
    """
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    commit = _commit(repository, revision or "main")
    folder = repository / "snapshots" / commit if commit else None
    if folder is None or not has_config(folder):
        return None
    return LocalModel(id=hub_id, folder=folder, has_weights=_has_weights(folder), is_cached=True)


def folders(root: Path) -> tuple[LocalModel, ...]:
    """Return the models that stand in a folder: itself, or its direct children."""
    candidates = [root, *(root / name for name in sorted(_children(root))[:MAX_LISTED])]
    return tuple(
        LocalModel(id=str(folder), folder=folder, has_weights=_has_weights(folder), is_cached=False)
        for folder in candidates
        if has_config(folder)
    )


def _commit(repository: Path, revision: str) -> str | None:
    if _COMMIT.fullmatch(revision):
        return revision
    if "/" in revision or ".." in revision:  # such a branch is a path below refs, and not worth a guess
        return None
    try:
        text = (repository / "refs" / revision).read_text(encoding="ascii")[:64].strip()
    except (OSError, ValueError):
        return None
    return text if _COMMIT.fullmatch(text) else None


def _id(name: str) -> str:
    return name.removeprefix("models--").replace("--", "/")


def _expanded(text: str, environ: Mapping[str, str]) -> str:
    return text.replace("~", environ.get("HOME", "~"), 1) if text.startswith("~") else text


def _has_weights(folder: Path) -> bool:
    return any(name.endswith(_WEIGHTS) for name in _children(folder))


def _children(folder: Path) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry.name for entry in entries)
    except (OSError, ValueError):
        return


def has_config(folder: Path) -> bool:
    """Say whether a folder holds a model's configuration."""
    return _is_file(folder / "config.json")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
