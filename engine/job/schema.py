"""The job's JSON schema, and what it says in words: the one source of ranges, choices and help texts."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from ..specs.job import ABSOLUTE_PATH, RUN_NAME, Job
from ..specs.method import INIT_WEIGHTS

_NOUNS = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "keys and values",
}
_PATTERNS = {
    RUN_NAME: "up to 64 letters, digits and ._- that begin with a letter or digit",
    ABSOLUTE_PATH: "a path that begins with /",
    INIT_WEIGHTS: "one of default, gaussian, pissa, pissa_niter_N",
}


@cache
def _schema() -> dict[str, Any]:
    return Job.model_json_schema()


def job_schema() -> dict[str, object]:
    """Return the JSON schema of the job file, for editors: what is allowed, and help on every key."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_schema(), "title": "ftwiz job"}


def _resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    if not reference:
        return schema
    found: Mapping[str, Any] = _schema()["$defs"][reference.rsplit("/", 1)[1]]
    return found


def known_part(keys: Sequence[str | int]) -> tuple[tuple[str, ...], Mapping[str, Any]]:
    """Return how much of a path of keys the schema knows by name, and the schema of that part."""
    schema: Mapping[str, Any] = _schema()
    known: list[str] = []
    for key in keys:
        properties = schema.get("properties", {})
        if key not in properties:
            break
        known.append(str(key))
        schema = _resolved(properties[key])
    return tuple(known), schema


def fields() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every key that holds a value, dotted, in the order of the file, with its schema."""
    for name, schema in _schema()["properties"].items():
        section = _resolved(schema)
        if "properties" not in section:
            yield name, schema
            continue
        for key, inner in section["properties"].items():
            yield f"{name}.{key}", inner


def allowed(schema: Mapping[str, Any]) -> str:
    """Return in words what a key may hold: ``auto or a number above 0 and at most 10``."""
    if "anyOf" in schema:
        parts = [allowed(part) for part in schema["anyOf"] if part.get("type") != "null"]
        return " or ".join(parts)
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    if "const" in schema:
        return str(schema["const"])
    kind = schema.get("type")
    if kind == "array":
        return "a list of numbers" if schema.get("items", {}).get("type") == "number" else "a list of text"
    if kind == "string":
        return _allowed_text(schema)
    noun = _NOUNS.get(str(kind), "a value")
    return f"{noun} {_range(schema)}".rstrip()


def choices(schema: Mapping[str, Any]) -> list[str]:
    """Return the words that a key may hold, when it takes words from a list."""
    parts = schema.get("anyOf", [schema])
    words = [word for part in parts for word in (*part.get("enum", ()), part.get("const"))]
    return [str(word) for word in words if word is not None]


def _allowed_text(schema: Mapping[str, Any]) -> str:
    if "pattern" in schema:
        return _PATTERNS[schema["pattern"]]
    low, high = schema.get("minLength", 0), schema.get("maxLength")
    return f"text of {low:,} to {high:,} characters" if high else "text"


def _range(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f"from {_figure(low)} to {_figure(high)}"
    bounds = {"above": above, "at least": low, "below": below, "at most": high}
    return " and ".join(f"{word} {_figure(bound)}" for word, bound in bounds.items() if bound is not None)


def _figure(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"
