"""Has an export done by a process of its own, beside; what is not whole is removed whatever happens."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import IO, Any

from ..errors import BadInput, ExitCode, FtwizError, Refused
from .wanted import Wanted

STACK = ("torch", "transformers", "peft")
_SURROUNDINGS = {
    "CUDA_VISIBLE_DEVICES": "",  # it may run beside a training
    "TQDM_DISABLE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore",
}


def export(wanted: Wanted, narrate: Callable[[str], None]) -> dict[str, Any]:
    """Write the folder ``wanted.output`` and return what is in it.

    It is written beside and renamed: after an error, Ctrl-C or a hang-up there is nothing.

    Raises:
        BadInput: The folder is there already and not empty, or a model cannot be loaded.
        Refused: The stack is missing, or the disk refuses.
    """
    check_stack()
    output = Path(wanted.output)
    check_output(output)
    with _beside(output) as beside:
        result = ask(["export"], asdict(replace(wanted, output=str(beside))), narrate)
        try:
            beside.chmod(0o755)
            beside.rename(output)  # over an empty folder too
        except OSError as error:
            raise Refused(
                f"{output}: cannot be written: {error.strerror}", hint="choose another -o"
            ) from error
    return result


def push(folder: Path, repository: str, narrate: Callable[[str], None]) -> str:
    """Upload a folder to a private repository of the hub; return its address.

    Raises:
        Refused: The hub does not take it.
    """
    return str(ask(["push"], {"folder": str(folder), "repository": repository}, narrate)["url"])


def check_stack() -> None:
    """Fail at once when the libraries of training are not installed.

    Raises:
        Refused: One of them is missing.
    """
    if missing := [name for name in STACK if importlib.util.find_spec(name) is None]:
        raise Refused(f"exporting needs {', '.join(missing)}", hint="pip install 'ftwiz[train]'")


def check_output(output: Path) -> None:
    """Make sure that the folder can be made and nothing is written over.

    Raises:
        BadInput: It holds something, or is no folder, or there is none to put it in.
    """
    try:
        if output.is_symlink() or (output.exists() and not output.is_dir()):
            raise BadInput(f"{output}: is not a folder", hint="choose another -o")
        if output.is_dir() and any(output.iterdir()):
            raise BadInput(f"{output}: is not empty, and stays as it is", hint="choose another -o")
        if not output.parent.is_dir():
            raise BadInput(f"{output.parent}: no such folder", hint="make it, or choose another -o")
    except OSError as error:
        raise BadInput(f"{output}: cannot be read: {error.strerror}", hint="choose another -o") from error


def ask(arguments: list[str], body: dict[str, Any], narrate: Callable[[str], None]) -> dict[str, Any]:
    """Have ``python -m ftwiz.engine.export`` do something; return its answer.

    Raises:
        FtwizError: It said why not.
    """
    with tempfile.TemporaryFile() as noise, _ends_on_signals():
        process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=noise,
            env=os.environ | _SURROUNDINGS,
            start_new_session=True,  # Ctrl-C comes here first, and what it leaves is removed afterwards
        )
        try:
            answer = _talk(process, body, narrate)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return answer if answer is not None else _unexplained(process.returncode, noise)


def _talk(
    process: "subprocess.Popen[bytes]", body: dict[str, Any], narrate: Callable[[str], None]
) -> dict[str, Any] | None:
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError), process.stdin as stdin:
        stdin.write(json.dumps(body).encode())
    with process.stdout as stdout:
        for line in stdout:
            said = json.loads(line)
            if "say" in said:
                narrate(said["say"])
            elif "error" in said:
                kind = BadInput if said["code"] == ExitCode.BAD_INPUT else Refused
                raise kind(said["error"], hint=said["hint"])
            else:
                answer: dict[str, Any] = said["result"]
                process.wait()
                return answer
    process.wait()
    return None


def _unexplained(code: int, noise: IO[bytes]) -> dict[str, Any]:
    if code == -signal.SIGKILL:
        raise Refused(
            "the exporting process was killed, as the kernel does when host memory runs out",
            hint="stop what else runs here, or take --dtype bf16",
        )
    noise.seek(0)
    last = (noise.read().decode(errors="replace").strip().splitlines() or [f"exit code {code}"])[-1]
    raise FtwizError(f"the export failed: {last}", hint="nothing was written")


@contextmanager
def _beside(output: Path) -> Iterator[Path]:
    try:
        folder = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}."))
    except OSError as error:
        raise Refused(f"{output}: cannot be written: {error.strerror}", hint="choose another -o") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _ends_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end this process as Ctrl-C does: with everything put away."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    former = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
