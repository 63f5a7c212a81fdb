"""Which model a command means: a local folder, the Hugging Face cache or the catalogue, counted."""

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..engine.errors import BadInput
from ..engine.job.files import shown, shown_path
from ..engine.job.local_models import find_cached, hub_cache
from ..engine.job.meta_count import with_exact_count
from ..engine.job.model_folder import read_config
from ..engine.job.paths import model_path, model_problem
from ..engine.models import catalogue, spec_from_config
from ..engine.specs.job import DEMO_MODEL
from ..engine.specs.model import ModelSpec

MOST_NEAR = 3
MOST_NAME = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedModel:
    """A model with all its parameters known."""

    id: str
    where: str
    """``folder``, ``cache`` or ``catalogue``."""
    spec: ModelSpec
    config: Mapping[str, object]
    """Its config.json."""


def named_model(text: str) -> NamedModel:
    """Return the model of a folder, hub id or alias, with its parameters counted.

    Raises:
        BadInput: There is none, its configuration cannot be trusted, or nobody can count it.
    """
    id_, where, source, config = _found(text)
    # Nothing of the model is run here, so that code which comes with it does not matter.
    plain = {key: value for key, value in config.items() if key != "auto_map"}
    spec = spec_from_config(plain, where=source)
    if spec.parameters is None and not _is_defect(spec) and _is_known_to_transformers(spec.model_type):
        from .follow import say

        say([f"counting {shown(text)} with transformers, which takes some seconds"])
        spec = with_exact_count(spec, plain)
    if spec.parameters is None:
        raise BadInput(
            f"{source}: the parameters are not known: {spec.unknown_reason}",
            hint="see which models are: ftwiz models",
        )
    for field in ("num_layers", "hidden_size", "vocab_size"):
        if getattr(spec, field) is None:
            raise BadInput(f"{source}: {field.replace('num_layers', 'num_hidden_layers')} is missing")
    return NamedModel(id=id_, where=where, spec=spec, config=plain)


def _found(text: str) -> tuple[str, str, str, Mapping[str, object]]:
    """Return name, kind of place, what messages call it, and configuration."""
    if not text.strip() or (len(text) > MOST_NAME and "/" not in text):
        raise BadInput(f"MODEL: {shown(text)} is no model's name", hint="list models with: ftwiz models")
    name = model_path(text, Path.cwd())
    if name == DEMO_MODEL:
        raise BadInput(f"{DEMO_MODEL} is built when it is trained, and fits everywhere")
    if name.startswith("/"):
        problem = model_problem(name)
        if problem:
            raise BadInput(f"MODEL: {problem}", hint="list models with: ftwiz models")
        path = Path(name) / "config.json"
        return text, "folder", shown_path(path), read_config(path)
    problem = model_problem(name)
    cached = None if problem else find_cached(hub_cache(os.environ), name)
    if cached is not None:
        path = cached.folder / "config.json"
        return cached.id, "cache", shown_path(path), read_config(path)
    known = catalogue.find(name)
    if known is None:
        raise BadInput(f"MODEL: {problem or _nowhere(name)}", hint=_nearest(name))
    return name, "catalogue", known.id, known.config


def _nowhere(name: str) -> str:
    return f"{shown(name)} is neither here nor in the Hugging Face cache nor in the catalogue"


def _nearest(name: str) -> str:
    near = [model.id for model in catalogue.search(name[:MOST_NAME])][:MOST_NEAR]
    if near:
        return f"did you mean {' or '.join(near)}?"
    return "list models with: ftwiz models; of any other give a folder that holds its config.json"


def _is_defect(spec: ModelSpec) -> bool:
    """Whether the file lacks something, so that transformers would only count its own defaults."""
    return any(words in (spec.unknown_reason or "") for words in ("missing", "does not name", "not between"))


def _is_known_to_transformers(model_type: str) -> bool:
    """Whether the installed transformers has such a model: read from its table, not imported."""
    package = importlib.util.find_spec("transformers")
    places = package.submodule_search_locations if package else None
    for place in places or ():
        try:
            table = (Path(place) / "models" / "auto" / "auto_mappings.py").read_text(encoding="utf8")
        except OSError:
            return True  # another version keeps it elsewhere: let it speak for itself
        return f'("{model_type}", ' in table
    return False
