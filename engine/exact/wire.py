"""A workload as JSON: what the exact tier's two processes say to each other. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from ..errors import BadInput
from ..specs.adapter import Adapter
from ..specs.model import ModelSpec
from ..specs.workload import Quantization, Sharding, Stack, Workload

_NESTED: dict[str, type] = {
    "adapter": Adapter,
    "quantization": Quantization,
    "sharding": Sharding,
    "stack": Stack,
}


def workload_to_json(workload: Workload) -> dict[str, Any]:
    """Return a workload as plain values; of its model only the type, since the trace reads config.json."""
    values = {
        field.name: getattr(workload, field.name) for field in fields(Workload) if field.name != "model"
    }
    for name in _NESTED:
        values[name] = None if values[name] is None else asdict(values[name])
    return {"model_type": workload.model.model_type, **values}


def workload_from_json(values: Mapping[str, Any]) -> Workload:
    """Return the workload that ``workload_to_json`` wrote.

    Raises:
        BadInput: A key is unknown or missing.
    """
    rest = dict(values)
    model = ModelSpec(model_type=str(rest.pop("model_type", "")))
    for name, kind in _NESTED.items():
        if rest.get(name) is not None:
            rest[name] = _make(kind, rest[name])
    made: Workload = _make(Workload, {**rest, "model": model})
    return made


def _make(kind: type, values: Mapping[str, Any]) -> Any:
    known = {field.name for field in fields(kind)}
    if unknown := sorted(set(values) - known):
        raise BadInput(f"a {kind.__name__.lower()} has no {unknown[0]!r}")
    try:
        return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
    except TypeError as error:
        raise BadInput(f"a {kind.__name__.lower()} is incomplete: {error}") from error
