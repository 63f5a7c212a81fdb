"""What looking at the hardware costs: `ftwiz devices` from start to end, and one sample of a box a second.

The box with eight cards is the tests' own libnvidia-ml, compiled here: it shows what our side costs, not what
a driver adds. Where this machine has devices, they are sampled too.

    python bench/hardware.py [--rounds 15]
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STUB = Path(__file__).resolve().parent.parent / "tests" / "hardware" / "nvidia" / "nvml_stub.c"
SAMPLE = """
import sys, time
from ftwiz.engine.hardware import detect, sample
begun = time.perf_counter()
machine = detect()
detected = time.perf_counter() - begun
sample(machine)
rounds = 200
cpu, begun = time.process_time(), time.perf_counter()
for _ in range(rounds):
    sample(machine)
cpu, wall = time.process_time() - cpu, time.perf_counter() - begun
print(len(machine.devices), detected, cpu / rounds, wall / rounds)
assert "torch" not in sys.modules
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        environment = {"PATH": os.environ["PATH"], "HOME": folder}
        bare = _median([sys.executable, "-c", "pass"], environment, rounds)
        devices = _median([sys.executable, "-m", "ftwiz", "devices"], environment, rounds)
        print(f"{'python -c pass':<34}{bare * 1e3:9.0f} ms, median of {rounds}")
        print(f"{'ftwiz devices (this machine)':<34}{devices * 1e3:9.0f} ms")
        _sample("this machine", environment)
        compiler = shutil.which("cc")
        if compiler is None:
            print("no C compiler: the stub is left out")
            return
        library = Path(folder, "libnvidia-ml.so.1")
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, STUB], check=True)
        _sample("stub with 8 cards", environment | {"LD_LIBRARY_PATH": folder, "STUB_CARDS": "8"})


def _median(command: list[str], environment: dict[str, str], rounds: int) -> float:
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        subprocess.run(command, env=environment, capture_output=True, check=True)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def _sample(name: str, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SAMPLE], env=environment, capture_output=True, text=True, check=True
    )
    number, detected, cpu, wall = map(float, done.stdout.split())
    print(
        f"{name:<34}{number:9.0f} devices: detect {detected * 1e3:.1f} ms; one sample {wall * 1e3:.2f} ms, "
        f"{100 * cpu:.3f} % of a core at 1 Hz"
    )


if __name__ == "__main__":
    main()
