"""Make ``.venv`` and install ftwiz into it with the tested versions; standard library only.

Run by make with any Python 3.11 or newer, also one that has nothing else. Whatever is missing is said in one
line; pip's whole output stays in ``.venv/install.log``.
"""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MIN_PYTHON = (3, 11)
MIN_PIP = (25, 1)
"""The first pip that installs dependency groups."""
FREE_GIB = 4
"""Room for the training stack of a CPU build and pip's temporary files; CUDA builds of torch want more."""

UNREACHABLE = (
    r"Failed to establish|NewConnectionError|ConnectionError|Max retries|[Tt]imed out|ProxyError|"
    r"Name or service not known|name resolution|Network is unreachable|CERTIFICATE_VERIFY_FAILED"
)
CAUSES = (
    (r"No space left on device", "the disk is full", "free some room, then run make again"),
    (
        UNREACHABLE,
        "the package index cannot be reached",
        "check the network, or name an index you can reach in PIP_INDEX_URL",
    ),
    (
        r"from versions: none",
        "the package index cannot be reached, or lacks the package",
        "check the network, or name another index in PIP_INDEX_URL",
    ),
    (
        r"No matching distribution|Could not find a version",
        "the package index lacks a pinned version",
        "name an index that has it in PIP_INDEX_URL, or install by hand: see docs/install.md",
    ),
    (r"Permission denied", "the checkout cannot be written", "make .venv writable, then run make again"),
)
"""What pip's output shows: pattern, what is wrong, what to do."""


class Missing(Exception):  # noqa: N818 - read as a sentence: raise Missing("...")
    """Something that the installation needs is not there; the message is one line."""


def main() -> None:
    """Install the wanted part of ftwiz and leave a stamp for make."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("train", "dev"), help="what to install beside ftwiz")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    options = parser.parse_args()
    try:
        check_python()
        check_disk(options.venv)
        make_venv(options.venv)
        install(options.venv, options.part)
    except Missing as trouble:
        sys.exit("make: " + str(trouble))
    for part in {"train", options.part}:  # the developers' set holds the trainers'
        (options.venv / f".installed-{part}").touch()


def check_python() -> None:
    """Refuse a Python that is too old, or that cannot make virtual environments."""
    version = ".".join(map(str, sys.version_info[:3]))
    wanted = ".".join(map(str, MIN_PYTHON))
    if sys.version_info < MIN_PYTHON:
        raise Missing(
            f"{sys.executable} is Python {version}, ftwiz needs {wanted}: make PYTHON=python{wanted}"
        )
    try:
        import ensurepip  # noqa: F401, PLC0415 - asked only whether it is there
        import venv  # noqa: F401, PLC0415
    except ImportError:
        package = "python{}.{}-venv".format(*sys.version_info)
        raise Missing(
            f"Python's venv module is missing: apt install {package} (or your system's name for it)"
        ) from None


def check_disk(venv: Path) -> None:
    """Refuse when a fresh installation would not fit."""
    free_gib = shutil.disk_usage(venv.parent).free / 2**30
    if not (venv / "bin" / "pip").exists() and free_gib < FREE_GIB:
        raise Missing(f"{venv.parent} has {free_gib:.1f} GiB free, the installation needs {FREE_GIB} GiB")


def make_venv(venv: Path) -> None:
    """Make the environment, unless there is a usable one."""
    if (venv / "bin" / "python").exists() and pip_version(venv):
        return
    print(f"make: making {venv.name}", file=sys.stderr)
    done = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(venv)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise Missing(f"cannot make {venv}: {last}")


def install(venv: Path, part: str) -> None:
    """Install ftwiz, editable, with what ``part`` names, in the pinned versions."""
    log = venv / "install.log"
    log.write_text("", encoding="utf8")
    if pip_version(venv) < MIN_PIP:
        pip(venv, log, "--upgrade", "pip>={}.{}".format(*MIN_PIP))
    extra = "all" if part == "dev" else "train"  # the tests train with every engine
    wanted = ["--editable", f"{ROOT}[{extra}]"]
    if part == "dev":
        wanted += ["--group", f"{ROOT / 'pyproject.toml'}:dev"]
    print(f"make: installing ftwiz and its {part} packages into {venv.name} (minutes, once)", file=sys.stderr)
    pip(venv, log, "--constraint", str(ROOT / "constraints.txt"), *wanted)


def pip_version(venv: Path) -> tuple[int, ...]:
    """Version of the environment's pip, by its first two numbers; empty when it has none."""
    command = [str(venv / "bin" / "python"), "-m", "pip", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return tuple(int(number) for number in re.findall(r"\d+", done.stdout)[:2])


def pip(venv: Path, log: Path, *arguments: str) -> None:
    """Run ``pip install``; its output goes into the log.

    Raises:
        Missing: pip failed; says why in one line.
    """
    command = [str(venv / "bin" / "python"), "-m", "pip", "install", "--no-input", *arguments]
    with log.open("a", encoding="utf8") as file:
        done = subprocess.run(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=file, check=False
        )
    if done.returncode:
        raise Missing(explain(log.read_text(encoding="utf8", errors="replace"), log))


def explain(output: str, log: Path) -> str:
    """Say in one line what pip's output means and what to do."""
    for pattern, wrong, remedy in CAUSES:
        if re.search(pattern, output):
            return f"installing failed: {wrong}; {remedy} (pip's output: {log})"
    errors = [line for line in output.splitlines() if line.startswith("ERROR:")]
    last = errors[-1] if errors else "pip said nothing"
    return f"installing failed: {last} (pip's output: {log})"


if __name__ == "__main__":
    main()
