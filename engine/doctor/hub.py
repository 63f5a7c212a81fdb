"""Hugging Face's hub: where its cache lies, whether it may be asked, and whether a token is there."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from .finding import Finding, note, ok, warning
from .patient import Patient

TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_TRUE = {"1", "ON", "YES", "TRUE"}


def home_folder(environ: Mapping[str, str]) -> Path:
    """Return HF_HOME as huggingface_hub 2 finds it."""
    cache = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return _expanded(environ.get("HF_HOME") or f"{cache}/huggingface", environ)


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder of downloaded models and data."""
    named = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE")
    return _expanded(named, environ) if named else home_folder(environ) / "hub"


def look(patient: Patient) -> Iterator[Finding]:
    """Report cache, offline state and token; of the token only that it is there."""
    environ = patient.environ
    cache = cache_folder(environ)
    number = 0
    with contextlib.suppress(OSError):
        number = sum(1 for entry in cache.iterdir() if entry.name.startswith("models--"))
    offline = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if _is_set(environ, name)]
    token = _token(environ)
    parts = [f"{number} model{'' if number == 1 else 's'} in {cache}", token or "no token"]
    if offline:
        yield note(
            f"offline: {', '.join(parts)}",
            evidence=f"{offline[0]}={environ[offline[0]]}",
            advice="models must be in the cache, or in a folder of yours; unset it to download",
            command=f"unset {' '.join(offline)}",
        )
    else:
        yield ok(", ".join(parts))
    if environ.get("TRANSFORMERS_CACHE"):
        yield warning(
            "TRANSFORMERS_CACHE is no longer read by transformers 5",
            advice="set HF_HUB_CACHE, or HF_HOME, to have models elsewhere",
            command="unset TRANSFORMERS_CACHE",
        )
    if environ.get("HF_HUB_ENABLE_HF_TRANSFER"):
        yield note("HF_HUB_ENABLE_HF_TRANSFER has no effect any more", advice="hf-xet does that work now")


def _token(environ: Mapping[str, str]) -> str | None:
    named = next((name for name in TOKENS if environ.get(name)), None)
    if named is not None:
        return f"a token in {named}"
    path = _expanded(environ.get("HF_TOKEN_PATH") or str(home_folder(environ) / "token"), environ)
    with contextlib.suppress(OSError):
        if path.stat().st_size > 0:
            return f"a token in {path}"
    return None


def _is_set(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "").upper() in _TRUE


def _expanded(path: str, environ: Mapping[str, str]) -> Path:
    home = environ.get("HOME")
    if home and (path == "~" or path.startswith("~/")):
        return Path(home, path[2:])
    return Path(path)
