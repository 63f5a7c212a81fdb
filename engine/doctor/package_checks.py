"""Installed packages against the ranges that ftwiz is tested with, and against known security holes."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from .finding import Finding, error, ok, warning
from .patient import Patient

TRAIN, OPTIONAL = "train", ("deepspeed", "quant")
"""Extras of ftwiz: what a rank imports always, and only for some plans."""
UNTESTED = ("flash-attn", "liger-kernel", "unsloth")
"""Packages that a run may use and that ftwiz declares no range for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Floor:
    """A version below which a package is unsafe."""

    package: str
    version: str
    what: str
    source: str


FLOORS = (
    Floor(
        package="transformers",
        version="5.3.0",
        what="a model's config.json can run code of its author, even with trust_remote_code off",
        source="CVE-2026-4372, CVE-2026-5241",
    ),
    Floor(
        package="torch",
        version="2.10",
        what="a checkpoint of somebody else can run code when it is loaded, also with weights_only",
        source="CVE-2025-32434, CVE-2026-24747",
    ),
)


def look(patient: Patient) -> Iterator[Finding]:
    """Compare installed versions with the ranges that ftwiz declares."""
    required = declared(TRAIN)
    missing = [one.name for one in required if canonicalize_name(one.name) not in patient.versions]
    if missing:
        yield error(
            f"the training stack is not complete: {', '.join(missing)} missing",
            evidence=f"looked for by {sys.executable}",
            advice="install ftwiz with its extra; planning and watching work without it",
            command=install_command(),
        )
    # an extra that builds on another one repeats what that asks for
    known = {one.name for one in required}
    optional = [one for extra in OPTIONAL for one in declared(extra) if one.name not in known]
    outside = [one for one in required + optional if _is_outside(one, patient.versions)]
    for one in outside:
        yield warning(
            f"{one.name} {patient.versions[canonicalize_name(one.name)]} is not a tested version",
            evidence=f"ftwiz is tested with {one.name} {one.specifier}",
            advice="install a tested one",
            command=f"{_pip()} '{one.name}{one.specifier}'",
        )
    there = [one.name for one in required if one.name not in missing and one not in outside]
    if there:
        yield ok(f"tested versions: {_with_versions(there, patient)}")
    yield from _optional(patient, [one.name for one in optional if one not in outside])


def look_for_holes(patient: Patient) -> Iterator[Finding]:
    """Report packages with known holes that a model or a checkpoint can reach."""
    for floor in FLOORS:
        installed = patient.versions.get(floor.package)
        if installed is not None and _is_older(installed, floor.version):
            yield warning(
                f"{floor.package} {installed}: {floor.what}",
                evidence=f"{floor.source}; mended in {floor.version}",
                advice="update it before loading models or checkpoints that you did not make",
                command=f"{_pip()} '{floor.package}>={floor.version}'",
            )


def look_at_companions(patient: Patient) -> Iterator[Finding]:
    """Report packages with compiled code that does not fit the installed torch."""
    torch = patient.torch
    broken = dict(torch.companions) if torch is not None else {}
    for name, failure in broken.items():
        if failure is not None:
            version = patient.versions.get(name.replace("_", "-"), "")
            yield _broken(name, f"{name} {version}".strip(), failure)
    for name in ("torchvision", "torchaudio"):
        wanted = _pinned_torch(name)
        here = patient.versions.get("torch")
        if broken.get(name) is None and wanted and here and _public(here) != _public(wanted):
            yield _broken(
                name, f"{name} {patient.versions.get(name, '')}", f"it wants torch {wanted}, here is {here}"
            )


def declared(extra: str) -> list[Requirement]:
    """Return what an extra of the installed ftwiz asks for, without ftwiz itself."""
    try:
        texts = metadata.requires("ftwiz") or []
    except metadata.PackageNotFoundError:
        return []
    found = []
    for text in texts:
        try:
            one = Requirement(text)
        except InvalidRequirement:
            continue
        named = one.marker is not None and one.marker.evaluate({"extra": extra})
        if named and not (one.marker and one.marker.evaluate({"extra": ""})) and one.name != "ftwiz":
            found.append(one)
    return found


def install_command() -> str:
    """Return the command that brings the training stack into the running Python."""
    return f"{_pip()} 'ftwiz[{TRAIN}]'"


def _pip() -> str:
    # uv keeps its environments without pip, and its own command finds them by the interpreter.
    if find_spec("pip"):
        return f"{sys.executable} -m pip install"
    return f"uv pip install --python {sys.executable}"


def _optional(patient: Patient, declared_names: list[str]) -> Iterator[Finding]:
    names = [*declared_names, *UNTESTED]
    there = [name for name in names if name in patient.versions]
    absent = [name for name in names if name not in patient.versions]
    if there:
        yield ok(f"optional: {_with_versions(there, patient)}")
    if absent:
        yield ok(f"optional, not installed: {', '.join(absent)}")


def _with_versions(names: list[str], patient: Patient) -> str:
    return ", ".join(f"{name} {patient.versions.get(canonicalize_name(name), '')}" for name in names)


def _is_outside(one: Requirement, versions: Mapping[str, str]) -> bool:
    installed = versions.get(canonicalize_name(one.name))
    try:
        return installed is not None and not one.specifier.contains(installed, prereleases=True)
    except InvalidVersion:
        return True


def _is_older(installed: str, floor: str) -> bool:
    try:
        return Version(installed) < Version(floor)
    except InvalidVersion:
        return False


def _pinned_torch(package: str) -> str | None:
    """Return the one version of torch that a package's metadata asks for."""
    try:
        texts = metadata.requires(package) or []
    except metadata.PackageNotFoundError:
        return None
    for text in texts:
        name, _, version = text.partition(";")[0].replace("(", "").replace(")", "").partition("==")
        if name.strip() == "torch" and version:
            return version.strip()
    return None


def _public(version: str) -> str:
    return version.partition("+")[0]


def _broken(module: str, package: str, failure: str) -> Finding:
    # transformers imports torchvision and torchaudio for any model when they are installed.
    kind = warning if module == "bitsandbytes" else error
    return kind(
        f"{package} does not fit the installed torch",
        evidence=failure,
        advice="install the build made for this torch, or remove it if you do not train on images or sound",
        command=f"{_pip().rsplit(' ', 1)[0]} uninstall {module.replace('_', '-')}"
        if find_spec("pip")
        else None,
    )
