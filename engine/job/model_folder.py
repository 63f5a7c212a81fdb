"""The shape of a job's model, from a local folder's config.json. Nothing in the folder is ever run."""

import json
import os
from pathlib import Path

from ..errors import BadInput
from ..models import TooLong, spec_from_config
from ..specs.job import DEMO_MODEL, Job
from ..specs.model import ModelSpec
from .files import KIB, read_regular, reason_of, shown, shown_path
from .paths import model_path, model_problem

_MAX_CONFIG_BYTES = 4 * KIB * KIB
_MAX_DIGITS = 40
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_NOT_WEIGHTS = frozenset({"training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt"})


def model_spec(job: Job) -> ModelSpec | None:
    """Return what a job's model looks like, or ``None`` for a hub id and for ``ftwiz:demo``.

    Raises:
        BadInput: The folder is missing, its config.json cannot be trusted, or its weights are pickles.
    """
    name = model_path(job.model.name_or_path, Path.cwd())
    if name == DEMO_MODEL:
        return None
    problem = model_problem(name)
    if problem:
        raise BadInput(f"model.name_or_path: {problem}")
    if not name.startswith("/"):
        return None
    folder = Path(name)
    where = folder / "config.json"
    spec = spec_from_config(
        _config(where), where=shown_path(where), trust_remote_code=job.model.trust_remote_code
    )
    _refuse_pickles(folder)
    return spec


def _config(path: Path) -> dict[str, object]:
    where = shown_path(path)
    data = read_regular(path, limit_bytes=_MAX_CONFIG_BYTES, what="a model's configuration")
    if not data.strip():
        raise BadInput(f"{where}: is empty")
    try:
        config = json.loads(data.decode("utf-8-sig"), parse_int=_whole)
    except RecursionError:
        raise BadInput(f"{where}: is nested too deep") from None
    except UnicodeDecodeError:
        raise BadInput(f"{where}: is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise BadInput(f"{where}:{error.lineno}: not valid JSON: {error.msg.lower()}") from None
    if not isinstance(config, dict):
        raise BadInput(f"{where}: must hold keys and values; it holds {shown(config)}")
    return config


def _whole(digits: str) -> int | TooLong:
    return int(digits) if len(digits) <= _MAX_DIGITS else TooLong(num_digits=len(digits))


def _refuse_pickles(folder: Path) -> None:
    """Pickled weights can run code when they are loaded; safetensors cannot."""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - names are wanted, not paths
    except OSError as error:
        raise BadInput(f"{shown_path(folder)}: {reason_of(error)}") from None
    if any(name.endswith(".safetensors") for name in names):
        return
    pickles = [name for name in names if name.endswith(_PICKLES) and name not in _NOT_WEIGHTS]
    if pickles:
        raise BadInput(
            f"{shown_path(folder / pickles[0])}: weights as a pickle can run code when loaded; "
            "ftwiz takes safetensors only",
            hint="get the model's safetensors files, or convert it where you trust it",
        )
