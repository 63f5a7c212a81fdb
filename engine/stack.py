"""Which training libraries are installed here: looked up, never imported."""

from dataclasses import fields, replace
from importlib.metadata import PackageNotFoundError, version

from .specs.workload import Stack

LIBRARIES = tuple(field.name for field in fields(Stack) if field.default is not None)
"""Fields of ``Stack`` that are libraries: ftwiz is tested with a version of each."""


def installed_version(name: str) -> str | None:
    """Return the version of an installed distribution as it says it (``2.13.0+cpu``); ``None``: not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def installed_stack() -> Stack:
    """Return the versions of the installed libraries, and of missing ones those that ftwiz is tested with."""
    found = {name: installed_version(name) for name in LIBRARIES}
    return replace(Stack(), **{name: number.partition("+")[0] for name, number in found.items() if number})
