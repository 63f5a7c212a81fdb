"""Remembers answers of the exact tier on the disk. A damaged or unwritable cache is none, and no error."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs
import xxhash

from ..rundir import write_atomically
from ..specs.workload import Workload
from ..stack import installed_version
from .wire import workload_to_json

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "triton")
_CODE = ("trace/*.py", "exact/wire.py")
"""Code whose change makes an old answer worthless."""


def key_of(workload: Workload, config: Mapping[str, Any]) -> str:
    """Return the name of an answer: whatever decides it is in there."""
    parts = {
        "workload": workload_to_json(workload),
        "config": dict(config),
        "versions": {name: installed_version(name) for name in LIBRARIES},
        "code": _code(),
    }
    return xxhash.xxh3_128_hexdigest(json.dumps(parts, sort_keys=True, default=str).encode())


def load(key: str) -> dict[str, Any] | None:
    """Return a remembered answer; ``None`` when there is none that can be read."""
    try:
        found = json.loads(_file(key).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def save(key: str, answer: Mapping[str, Any]) -> None:
    """Remember an answer; a disk that refuses is left alone."""
    file = _file(key)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(file, json.dumps(answer) + "\n")
    except OSError:
        return


def _file(key: str) -> Path:
    home = os.environ.get("FTWIZ_HOME")
    root = Path(home) if home else Path(platformdirs.user_cache_dir("ftwiz"))
    return root / "exact" / f"{key}.json"


def _code() -> str:
    engine = Path(__file__).resolve().parent.parent
    digest = xxhash.xxh3_64()
    for file in sorted(file for pattern in _CODE for file in engine.glob(pattern)):
        digest.update(file.read_bytes())
    return digest.hexdigest()
