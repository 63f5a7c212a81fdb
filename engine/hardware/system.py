"""The box as a vendor's file sees it: environment, files and vendor tools, with every reading bounded.

Tests hand in an environment whose PATH holds tools that replay a recording, and a root with recorded files.
"""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

TOOL_SECONDS = 5.0
"""A vendor tool that says nothing for so long hangs: broken drivers do that."""
MOST_OUTPUT_BYTES = 8 << 20
"""More than any tool says of 64 devices."""
HANGS = "no answer in time"


class ToolError(Exception):
    """A tool could not be read; the message is one line that names it."""

    def __init__(self, tool: str, why: str, *, output: str = "") -> None:
        super().__init__(f"{tool}: {why}")
        self.tool = tool
        self.why = why
        self.output = output
        """What it printed all the same."""
        self.hangs = why.startswith(HANGS)


@dataclass(frozen=True, slots=True)
class System:
    """Where to look. ``root`` stands for ``/`` of /proc, /sys, /dev and /usr."""

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    root: Path = Path("/")
    hanging: set[str] = field(default_factory=set, compare=False, repr=False)
    """Tools that gave no answer in time: asking one of them again would cost as long again."""

    def has(self, tool: str) -> bool:
        """Whether a tool is on PATH."""
        return self._find(tool) is not None

    def run(self, tool: str, *arguments: str, seconds: float = TOOL_SECONDS) -> str:
        """Return what a tool prints on stdout.

        Raises:
            ToolError: It is missing, fails, hangs or prints too much. Its whole process group is ended.
        """
        if tool in self.hanging:
            raise ToolError(tool, HANGS)
        path = self._find(tool)
        if path is None:
            raise ToolError(tool, "not found")
        try:
            process = subprocess.Popen(
                [path, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**self.environ, "LC_ALL": "C"},
                start_new_session=True,
            )
        except OSError as error:
            raise ToolError(tool, f"cannot be started: {error.strerror}") from error
        try:
            return _output(tool, process, seconds)
        except ToolError as error:
            if error.hangs:
                self.hanging.add(tool)
            raise

    def read(self, path: str) -> str | None:
        """Return the stripped text of a small file under the root, ``None`` when it cannot be read."""
        try:
            with self.path(path).open("rb") as file:
                return file.read(1 << 20).decode("utf8", errors="replace").strip()
        except OSError:
            return None

    def path(self, path: str) -> Path:
        """Return where an absolute path lies under the root."""
        return self.root / path.lstrip("/")

    def glob(self, pattern: str) -> list[Path]:
        """Return the sorted paths under the root that fit an absolute pattern."""
        return sorted(self.root.glob(pattern.lstrip("/")))

    def _find(self, tool: str) -> str | None:
        return shutil.which(tool, path=self.environ.get("PATH", os.defpath))


def _output(tool: str, process: subprocess.Popen[bytes], seconds: float) -> str:
    assert process.stdout is not None
    deadline = time.monotonic() + seconds
    with process.stdout as pipe:
        data, why = _collect(pipe.fileno(), deadline)
    if why is None:
        try:
            code = process.wait(timeout=max(0.1, deadline - time.monotonic()))
            why = f"exit code {code}" if code else None
        except subprocess.TimeoutExpired:
            why = "does not exit"
    _end(process)
    text = data.decode("utf8", errors="replace")
    if why is not None:
        said = next((line.strip() for line in text.splitlines() if line.strip()), "")
        raise ToolError(tool, f"{why}: {said[:200]}" if said else why, output=text)
    return text


def _collect(descriptor: int, deadline: float) -> tuple[bytes, str | None]:
    """Return what a pipe gave until it was closed, and why reading ended before that."""
    data = bytearray()
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([descriptor], [], [], left)
        if not ready:
            break
        chunk = os.read(descriptor, 1 << 16)
        if not chunk:
            return bytes(data), None
        data += chunk
        if len(data) > MOST_OUTPUT_BYTES:
            return b"", f"printed more than {MOST_OUTPUT_BYTES >> 20} MiB"
    return bytes(data), HANGS


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the tool and what it started; a process in the kernel's grip is left behind, not waited for."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)
