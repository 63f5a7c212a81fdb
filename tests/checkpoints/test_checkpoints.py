"""What makes a checkpoint count, and which one a resume takes."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftwiz.engine.checkpoints import (
    MANIFEST,
    list_checkpoints,
    look,
    newest_whole,
    surplus,
    verify,
    write_manifest,
)


def checkpoint(root: Path, step: int, *, whole: bool = True) -> Path:
    """Make a checkpoint folder with two files, one of them in a sub-folder."""
    folder = root / f"checkpoint-{step}"
    (folder / "optimizer").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 20)
    (folder / "optimizer" / "state.bin").write_bytes(b"state")
    if whole:
        write_manifest(folder)
    return folder


def test_a_folder_with_its_manifest_is_whole_and_its_size_is_that_of_its_files(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, 4, whole=False)
    assert verify(folder) == f"no {MANIFEST}: it was never finished"
    assert write_manifest(folder) == 256 * 20 + len(b"state")
    assert verify(folder) is None


def test_a_manifest_written_twice_names_the_same_files(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, 4)
    first = (folder / MANIFEST).read_text()
    write_manifest(folder)
    assert (folder / MANIFEST).read_text() == first


def test_a_cut_file_a_missing_file_and_a_folder_in_its_place_are_found(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, 4)
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    assert verify(folder) == "model.safetensors has 5119 bytes, not 5120"
    weights.unlink()
    assert verify(folder) == "model.safetensors is missing"
    weights.mkdir()
    assert verify(folder) is not None


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(position=st.integers(0, 5119), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(tmp_path: Path, position: int, bit: int) -> None:
    folder = tmp_path / "checkpoint-4"
    if not folder.exists():
        checkpoint(tmp_path, 4)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    damaged = bytearray(whole)
    damaged[position] ^= 1 << bit
    weights.write_bytes(damaged)
    assert verify(folder) == "model.safetensors was changed after it was saved"
    weights.write_bytes(whole)
    assert verify(folder) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"version": 1}',
        '{"version": 1, "files": {}}',
        '{"version": 2, "files": {}}',
        '{"version": 1, "files": {"model.safetensors": 3}}',
        '{"version": 1, "files": []}',
    ],
)
def test_a_manifest_that_says_nothing_makes_nothing_whole(tmp_path: Path, text: str) -> None:
    folder = checkpoint(tmp_path, 4)
    (folder / MANIFEST).write_text(text)
    assert MANIFEST in (verify(folder) or "")


def test_resume_takes_the_newest_whole_one_and_says_why_it_passed_over_newer_ones(tmp_path: Path) -> None:
    checkpoint(tmp_path, 5)
    wanted = checkpoint(tmp_path, 40)
    cut = checkpoint(tmp_path, 100)
    (cut / "optimizer" / "state.bin").write_bytes(b"")
    unfinished = checkpoint(tmp_path, 120, whole=False)
    (tmp_path / "checkpoint-x").mkdir()
    (tmp_path / "README.md").write_text("not a checkpoint")
    found = look(tmp_path)
    assert found.newest == wanted == newest_whole(tmp_path)
    assert [folder for folder, _ in found.skipped] == [unfinished, cut]
    assert found.skipped[1][1] == "optimizer/state.bin has 0 bytes, not 5"


def test_no_folder_and_an_empty_one_have_no_checkpoint(tmp_path: Path) -> None:
    assert newest_whole(tmp_path / "nowhere") is None
    assert newest_whole(tmp_path) is None


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        checkpoint(tmp_path, step)
    assert [folder.name for folder in list_checkpoints(tmp_path)] == [
        "checkpoint-100",
        "checkpoint-10",
        "checkpoint-9",
    ]


def test_rotation_keeps_the_limit_and_drops_unfinished_ones_first(tmp_path: Path) -> None:
    old, kept = checkpoint(tmp_path, 10), checkpoint(tmp_path, 20)
    unfinished = checkpoint(tmp_path, 25, whole=False)
    newest = checkpoint(tmp_path, 30)
    assert surplus(newest, limit=2) == [unfinished, old]
    assert surplus(newest, limit=1) == [unfinished, kept, old]
    assert surplus(newest, limit=9) == [unfinished]


def test_rotation_never_gives_up_the_new_one_for_a_later_leftover(tmp_path: Path) -> None:
    """Resumed from 10 because 60 was damaged: 20 is saved, and 60 must not count in its place."""
    checkpoint(tmp_path, 10)
    damaged = checkpoint(tmp_path, 60)
    newest = checkpoint(tmp_path, 20)
    gone = surplus(newest, limit=1)
    assert newest not in gone
    assert damaged not in gone
