"""What planning costs: CPU time of a search in a fresh process, after imports, and of the whole command.

    python bench/plan.py [--rounds 5]

Each search is the first of its process, so nothing is remembered from an earlier one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CASES = (
    ("meta-llama/Llama-3.1-70B", "lora", "8xA100-80GB+1TB"),
    ("meta-llama/Llama-3.1-70B", "full", "8xA100-80GB+2TB"),
    ("meta-llama/Llama-3.1-70B", "lora", "2x4090+128GB"),
    ("meta-llama/Llama-3.1-8B", "lora", "8xA100-80GB+1TB"),
    ("Qwen/Qwen3-30B-A3B", "lora", "8xA100-80GB+1TB"),
)
SEARCH = """
import json, sys, time
from ftwiz.engine.hardware.written import parse_machine
from ftwiz.engine.models import catalogue
from ftwiz.engine.plan import fitted, recommend
from ftwiz.engine.specs.job import Job
name, kind, machine, batch = sys.argv[1:]
spec, box = catalogue.spec(catalogue.find(name)), parse_machine(machine)
job = Job.model_validate({"model": {"name_or_path": name}, "data": {"path": "rows.jsonl"},
    "method": {"kind": kind}, "train": {"max_length": 2048, "global_batch_size": int(batch)}})
seen = []
search = fitted.search
fitted.search = lambda *given, **named: seen.append(search(*given, **named)) or seen[-1]
start = time.process_time()
plan = recommend(job, spec, box)
seconds = time.process_time() - start
print(json.dumps({"seconds": seconds, "candidates": seen[0].num_candidates, "torch": "torch" in sys.modules,
    "winner": f"{plan.strategy.backend}{plan.strategy.zero_stage or ''} {plan.strategy.quantization}"}))
"""
JOB = """version: 1
model: {name_or_path: meta-llama/Llama-3.1-70B}
data: {path: rows.jsonl}
train: {max_length: 2048, global_batch_size: 64}
"""


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(f"{'first search of a process':58} {'CPU ms':>7} {'candidates':>11}  winner")
    for name, kind, machine in CASES:
        found = [_search(name, kind, machine) for _ in range(rounds)]
        seconds = statistics.median(one["seconds"] for one in found)
        assert not any(one["torch"] for one in found)
        what = f"{name} {kind} on {machine}"
        print(f"{what:58} {seconds * 1e3:7.0f} {found[0]['candidates']:11,}  {found[0]['winner']}")
    wall, cpu = _command(rounds)
    print(f"{'ftwiz plan of 70B on 8 devices, whole process':58} {cpu * 1e3:7.0f} {'':11}  {wall:.2f} s wall")


def _search(name: str, kind: str, machine: str) -> dict[str, object]:
    command = [sys.executable, "-c", SEARCH, name, kind, machine, "64"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def _command(rounds: int) -> tuple[float, float]:
    """Return the median wall and CPU seconds of ``ftwiz plan``."""
    walls, cpus = [], []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "job.yaml").write_text(JOB, encoding="utf8")
        (Path(folder) / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 8, encoding="utf8")
        command = [sys.executable, "-m", "ftwiz", "plan", "job.yaml", "--machine", "8xA100-80GB+1TB"]
        environment = {**os.environ, "FTWIZ_HOME": folder}
        for _ in range(rounds + 1):
            before, start = os.times(), time.perf_counter()
            subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True, timeout=120)
            walls.append(time.perf_counter() - start)
            after = os.times()
            cpus.append(
                after.children_user + after.children_system - before.children_user - before.children_system
            )
    return statistics.median(walls[1:]), statistics.median(cpus[1:])


if __name__ == "__main__":
    main()
