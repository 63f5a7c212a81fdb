"""The two commands of the README on a machine that lacks something: one line says what, and what to do."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
INSTALL = ROOT / "tools" / "install.py"


@pytest.fixture(scope="module")
def installer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", INSTALL)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What make needs of a checkout, without its ``.venv``."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "tools").mkdir()
    shutil.copy(INSTALL, tmp_path / "tools" / "install.py")
    return tmp_path


def _run(*command: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | (env or {}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_help_lists_the_targets(checkout: Path) -> None:
    listed = _run("make", cwd=checkout).stdout
    assert all(f"make {target}" in listed for target in ("demo", "check", "fix", "bench", "clean"))


def test_no_python_at_all_is_one_line(checkout: Path) -> None:
    done = _run("make", "check", "PYTHON=", cwd=checkout)
    assert done.returncode != 0
    assert done.stderr.startswith("make: no Python 3.11 or newer found: install one, or say where it is")


def test_an_installation_that_is_done_is_not_done_again(checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    for part in ("train", "dev"):
        (checkout / ".venv" / f".installed-{part}").touch()
    done = _run("make", "--question", ".venv/.installed-train", ".venv/.installed-dev", cwd=checkout)
    assert done.returncode == 0


def test_an_unknown_python_is_named(checkout: Path) -> None:
    done = _run("make", "check", "PYTHON=python9.9", cwd=checkout)
    assert done.returncode != 0
    assert "make: python9.9: not found" in done.stderr.splitlines()


def test_an_old_python_is_refused_with_what_to_type(checkout: Path) -> None:
    old = checkout / "python3.8"
    old.write_text("#!/bin/sh\nexit 1\n", encoding="utf8")  # all that make asks: is it new enough?
    old.chmod(0o755)
    done = _run("make", "check", f"PYTHON={old}", cwd=checkout)
    assert done.returncode != 0
    assert f"make: {old} is older than Python 3.11: make PYTHON=python3.11" in done.stderr


def test_a_missing_venv_module_is_one_line(checkout: Path) -> None:
    (checkout / "lacking").mkdir()
    (checkout / "lacking" / "ensurepip.py").write_text("raise ImportError('not packaged')\n", encoding="utf8")
    done = _run(
        sys.executable, "tools/install.py", "dev", cwd=checkout, env={"PYTHONPATH": str(checkout / "lacking")}
    )
    assert done.returncode == 1
    version = "{}.{}".format(*sys.version_info)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"make: Python's venv module is missing: apt install python{version}-venv")


@pytest.mark.timeout(180)
def test_an_index_out_of_reach_is_one_line_and_the_log_has_the_rest(checkout: Path) -> None:
    closed = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_FIND_LINKS": "",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_RETRIES": "1",
    }
    done = _run(sys.executable, "tools/install.py", "dev", cwd=checkout, env=closed)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("make: installing failed: the package index cannot be reached; check the network")
    assert (checkout / ".venv" / "install.log").read_text(encoding="utf8")
    assert not (checkout / ".venv" / ".installed-dev").exists()


def test_a_full_disk_is_told_before_anything_is_made(
    installer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installer, "FREE_GIB", 1_000_000)
    with pytest.raises(installer.Missing, match=r"GiB free, the installation needs 1000000 GiB"):
        installer.check_disk(tmp_path / ".venv")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "disk is full",
        ),
        ("ERROR: No matching distribution found for torch==2.13.0", "lacks a pinned version"),
        ("ERROR: something new", "ERROR: something new"),
        ("", "pip said nothing"),
    ],
)
def test_pips_last_words_become_one_line(
    installer: ModuleType, output: str, said: str, tmp_path: Path
) -> None:
    line = installer.explain(output, tmp_path / "install.log")
    assert said in line
    assert "\n" not in line
