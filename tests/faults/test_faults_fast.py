"""A campaign of half a minute: a kill while saving, a full disk, and all nineteen damages.

``make faults`` tries every fault on every engine.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.train, pytest.mark.timeout(240)]
CAMPAIGN = Path(__file__).with_name("campaign.py")


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What came of every trial, in a process of its own: it forks with the training stack loaded."""
    results = tmp_path_factory.mktemp("faults") / "results.json"
    command = [sys.executable, str(CAMPAIGN), "--engine", "single", "--case", "random|damaged"]
    command += ["--repeats", "1", "--points", "1", "--results", str(results)]
    environ = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=230, check=False)
    assert results.exists(), done.stdout + done.stderr
    found: list[dict[str, Any]] = json.loads(results.read_text())
    return found


@pytest.mark.parametrize(
    ("case", "number"),
    [
        ("killed at a random point of saving", 1),
        ("disk full at a random point of saving", 1),
        ("newest checkpoint damaged, 19 ways", 19),
    ],
)
def test_the_newest_whole_checkpoint_is_taken(case: str, number: int, trials: list[dict[str, Any]]) -> None:
    mine = [trial for trial in trials if trial["case"] == case]
    assert [trial["note"] for trial in mine if not trial["ok"]] == []
    assert len(mine) == number
