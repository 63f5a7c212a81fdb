"""Which training libraries are installed here: looked up, never imported."""

from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version

from .specs.workload import Stack


def installed_stack() -> Stack:
    """Return the versions of the installed libraries, and of missing ones those that ftwiz is tested with."""
    found = {field.name: _version(field.name) for field in fields(Stack)}
    return Stack(**{name: number for name, number in found.items() if number is not None})


def _version(name: str) -> str | None:
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return None
