"""Where a run writes: room, permission, kind of disk, and speed where offloading would go."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..hardware.disks import read_disks
from ..specs.machine import Disk
from .disk_speed import measure
from .finding import Finding, error, note, ok, warning
from .hub import cache_folder
from .patient import Patient
from .words import GIB, rate, size

LITTLE_BYTES, NOTHING_BYTES = 20 * GIB, GIB
FEW_INODES = 1000
LEAST_OFFLOAD_BYTES_PER_SECOND = 1e9
"""Below this a step waits longer for its optimizer states than it computes."""
NO_OFFLOAD = {
    "memory": "it is memory itself, and is lost with the next boot",
    "overlay": "a container's own layer is slow, and is lost with it",
    "network": "it is reached over a network",
}
CHOSEN_BY = {"runs": "FTWIZ_HOME", "models": "HF_HOME", "temporary files": "TMPDIR"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A folder that a run writes to."""

    use: str
    wanted: Path
    folder: Path
    """The nearest part of its path that exists."""
    disk: Disk | None

    @property
    def mount(self) -> str:
        """Mount point and file system."""
        return f"{self.disk.path} ({self.disk.file_system})" if self.disk else str(self.folder)


def look(patient: Patient) -> Iterator[Finding]:
    """Report room and permission where runs, models and temporary files go."""
    well: dict[str, list[Place]] = {}
    for place in places(patient):
        trouble = list(_trouble(place))
        yield from trouble
        if not trouble:
            well.setdefault(place.mount, []).append(place)
    for mount, together in well.items():
        uses = [place.use for place in together]
        named = ", ".join(uses[:-1]) + " and " + uses[-1] if len(uses) > 1 else uses[0]
        yield ok(f"{named}: {size(_free_bytes(together[0].folder))} free on {mount}")


def look_at_speed(patient: Patient) -> Iterator[Finding]:
    """Measure the disk of the runs, where offloaded states would go; refuse what is not a local disk."""
    place = places(patient)[0]
    reason = NO_OFFLOAD.get(place.disk.medium or "") if place.disk else None
    if reason is not None:
        yield note(
            f"offloading to {place.mount} is no use: {reason}",
            advice="put runs on a local disk, NVMe if there is one: FTWIZ_HOME=FOLDER",
        )
        return
    if not os.access(place.folder, os.W_OK) or (_free_bytes(place.folder) or 0) < NOTHING_BYTES:
        return  # the check of room and permission says it
    speed = measure(place.folder)
    write, read = speed.write_bytes_per_second, speed.read_bytes_per_second
    medium = f", {place.disk.medium}" if place.disk and place.disk.medium else ""
    what = f"writes {rate(write)}, reads {rate(read)} on {place.mount}{medium}"
    how = "one stream of 4 MiB blocks" + ("" if speed.is_direct else ", through the page cache")
    if min(write, read) < LEAST_OFFLOAD_BYTES_PER_SECOND:
        yield note(what, evidence=how, advice="fine for checkpoints, too slow to offload optimizer states to")
    else:
        yield ok(what, evidence=how)


def places(patient: Patient) -> tuple[Place, ...]:
    """Return where runs, models and temporary files would go."""
    environ = patient.environ
    temporary = next((environ[name] for name in ("TMPDIR", "TEMP", "TMP") if environ.get(name)), None)
    wanted = {
        "runs": patient.runs,
        "models": cache_folder(environ),
        "temporary files": Path(temporary or tempfile.gettempdir()),
    }
    found = []
    for use, path in wanted.items():
        folder = _existing(path)
        disks = read_disks(patient.system, {use: str(folder)})
        found.append(Place(use=use, wanted=path, folder=folder, disk=disks[0] if disks else None))
    return tuple(found)


def _trouble(place: Place) -> Iterator[Finding]:
    kind = warning if place.use == "models" else error
    evidence = f"{place.folder} is on {place.mount}"
    variable = CHOSEN_BY[place.use]
    failure = _cannot_write(place.folder)
    if failure is not None:
        yield kind(
            f"{place.use}: {place.wanted} cannot be written: {failure}",
            evidence=evidence,
            advice=f"make it writable, or choose another folder: {variable}=FOLDER",
        )
        return
    space = os.statvfs(place.folder)
    free = space.f_bavail * space.f_frsize
    if free < NOTHING_BYTES or (free < LITTLE_BYTES and place.use != "temporary files"):
        level = error if free < NOTHING_BYTES else warning
        yield level(
            f"{place.use}: only {size(free)} free for {place.wanted}",
            evidence=evidence,
            advice=f"free space there, or choose another folder: {variable}=FOLDER",
        )
    if space.f_files and space.f_favail < FEW_INODES:
        yield error(
            f"{place.use}: the file system of {place.wanted} has no room for more files",
            evidence=f"{space.f_favail} inodes left; {evidence}",
            advice="remove files: many small ones are the cause",
        )


def _cannot_write(folder: Path) -> str | None:
    """Return why no file can be made in a folder; one is made to find out, and is gone again."""
    if not folder.is_dir():
        return "it is a file"
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".ftwiz-doctor-") as file:
            file.write(b"well")
            file.flush()
    except OSError as failure:
        return failure.strerror or type(failure).__name__
    return None


def _existing(path: Path) -> Path:
    path = Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - resolve() follows links on dead mounts
    return next((part for part in (path, *path.parents) if os.path.exists(part)), Path("/"))  # noqa: PTH110 - Path.exists raises where it may not look


def _free_bytes(folder: Path) -> int | None:
    try:
        space = os.statvfs(folder)
    except OSError:
        return None
    return space.f_bavail * space.f_frsize
