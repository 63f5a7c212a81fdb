"""How long a command takes to answer, as a multiple of a bare Python start.

Everything is measured in turns in one run, so that a busy machine disturbs all alike; medians are compared.

    python bench/startup.py [--rounds 15]
"""

import argparse
import fcntl
import os
import pty
import select
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from pathlib import Path

BAD_JOB = """version: 1
model: {name_or_path: ftwiz:demo}
data: {path: rows.jsonl}
train: {lerning_rate: 1e-4}
"""
PAINTED = b"Model"
"""A word of the wizard's first screen."""
PAINT_SECONDS = 30.0

Probe = Callable[[], float]


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        probes = _probes(Path(folder))
        seconds: dict[str, list[float]] = {name: [] for name in probes}
        for probe in probes.values():
            probe()  # files into the page cache, modules compiled
        for _ in range(rounds):
            for name, probe in probes.items():
                seconds[name].append(probe())
    _print(seconds, rounds)


def _probes(folder: Path) -> dict[str, Probe]:
    (folder / "bad.yaml").write_text(BAD_JOB, encoding="utf8")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "FTWIZ_HOME": str(folder),
        "TERM": "xterm-256color",
    }
    ftwiz = str(Path(sys.executable).with_name("ftwiz"))

    def command(*arguments: str, code: int = 0) -> Probe:
        def run() -> float:
            start = time.perf_counter()
            done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, check=False)
            taken = time.perf_counter() - start
            assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stderr.decode()}"
            return taken

        return run

    return {
        "python -c pass": command(sys.executable, "-c", "pass"),
        "ftwiz --version": command(ftwiz, "--version"),
        "ftwiz --help": command(ftwiz, "--help"),
        "ftwiz run BAD (rejected)": command(ftwiz, "run", "bad.yaml", code=2),
        "ftwiz runs": command(ftwiz, "runs"),
        "ftwiz (wizard, first paint)": lambda: _first_paint(
            [ftwiz], environment | {"COLUMNS": "", "LINES": ""}
        ),
        "python -c 'import click'": command(sys.executable, "-c", "import click"),
        "python -c 'import textual.app'": command(sys.executable, "-c", "import textual.app"),
    }


def _first_paint(command: list[str], environment: dict[str, str]) -> float:
    """Seconds from the start to the first screen with words on it, in a terminal of 120x40."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment, start_new_session=True
    )
    os.close(terminal)
    try:
        painted = b""
        while PAINTED not in painted:
            left = start + PAINT_SECONDS - time.perf_counter()
            assert left > 0, f"nothing painted: {painted!r}"
            if select.select([controller], [], [], left)[0]:
                painted += os.read(controller, 65536)
        return time.perf_counter() - start
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(controller)


def _print(seconds: dict[str, list[float]], rounds: int) -> None:
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    bare = medians["python -c pass"]
    print(f"{'median of ' + str(rounds):<32}{'ms':>9}{'x bare':>9}{'min':>9}{'max':>9}")
    for name, median in medians.items():
        low, high = min(seconds[name]), max(seconds[name])
        print(f"{name:<32}{median * 1e3:>9.0f}{median / bare:>9.1f}{low * 1e3:>9.0f}{high * 1e3:>9.0f}")


if __name__ == "__main__":
    main()
