"""A box to read: real executables that replay what a tool printed, and a root with the kernel's files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import pytest

from ftwiz.engine.hardware.system import System


class Box(Protocol):
    """``box(tools={"rocm-smi": text}, files={"/dev/kfd": ""})``: a System of its own."""

    def __call__(
        self,
        *,
        tools: Mapping[str, str | Mapping[str, str]] | None = None,
        files: Mapping[str, str] | None = None,
        links: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> System:
        """Return the System; a tool's text may depend on its arguments, a shell pattern, first match wins."""


@pytest.fixture
def box(tmp_path: Path) -> Box:
    """Make a box in ``tmp_path``; only the tools that are named are on its PATH."""
    programs, root = tmp_path / "bin", tmp_path / "root"
    programs.mkdir()
    root.mkdir()

    def make(
        *,
        tools: Mapping[str, str | Mapping[str, str]] | None = None,
        files: Mapping[str, str] | None = None,
        links: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> System:
        for name, said in (tools or {}).items():
            _write_tool(programs / name, {"*": said} if isinstance(said, str) else said)
        for name, text in (files or {}).items():
            path = root / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf8")
        for name, target in (links or {}).items():
            path = root / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(root / target.lstrip("/"))
        return System({"PATH": str(programs), **(environ or {})}, root)

    return make


def _write_tool(path: Path, said: Mapping[str, str]) -> None:
    """Write an executable that prints the text of the first pattern that fits its arguments."""
    cases = []
    for number, (pattern, text) in enumerate(said.items()):
        recording = path.with_suffix(f".{number}.txt")
        recording.write_bytes(text.encode("utf8", errors="surrogateescape"))
        shown = "*" if pattern == "*" else f'"{pattern}"*'
        cases.append(f'{shown}) exec /bin/cat "{recording}" ;;')
    body = "\n".join(cases)
    path.write_text(f'#!/bin/sh\ncase "$*" in\n{body}\nesac\necho "unknown: $*"\nexit 2\n', encoding="utf8")
    path.chmod(0o755)
