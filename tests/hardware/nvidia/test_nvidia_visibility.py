"""CUDA_VISIBLE_DEVICES as the CUDA runtime reads it; torch's own reading of it is the witness."""

import importlib.util
import json
import os
import random
import subprocess
import sys

import pytest

from ftwiz.engine.hardware.nvidia import visible
from ftwiz.engine.hardware.nvidia.visibility import Entry, choose
from ftwiz.engine.specs.machine import Device

UUIDS = ["GPU-aa11", "GPU-bb22", "GPU-ab33"]
TORCH = """
import json, os, sys
import torch
def shown(value, uuids):
    os.environ["CUDA_VISIBLE_DEVICES"] = value
    try:
        picked = torch.cuda._parse_visible_devices()
    except ValueError:
        return None
    if picked and isinstance(picked[0], str):
        return torch.cuda._transform_uuid_to_ordinals(picked, uuids)
    beyond = next((at for at, number in enumerate(picked) if number >= len(uuids)), len(picked))
    return picked[:beyond]
values, uuids = json.load(sys.stdin)
print(json.dumps([shown(value, uuids) for value in values]))
"""


@pytest.mark.parametrize(
    ("value", "chosen"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("0", [0]),
        (" 2 , 0 ", [2, 0]),
        ("1gpu2,2ampere", [1, 2]),
        ("+1", [1]),
        ("0,7,1", [0]),
        ("0,7,0", []),
        ("0,-1,1", [0]),
        ("0,-1,0", [0]),
        ("0,,1", [0]),
        ("1,1", []),
        ("1,01", []),
        ("GPU-aa", [0]),
        ("GPU-ab,GPU-b", [2, 1]),
        ("GPU-a", []),
        ("GPU-aa,GPU-aa1", []),
        ("GPU-aa,GPU-none,GPU-bb", [0]),
        ("GPU-aa,1", [0]),
        ("1,GPU-aa,0", [1]),
        ("1,GPU-none,0", [1]),
        ("none", []),
        ("NoDevFiles", []),
        ("²", []),
        ("9" * 5000, []),
    ],
)
def test_visible_devices_are_picked_as_the_cuda_runtime_does(value: str | None, chosen: list[int]) -> None:
    assert visible(value, UUIDS) == chosen


def test_torch_picks_the_same() -> None:
    """Thousands of values, made of the pieces that matter; torch is imported in a process of its own."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is the witness, and not installed")
    dice = random.Random(4)  # noqa: S311 - the same values every time
    words = "0|1|2|3|-1|+2|1gpu|gpu1|| 1|01|GPU-|GPU-a|GPU-aa|GPU-bb22|GPU-ab3|MIG-x|x|-|2 |GPU-zz"
    pieces = words.split("|")
    values = [",".join(dice.choices(pieces, k=dice.randint(1, 4))) for _ in range(4000)]
    done = subprocess.run(
        [sys.executable, "-c", TORCH],
        input=json.dumps([values, UUIDS]),
        env={key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    theirs = json.loads(done.stdout)
    comparable = [
        at for at, value in enumerate(values) if theirs[at] is not None and not value.startswith("MIG-")
    ]
    assert len(comparable) > 3000
    for at in comparable:
        assert visible(values[at], UUIDS) == theirs[at], values[at]


def entries() -> list[Entry]:
    """A whole card, and one that is split in two."""
    card = Device(kind="cuda", index=0, physical_index=0, name="A", uuid="GPU-aa11")
    split = Device(kind="cuda", index=1, physical_index=1, name="B", uuid="GPU-bb22", partitioned=True)
    pieces = [
        Device(kind="cuda", index=1, physical_index=1, name="B", uuid=f"MIG-{letter}1", partition="1g.10gb")
        for letter in "cd"
    ]
    named = [Entry(device=piece, alias=f"MIG-GPU-bb22/{at}/0") for at, piece in enumerate(pieces, start=1)]
    return [Entry(device=card), Entry(device=split), *named]


@pytest.mark.parametrize(
    ("value", "chosen"),
    [
        (None, ["GPU-aa11", "MIG-c1", "MIG-d1", "GPU-bb22"]),
        ("", []),
        ("0", ["GPU-aa11"]),
        ("1", ["MIG-c1"]),
        ("1,0", ["MIG-c1"]),
        ("GPU-b", ["MIG-c1"]),
        ("MIG-d1", ["MIG-d1"]),
        ("MIG-d", ["MIG-d1"]),
        ("MIG-", []),
        ("MIG-GPU-bb22/2/0", ["MIG-d1"]),
        ("MIG-GPU-bb22/3/0", []),
        ("MIG-d1,MIG-c1", ["MIG-d1"]),
    ],
)
def test_slices_are_picked_by_uuid_and_by_their_old_names(value: str | None, chosen: list[str]) -> None:
    devices = choose(value, entries())
    assert [device.uuid for device in devices] == chosen
    assert [device.index for device in devices] == list(range(len(devices)))
