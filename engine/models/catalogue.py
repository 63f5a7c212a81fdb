"""Models that ftwiz knows without a download: facts with sources, and a search over their names."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path
from typing import Any

from ..specs.model import ModelSpec
from .config import spec_from_config

FILE = Path(__file__).with_name("catalogue.json")
CLOSE = 0.75
"""How like a name a misspelt query must be, of 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogueModel:
    """One row of the catalogue. Unknown is ``None``."""

    id: str
    """On the Hugging Face hub."""
    aliases: tuple[str, ...]
    """Other ids of the same shape: chat versions, copies, distilled models."""
    family: str
    size_label: str | None = None
    """As its makers call it."""
    torch_dtype: str | None = None
    """Of its weights on the hub."""
    license: str | None = None
    license_basis: str | None = None
    """Where that is known from; ``recalled`` is nobody's statement."""
    gated: bool | None = None
    """It is only given to those who ask for it."""
    gated_basis: str | None = None
    num_parameters: int
    """As transformers builds it, counted on the meta device."""
    is_surrogate: bool = False
    """The configuration is one that transformers can build in place of the model's own code."""
    sources: tuple[str, ...]
    config: Mapping[str, object]
    """What its config.json says of shapes."""


@cache
def models() -> tuple[CatalogueModel, ...]:
    """Return the catalogue."""
    rows: list[dict[str, Any]] = json.loads(FILE.read_bytes())["models"]
    return tuple(
        CatalogueModel(**row | {"aliases": tuple(row["aliases"]), "sources": tuple(row["sources"])})
        for row in rows
    )


def find(name: str) -> CatalogueModel | None:
    """Return the model of a hub id or alias; upper and lower case are one."""
    return _by_name().get(name.lower())


def spec(model: CatalogueModel) -> ModelSpec:
    """Return the shape of a model of the catalogue."""
    return spec_from_config(model.config, where=model.id)


def search(query: str) -> tuple[CatalogueModel, ...]:
    """Return the models that fit a query, the best first; all of them for an empty query.

    Every word must be part of a name; when no model has them all, names like the query count.
    """
    words = _words(query)
    hits = [model for model in models() if all(word in _text(model) for word in words)]
    if hits or not words:
        return tuple(sorted(hits, key=lambda model: _rank(model, words)))
    likeness = {model.id: _likeness(model, "".join(words)) for model in models()}
    near = [model for model in models() if likeness[model.id] >= CLOSE]
    return tuple(sorted(near, key=lambda model: -likeness[model.id]))


def words_fit(query: str, names: Iterable[str]) -> bool:
    """Say whether every word of a query is part of one of these names, written without dashes."""
    text = " ".join(_plain(name) for name in names)
    return all(word in text for word in _words(query))


@cache
def _by_name() -> dict[str, CatalogueModel]:
    # An id counts before the aliases of others.
    named = {alias.lower(): model for model in models() for alias in model.aliases}
    return named | {model.id.lower(): model for model in models()}


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "", text.lower())


def _words(query: str) -> list[str]:
    return [word for part in query.split() if (word := _plain(part))]


def _text(model: CatalogueModel) -> str:
    return " ".join(map(_plain, (model.id, *model.aliases, model.family)))


def _rank(model: CatalogueModel, words: list[str]) -> tuple[bool, int]:
    """Its own id before an alias, and the shortest id first; the catalogue's order without a query."""
    own = _plain(model.id)
    return (not all(word in own for word in words), len(own) if words else 0)


def _likeness(model: CatalogueModel, query: str) -> float:
    names = (_plain(name.rpartition("/")[2]) for name in (model.id, *model.aliases))
    return max(SequenceMatcher(None, query, name).ratio() for name in names)
