"""The shape of a job's model: a local folder's config.json, the Hugging Face cache, or the catalogue.

Nothing in a folder is ever run.
"""

import json
import os
from pathlib import Path

from ..errors import BadInput
from ..models import TooLong, catalogue, spec_from_config
from ..specs.job import DEMO_MODEL, Job
from ..specs.model import ModelSpec
from .files import KIB, read_regular, reason_of, shown, shown_path
from .local_models import find_cached, hub_cache
from .paths import model_path, model_problem

_MAX_CONFIG_BYTES = 4 * KIB * KIB
_MAX_DIGITS = 40
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_NOT_WEIGHTS = frozenset({"training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt"})


def model_spec(job: Job) -> ModelSpec | None:
    """Return what a job's model looks like.

    A hub id is looked up in the Hugging Face cache first, then in the catalogue; ``None`` when it is in
    neither, and for ``ftwiz:demo``.

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
        return hub_spec(name, revision=job.model.revision)
    folder = Path(name)
    spec = folder_spec(folder, trust_remote_code=job.model.trust_remote_code)
    _refuse_pickles(folder)
    return spec


def folder_spec(folder: Path, *, trust_remote_code: bool = False) -> ModelSpec:
    """Return the shape of the model in a folder.

    Raises:
        BadInput: Its config.json is missing or cannot be trusted.
    """
    where = folder / "config.json"
    return spec_from_config(read_config(where), where=shown_path(where), trust_remote_code=trust_remote_code)


def hub_spec(hub_id: str, *, revision: str | None = None) -> ModelSpec | None:
    """Return the shape of a hub model from the cache or the catalogue, or ``None``.

    Raises:
        BadInput: The cached config.json cannot be trusted.
    """
    model = find_cached(hub_cache(os.environ), hub_id, revision=revision)
    if model is not None:
        where = model.folder / "config.json"
        # transformers has most of these models itself, and runs the code beside them only when it is told to.
        config = {key: value for key, value in read_config(where).items() if key != "auto_map"}
        return spec_from_config(config, where=shown_path(where))
    known = catalogue.find(hub_id) if revision is None else None
    return catalogue.spec(known) if known else None


def read_config(path: Path) -> dict[str, object]:
    """Return the contents of a config.json.

    Raises:
        BadInput: It is missing, no ordinary file, too large, or not JSON with keys.
    """
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
