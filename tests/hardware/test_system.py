"""A vendor's tool can hang, shout, fail or be missing: every reading is bounded."""

import os
import time
from pathlib import Path

import pytest

from ftwiz.engine.hardware.system import MOST_OUTPUT_BYTES, System, ToolError


def box(tmp_path: Path, tool: str, script: str) -> System:
    """Return a box with one tool, which is a real program."""
    path = tmp_path / "bin" / tool
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf8")
    path.chmod(0o755)
    return System({"PATH": f"{path.parent}:/usr/bin:/bin"}, tmp_path)


def test_a_tool_gets_its_arguments_and_speaks_english(tmp_path: Path) -> None:
    system = box(tmp_path, "xx-smi", 'echo "$1 $LC_ALL"; cat')
    assert system.has("xx-smi")
    assert system.run("xx-smi", "info") == "info C\n"


def test_a_missing_tool_is_named(tmp_path: Path) -> None:
    system = System({"PATH": str(tmp_path)})
    assert not system.has("xx-smi")
    with pytest.raises(ToolError, match=r"^xx-smi: not found$"):
        system.run("xx-smi")


def test_a_failing_tool_is_quoted_and_its_output_kept(tmp_path: Path) -> None:
    system = box(tmp_path, "xx-smi", "echo; echo Failed to start; echo more; exit 9")
    with pytest.raises(ToolError, match=r"^xx-smi: exit code 9: Failed to start$") as failed:
        system.run("xx-smi")
    assert failed.value.output.endswith("more\n")


def test_a_tool_that_is_no_program_is_refused(tmp_path: Path) -> None:
    system = box(tmp_path, "xx-smi", "")
    (tmp_path / "bin/xx-smi").write_bytes(b"\x7fELFnonsense")
    with pytest.raises(ToolError, match=r"^xx-smi: cannot be started: "):
        system.run("xx-smi")


def test_a_hanging_tool_is_abandoned_with_its_children_and_not_asked_again(tmp_path: Path) -> None:
    system = box(tmp_path, "xx-smi", f"sleep 60 & echo $! > {tmp_path}/pid; echo begun; wait")
    start = time.monotonic()
    with pytest.raises(ToolError, match=r"^xx-smi: no answer in time: begun$"):
        system.run("xx-smi", seconds=0.5)
    with pytest.raises(ToolError, match=r"^xx-smi: no answer in time$"):
        system.run("xx-smi")
    assert time.monotonic() - start < 3
    child = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat")
    deadline = time.monotonic() + 3
    while child.exists() and child.read_text().split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not child.exists() or child.read_text().split()[2] == "Z"


def test_a_tool_that_closes_its_output_and_stays_is_ended(tmp_path: Path) -> None:
    system = box(tmp_path, "xx-smi", "exec >&- 2>&-; sleep 60")
    with pytest.raises(ToolError, match="does not exit"):
        system.run("xx-smi", seconds=0.5)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs /dev/zero")  # noqa: PTH110 - a device
def test_a_tool_that_prints_without_end_is_ended(tmp_path: Path) -> None:
    system = box(tmp_path, "xx-smi", "cat /dev/zero")
    with pytest.raises(ToolError, match=f"more than {MOST_OUTPUT_BYTES >> 20} MiB"):
        system.run("xx-smi")


def test_files_are_read_below_the_root(tmp_path: Path) -> None:
    system = box(tmp_path, "xx-smi", "")
    (tmp_path / "sys").mkdir()
    (tmp_path / "sys/b").write_bytes(b" caf\xe9 \n")
    assert system.read("/sys/b") == "caf\ufffd"
    assert system.read("/sys/none") is None
    assert system.read("/sys") is None
    assert system.glob("/sys/*") == [tmp_path / "sys/b"]
