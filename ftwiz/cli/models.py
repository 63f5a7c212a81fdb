"""The command about models: what is on this machine, what the catalogue knows, what a model is made of."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from ..engine.errors import BadInput
from ..engine.job.local_models import LocalModel, cached, folders, has_config, hub_cache
from ..engine.job.meta_count import with_exact_count
from ..engine.job.model_folder import folder_spec, hub_spec, read_config
from ..engine.models import Adapter, catalogue, num_trainable
from ..engine.models.catalogue import CatalogueModel
from ..engine.specs.model import ModelSpec
from ..tui.text import NOT_AVAILABLE, safe
from .follow import say

HEAD = ("MODEL", "PARAMETERS", "ACTIVE", "CONTEXT", "LICENCE", "GATED", "WHERE")
LICENCE_WIDTH = 28


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A model as one line of the list; unknown is ``None``."""

    id: str
    where: str
    """``folder``, ``cache``, ``cache, no weights`` or ``catalogue``."""
    spec: ModelSpec | None
    known: CatalogueModel | None
    problem: str | None = None


@click.command()
@click.argument("query", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list; of one named model, an object.")
def models(query: tuple[str, ...], *, as_json: bool) -> None:
    """List models by a part of their names: local folders and the Hugging Face cache, then the catalogue.

    A whole id, alias or folder shows what that model is made of. Nothing is downloaded.
    """
    text = " ".join(query)
    if text:
        one = _named(text)
        if one is not None:
            click.echo(json.dumps(_as_json(one, whole=True), indent=2) if as_json else _page(one))
            return
    rows = list(_rows(text))
    if as_json:
        click.echo(json.dumps([_as_json(row) for row in rows], indent=2))
        return
    if not rows:
        say([f"no model fits {text!r}; ftwiz models lists all that are known"])
        return
    for line in _aligned([HEAD, *map(_cells, rows)]):
        click.echo(line)


def _named(text: str) -> Row | None:
    """Return the model that is meant by its whole name, counted exactly, or ``None``."""
    folder = Path(os.path.expanduser(text))  # noqa: PTH111 - Path's raises for an unknown user's home
    known = catalogue.find(text)
    if has_config(folder):
        spec = folder_spec(folder)
        config = read_config(folder / "config.json")
        return Row(id=text, where="folder", spec=_counted(spec, config), known=None)
    local = {model.id.lower(): model for model in cached(hub_cache(os.environ))}.get(text.lower())
    if local is not None:
        spec_there = hub_spec(local.id)
        config = read_config(local.folder / "config.json")
        spec_there = _counted(spec_there, config) if spec_there else None
        return Row(id=local.id, where=_where(local), spec=spec_there, known=known)
    if known is None:
        return None
    return Row(
        id=known.id, where="catalogue", spec=_counted(catalogue.spec(known), known.config), known=known
    )


def _counted(spec: ModelSpec, config: Any) -> ModelSpec:
    return spec if spec.parameters else with_exact_count(spec, config)


def _rows(query: str) -> Iterator[Row]:
    here = Path.cwd()
    local = [*folders(here), *cached(hub_cache(os.environ))]
    seen: set[str] = set()
    for model in local:
        known = catalogue.find(model.id)
        name = _short_path(model.folder, here) if not model.is_cached else model.id
        if not catalogue.words_fit(query, (name, *(known.aliases if known else ()))):
            continue
        seen.add(model.id.lower())
        yield _local_row(model, name, known)
    for known in catalogue.search(query):
        if known.id.lower() not in seen:
            yield Row(id=known.id, where="catalogue", spec=catalogue.spec(known), known=known)


def _local_row(model: LocalModel, name: str, known: CatalogueModel | None) -> Row:
    """A configuration that cannot be read is a line with its reason, not the end of the list."""
    try:
        spec = hub_spec(model.id) if model.is_cached else folder_spec(model.folder, trust_remote_code=True)
    except BadInput as error:
        return Row(id=name, where=_where(model), spec=None, known=known, problem=error.message)
    return Row(id=name, where=_where(model), spec=spec, known=known)


def _where(model: LocalModel) -> str:
    place = "cache" if model.is_cached else "folder"
    return place if model.has_weights else f"{place}, no weights"


def _short_path(folder: Path, here: Path) -> str:
    return "." if folder == here else f"./{folder.relative_to(here)}"


def _parameters(row: Row) -> int | None:
    if row.spec and row.spec.num_parameters is not None:
        return row.spec.num_parameters
    return row.known.num_parameters if row.known else None


def _cells(row: Row) -> tuple[str, ...]:
    experts = row.spec.experts if row.spec else None
    active = row.spec.num_active_parameters if row.spec and experts else None
    context = row.spec.max_position_embeddings if row.spec else None
    return (
        row.id,
        _short(_parameters(row)),
        _short(active) if active else "-" if row.spec and row.spec.parameters else NOT_AVAILABLE,
        NOT_AVAILABLE if context is None else f"{context:,}",
        _cut((row.known and row.known.license) or NOT_AVAILABLE),
        _yes(row.known.gated if row.known else None),
        row.where if row.problem is None else f"{row.where}: unreadable",
    )


def _cut(text: str) -> str:
    return text if len(text) <= LICENCE_WIDTH else f"{text[: LICENCE_WIDTH - 3]}..."


def _yes(value: bool | None) -> str:  # noqa: FBT001 - a cell's value
    return NOT_AVAILABLE if value is None else "yes" if value else "no"


def _short(count: int | None) -> str:
    """Return a count with three digits and its unit: 8.03B."""
    if count is None:
        return NOT_AVAILABLE
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if count >= size:
            share = count / size
            return f"{share:.{2 if share < 10 else 1 if share < 100 else 0}f}{unit}"  # noqa: PLR2004 - three digits
    return f"{count:,}"


def _aligned(rows: list[tuple[str, ...]]) -> Iterator[str]:
    clean = [[safe(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*clean, strict=True)]
    for row in clean:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _page(row: Row) -> str:
    """Return what is known of one model."""
    lines = _aligned([(name, text) for name, text in _facts(row) if text])
    parts = [safe(row.id), *(f"  {line}" for line in lines)]
    if row.spec and row.spec.parameters:
        total = row.spec.parameters.groups.num_total
        found = [(name, count) for name, count in row.spec.parameters.groups.items() if count]
        found.append(("total", total))
        rows = [(name, f"{count:,}", f"{count / total:.1%}") for name, count in found]
        width = max(len(text) for _, text, _ in rows)
        parts += ["parameters", *(f"  {n:<22}{c:>{width}}  {share:>6}" for n, c, share in rows)]
        parts += ["trained with r=16", *(f"  {line}" for line in _trainable(row.spec))]
    elif row.spec:
        parts.append(f"parameters are not known: {safe(row.spec.unknown_reason or '')}")
    return "\n".join(parts)


def _facts(row: Row) -> list[tuple[str, str]]:
    spec, known = row.spec, row.known
    found: list[tuple[str, str]] = [("where", row.where)]
    if spec:
        shape = (spec.num_layers, spec.hidden_size, spec.num_heads, spec.num_kv_heads)
        names = ("layers", "wide", "heads", "key/value heads")
        described = [f"{count:,} {name}" for count, name in zip(shape, names, strict=True) if count]
        context = spec.max_position_embeddings
        found += [
            ("architecture", spec.architecture or spec.model_type),
            ("shape", ", ".join(described)),
            ("vocabulary", f"{spec.vocab_size:,}" if spec.vocab_size else ""),
            ("context", f"{context:,} tokens" if context else ""),
            ("experts", _experts(spec)),
            ("active", _short(spec.num_active_parameters) if spec.experts else ""),
        ]
    if known:
        found += [
            ("licence", f"{known.license or NOT_AVAILABLE} ({known.license_basis or 'no source'})"),
            ("gated", _yes(known.gated)),
            ("also", ", ".join(known.aliases)),
            ("sources", "; ".join(known.sources)),
        ]
    return found


def _experts(spec: ModelSpec) -> str:
    experts = spec.experts
    if experts is None:
        return ""
    return (
        f"{experts.num_experts:,}, of which a token uses {experts.num_experts_per_token}, "
        f"in {experts.num_layers} layers"
    )


def _trainable(spec: ModelSpec) -> Iterator[str]:
    for name, adapter in (
        ("LoRA, all-linear", Adapter()),
        ("LoRA, q_proj v_proj", Adapter(targets=("q_proj", "v_proj"))),
    ):
        found = num_trainable(spec, adapter)
        count = found.refusal or f"{found.num_parameters:,}"
        yield f"{name:<22}{count}"


def _as_json(row: Row, *, whole: bool = False) -> dict[str, Any]:
    spec, known = row.spec, row.known
    found: dict[str, Any] = {
        "id": row.id,
        "where": row.where,
        "num_parameters": _parameters(row),
        "num_active_parameters": spec.num_active_parameters if spec else None,
        "max_position_embeddings": spec.max_position_embeddings if spec else None,
        "license": known.license if known else None,
        "gated": known.gated if known else None,
        "aliases": known.aliases if known else [],
        "problem": row.problem,
    }
    if whole:
        found["spec"] = asdict(spec) if spec else None
        found["sources"] = known.sources if known else []
    return found
