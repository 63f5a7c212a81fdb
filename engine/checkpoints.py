"""Says which checkpoints are whole: a manifest of every file, written last, is what makes one count.

Torch-free. The trainer writes ``checkpoint-N`` in place; until its manifest stands it is not a checkpoint for
anybody, so a run that is killed while saving leaves a folder that ``resume`` passes over and says why.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from .rundir import write_atomically

MANIFEST = "manifest.json"
VERSION = 1
_NAME = re.compile(r"^checkpoint-(\d{1,18})$")
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a look through a folder of checkpoints found."""

    newest: Path | None
    """The newest checkpoint that is whole."""
    skipped: tuple[tuple[Path, str], ...] = ()
    """Newer ones that are not, newest first, each with the reason."""


def step_of(folder: Path) -> int | None:
    """Return the optimizer step in the name ``checkpoint-STEP``; ``None`` for any other name."""
    match = _NAME.match(folder.name)
    return int(match[1]) if match else None


def write_manifest(folder: Path) -> int:
    """Write the name, size and hash of every file, after the files themselves are on the disk.

    Returns:
        Bytes of all files together.

    Raises:
        OSError: The disk is full or gone; then there is no manifest, and the checkpoint does not count.
    """
    entries: dict[str, dict[str, int | str]] = {}
    total = 0
    for path in _files(folder):
        _to_disk(path)
        size, digest = _measure(path)
        total += size
        entries[path.relative_to(folder).as_posix()] = {"size": size, "xxh3_128": digest}
    body = {"version": VERSION, "files": dict(sorted(entries.items()))}
    write_atomically(folder / MANIFEST, json.dumps(body, indent=1) + "\n")
    _to_disk(folder)
    return total


def verify(folder: Path) -> str | None:
    """Return why the checkpoint is not whole, in a few words, or ``None`` when it is.

    Every file is read and hashed. Files that the manifest does not name are passed over.
    """
    try:
        entries = _read_manifest(folder)
    except FileNotFoundError:
        return f"no {MANIFEST}: it was never finished"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be read: {error}"
    if not entries:
        return f"{MANIFEST} names no files"
    for name, (size, digest) in entries.items():
        if reason := _differs(folder / name, size, digest):
            return f"{name} {reason}"
    return None


def list_checkpoints(checkpoints: Path) -> list[Path]:
    """Return the folders named ``checkpoint-STEP``, newest step first, whole or not."""
    if not checkpoints.is_dir():
        return []
    steps = [(step, path) for path in checkpoints.iterdir() if (step := step_of(path)) is not None]
    return [path for _, path in sorted(steps, reverse=True) if path.is_dir()]


def look(checkpoints: Path) -> Found:
    """Find the newest whole checkpoint, and say of every newer one why it was skipped."""
    skipped: list[tuple[Path, str]] = []
    for folder in list_checkpoints(checkpoints):
        reason = verify(folder)
        if reason is None:
            return Found(newest=folder, skipped=tuple(skipped))
        skipped.append((folder, reason))
    return Found(newest=None, skipped=tuple(skipped))


def newest_whole(checkpoints: Path) -> Path | None:
    """Return the newest checkpoint that is whole."""
    return look(checkpoints).newest


def surplus(newest: Path, *, limit: int) -> list[Path]:
    """Return the checkpoints older than ``newest`` that may go, so that ``limit`` remain with it.

    Called when the manifest of ``newest`` stands. Folders of later steps are left alone: a run that was
    resumed from before them will write over them. Older ones without a manifest go first.
    """
    assert (newest / MANIFEST).is_file(), newest
    folders = list_checkpoints(newest.parent)
    older = folders[folders.index(newest) + 1 :]
    kept = [folder for folder in older if (folder / MANIFEST).is_file()][: limit - 1]
    return [folder for folder in older if folder not in kept]


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        temporary = path.name.startswith(f".{MANIFEST}.")
        if path.is_file() and path.relative_to(folder).as_posix() != MANIFEST and not temporary:
            yield path


def _measure(path: Path) -> tuple[int, str]:
    digest, size = xxhash.xxh3_128(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_manifest(folder: Path) -> dict[str, tuple[int, str]]:
    body: Any = json.loads((folder / MANIFEST).read_text(encoding="utf8"))
    if body["version"] != VERSION:
        raise ValueError(f"version {body['version']} is not {VERSION}")
    return {name: (entry["size"], entry["xxh3_128"]) for name, entry in body["files"].items()}


def _differs(path: Path, size: int, digest: str) -> str | None:
    try:
        found = path.stat().st_size
        if found != size:
            return f"has {found} bytes, not {size}"
        return None if _measure(path) == (size, digest) else "was changed after it was saved"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
