"""A machine as a JSON file: what ``ftwiz devices --json`` prints on one box, another can plan with."""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from ..errors import BadInput
from ..specs.machine import DeviceReading, Machine

VERSION = 1
"""Of the file's form. Fields may be added without a new version; readers pass over what they do not know."""
MOST_BYTES = 8 << 20
_HINT = "write it with: ftwiz devices --json > machine.json"


def machine_to_json(machine: Machine, readings: Iterable[DeviceReading] = ()) -> str:
    """Return the file's text: the machine, and how busy its devices are where that is known."""
    body = {
        "version": VERSION,
        "machine": asdict(machine),
        "readings": [asdict(reading) for reading in readings],
    }
    return json.dumps(_finite(body), indent=2, allow_nan=False)


def machine_from_json(data: str | bytes, *, where: str) -> Machine:
    """Return the machine of a file's text; its readings are passed over.

    Raises:
        BadInput: It is no such file, or a value in it cannot be; the message names it.
    """
    if len(data) > MOST_BYTES:
        raise BadInput(f"{where}: longer than {MOST_BYTES >> 20} MiB, so no machine", hint=_HINT)
    try:
        body = json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: no JSON: {_one_line(error)}", hint=_HINT) from error
    if not isinstance(body, dict) or "version" not in body or not isinstance(body.get("machine"), dict):
        raise BadInput(f"{where}: no machine in it", hint=_HINT)
    if body["version"] != VERSION:
        raise BadInput(f"{where}: version {body['version']!r:.20} is not known, only {VERSION}", hint=_HINT)
    for path, value in _numbers(body["machine"], "machine"):
        if value < 0:
            raise BadInput(f"{where}: {path} is {value}, and nothing here is below 0", hint=_HINT)
    return _validated(body["machine"], where)


def _validated(body: dict[str, Any], where: str) -> Machine:
    from pydantic import TypeAdapter, ValidationError

    try:
        machine: Machine = TypeAdapter(Machine).validate_json(json.dumps(body), strict=True)
    except (ValidationError, RecursionError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        field = ".".join(map(str, ("machine", *first["loc"]))) if first else "machine"
        said = first["msg"] if first else "nested too deep"
        raise BadInput(f"{where}: {field}: {said}", hint=_HINT) from error
    if machine.num_nodes < 1:
        raise BadInput(f"{where}: machine.num_nodes is {machine.num_nodes}", hint=_HINT)
    return machine


def _numbers(value: object, path: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _numbers(item, f"{path}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _numbers(item, f"{path}.{index}")
    elif isinstance(value, (int, float)):
        yield path, value


def _finite(value: Any) -> Any:
    """Return the value with ``None`` for every float that JSON cannot hold."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number here")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
