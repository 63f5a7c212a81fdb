"""What compiles code during a run: compilers for Triton and DeepSpeed's ops, and locks of dead builds."""

import contextlib
import os
import re
import shlex
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from ..hardware.system import ToolError
from .finding import Finding, note, ok, warning
from .patient import Patient
from .words import age

TOOLS = {
    "gcc": ("-dumpfullversion",),
    "g++": ("-dumpfullversion",),
    "ninja": ("--version",),
    "nvcc": ("--version",),
}
AIO_HEADERS = ("/usr/include/libaio.h", "/usr/local/include/libaio.h")
YOUNG_SECONDS = 10.0
"""A lock that was made just now may be of a builder that we have not seen yet."""


def look_at_compilers(patient: Patient) -> Iterator[Finding]:
    """Report compilers, and what is missing for what."""
    found = {tool: version for tool in TOOLS if (version := _version(patient, tool)) is not None}
    if found:
        yield ok(", ".join(f"{tool} {version}" for tool, version in found.items()))
    uses_cuda = any(device.kind == "cuda" for device in patient.devices)
    if "gcc" not in found:
        # Triton compiles its launchers with the C compiler: torch.compile, Liger and others need it.
        kind = warning if uses_cuda else note
        yield kind("no C compiler", advice="Triton's kernels need one: install gcc and g++")
    elif uses_cuda and not Path(sysconfig.get_path("include"), "Python.h").is_file():
        yield warning(
            "Python's headers are missing: Triton cannot compile its kernels",
            evidence=f"no Python.h in {sysconfig.get_path('include')}",
            advice=f"install them: apt install python{sys.version_info.major}.{sys.version_info.minor}-dev",
        )
    if "deepspeed" in patient.versions:
        yield from _deepspeed(patient, found, uses_cuda=uses_cuda)


def look_for_stale_locks(patient: Patient) -> Iterator[Finding]:
    """Report locks of torch's extension builds that nobody holds: whoever builds next waits for ever."""
    locks = list(_locks(patient))
    held = _open_files() if locks else set()
    for lock in locks:
        try:
            seconds = time.time() - lock.stat().st_mtime
        except OSError:
            continue
        if str(lock) in held or seconds < YOUNG_SECONDS:
            yield note(
                f"an extension is being built in {lock.parent}", evidence=f"its lock is {age(seconds)} old"
            )
            continue
        yield warning(
            "the lock of a dead build: the next run that needs this extension waits for ever",
            evidence=f"{lock}, {age(seconds)} old; no process here holds it",
            advice="remove it, unless another host that shares this folder is building",
            command=f"rm {shlex.quote(str(lock))}",
        )


def extension_roots(patient: Patient) -> list[Path]:
    """Return the folders in which torch builds extensions (torch 2.13, utils/cpp_extension.py)."""
    chosen = patient.environ.get("TORCH_EXTENSIONS_DIR")
    if chosen:
        return [Path(chosen)]
    home = patient.environ.get("HOME", os.path.expanduser("~"))  # noqa: PTH111 - Path.home() raises without a home
    cache = Path(patient.environ.get("XDG_CACHE_HOME") or Path(home, ".cache"))
    return [cache / "torch_extensions"]


def _locks(patient: Patient) -> Iterator[Path]:
    for root in extension_roots(patient):
        with contextlib.suppress(OSError):
            # ROOT/py311_cu130/NAME/lock, and ROOT/NAME/lock where the folder was chosen by hand
            for pattern in ("*/lock", "*/*/lock"):
                yield from sorted(path for path in root.resolve().glob(pattern) if path.is_file())


def _open_files() -> set[str]:
    """Return every file that a process in sight holds open."""
    found: set[str] = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            folder = Path("/proc") / str(process.pid) / "fd"
            if folder.is_dir():
                found |= {str(link.readlink()) for link in _entries(folder)}
            else:
                found |= {file.path for file in process.open_files()}
    return found


def _entries(folder: Path) -> Iterator[Path]:
    # psutil's open_files() shows neither all flags nor all kinds, and asks more of each file than its name.
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                yield Path(entry.path)


def _version(patient: Patient, tool: str) -> str | None:
    if not patient.system.has(tool):
        return None
    try:
        text = patient.system.run(tool, *TOOLS[tool], seconds=3.0)
    except ToolError:
        return "(broken)"
    found = re.search(r"release (\d+\.\d+)", text) or re.search(r"(\d+(?:\.\d+)*)", text)
    return found[1] if found else "(unknown)"


def _deepspeed(patient: Patient, found: dict[str, str], *, uses_cuda: bool) -> Iterator[Finding]:
    wanted = ["g++", "ninja", *(["nvcc"] if uses_cuda else [])]
    missing = [tool for tool in wanted if tool not in found]
    if missing:
        yield warning(
            f"DeepSpeed cannot build its optimizers for offloading: no {', '.join(missing)}",
            advice="install them, and CUDA's toolkit in the version of torch for nvcc (CUDA_HOME)",
        )
    torch = patient.torch
    built = torch.cuda if torch is not None else None
    if uses_cuda and built and found.get("nvcc", built).partition(".")[0] != built.partition(".")[0]:
        yield warning(
            f"nvcc {found['nvcc']} and torch, built for CUDA {built}, differ: DeepSpeed refuses to build",
            advice=f"install CUDA's toolkit {built}, and set CUDA_HOME to it",
        )
    if not any(patient.system.path(header).is_file() for header in AIO_HEADERS):
        yield note(
            "no libaio: DeepSpeed cannot offload to disk",
            evidence=f"no {AIO_HEADERS[0]}",
            advice="only needed for NVMe offload: apt install libaio-dev",
        )
