"""The walls between the rooms, as they hold at run time: what a process really has loaded.

The import-linter contracts in pyproject.toml hold the same walls statically; they cannot see what a deferred
import does, and these can.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import ftwiz
from ftwiz.cli.group import VERBS

STACK = {
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "tokenizers",
    "deepspeed",
    "bitsandbytes",
    "numpy",
    "pandas",
    "pyarrow",
}
FULL_SCREEN = {"textual", "questionary", "prompt_toolkit"}
SCREEN = FULL_SCREEN | {"rich"}
"""rich alone is light: its table of cell widths keeps columns straight on a plain terminal too."""
PACKAGE = Path(ftwiz.__file__).parent

LOADED = """
import json, sys
def report():
    print("\\n" + json.dumps(sorted({name.partition(".")[0] for name in sys.modules})), file=sys.stderr)
"""


def _loaded_by(
    code: str, *arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None
) -> set[str]:
    """Run ``code`` in a process of its own; return the top-level names of all that it loaded."""
    done = subprocess.run(
        [sys.executable, "-c", f"{LOADED}\ntry:\n    {code}\nfinally:\n    report()", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=env,
        cwd=cwd,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return set(json.loads(done.stderr.rstrip().splitlines()[-1]))


def _modules(room: str) -> list[str]:
    """Every module of a room, by the files that are there."""
    folder = PACKAGE.joinpath(*room.split("."))
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    dotted = [".".join(file.relative_to(PACKAGE).with_suffix("").parts) for file in files]
    return [f"ftwiz.{name.removesuffix('.__init__')}" for name in dotted if not name.endswith("__main__")]


def _rooms(parent: str) -> list[str]:
    """The files and folders of a storey of the house."""
    folder = PACKAGE / parent
    found = (path for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file())
    return sorted({f"{parent}.{path.stem}" for path in found if path.stem != "__init__"})


ENGINE_ROOMS = [room for room in _rooms("engine") if room not in {"engine.worker", "engine.trace"}]
"""All but those where torch is at home."""
SCREEN_ROOMS = _rooms("tui")


def test_the_rooms_are_found() -> None:
    assert {"engine.specs", "engine.plan", "engine.supervise", "engine.stages"} <= set(ENGINE_ROOMS)
    assert "tui.monitor" in SCREEN_ROOMS


@pytest.mark.parametrize("room", ENGINE_ROOMS)
def test_a_room_of_the_engine_loads_neither_the_stack_nor_the_screen(room: str) -> None:
    loaded = _loaded_by(f"import {', '.join(_modules(room))}")
    assert not loaded & (STACK | SCREEN)


@pytest.mark.parametrize("room", SCREEN_ROOMS)
def test_a_room_of_the_screen_does_not_load_the_stack(room: str) -> None:
    assert not _loaded_by(f"import {', '.join(_modules(room))}") & STACK


def test_detecting_and_sampling_hardware_does_not_load_the_stack() -> None:
    loaded = _loaded_by("from ftwiz.engine.hardware import detect, sample; sample(detect())")
    assert not loaded & (STACK | SCREEN)


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_load_nothing_but_the_command_line(option: str) -> None:
    bare = _loaded_by("pass")
    loaded = _loaded_by("from ftwiz.cli import main; main()", option)
    assert loaded - bare == {"ftwiz"}


@pytest.fixture
def job(tmp_path: Path, qa_rows: Path, tiny_model: Path) -> Path:
    path = tmp_path / "job.yaml"
    body = {"version": 1, "model": {"name_or_path": str(tiny_model)}, "data": {"path": str(qa_rows)}}
    path.write_text(yaml.safe_dump(body), encoding="utf8")
    return path


FRONT = {
    "run --dry-run": ["run", "--dry-run", "JOB"],
    "plan": ["plan", "JOB"],
    "plan --json": ["plan", "--json", "JOB"],
    "runs": ["runs"],
    "runs --json": ["runs", "--json"],
    "watch --once": ["watch", "--once", "--json", "RUN"],
    "logs": ["logs", "RUN"],
    "devices": ["devices"],
    "devices --json": ["devices", "--json"],
    "plan --machine": ["plan", "--machine", "8xA100-80GB", "JOB"],
    "presets": ["presets"],
    "models": ["models", "llama"],
    "models NAME": ["models", "gpt2"],
    "schema": ["schema"],
    "estimate": ["estimate", "openai-community/gpt2", "--machine", "2x4090"],
    "estimate --explain": ["estimate", "openai-community/gpt2", "--explain"],
}
"""The commands that a machine without the stack must answer too."""


@pytest.mark.parametrize("command", FRONT)
def test_a_front_command_does_not_load_the_stack_or_the_full_screen(
    command: str, job: Path, home: Path, finished_run: Path
) -> None:
    names = {"JOB": str(job), "RUN": str(finished_run)}
    arguments = [names.get(argument, argument) for argument in FRONT[command]]
    code = "from ftwiz.cli.group import run_group; code = run_group(sys.argv[1:]); assert code == 0, code"
    loaded = _loaded_by(code, *arguments, env={"FTWIZ_HOME": str(home), "PATH": "/usr/bin:/bin"}, cwd=home)
    assert not loaded & (STACK | FULL_SCREEN)


@pytest.mark.parametrize("command", [*VERBS])
def test_the_help_of_a_command_loads_neither_the_stack_nor_the_full_screen(command: str) -> None:
    code = "from ftwiz.cli.group import run_group; run_group(sys.argv[1:])"
    assert not _loaded_by(code, command, "--help") & (STACK | FULL_SCREEN)


@pytest.mark.train
def test_the_worker_knows_the_stack_and_not_the_full_screen() -> None:
    loaded = _loaded_by(f"import {', '.join(_modules('engine.worker'))}")
    assert {"torch", "transformers"} <= loaded
    assert not loaded & FULL_SCREEN


@pytest.mark.train
def test_what_a_stage_defers_still_loads_when_it_is_needed() -> None:
    """A wall that keeps the stack out for ever would pass every other test here."""
    loaded = _loaded_by(
        "from ftwiz.engine.stages import check_arguments as check; check('sft', {'use_cpu': True})"
    )
    assert {"torch", "transformers", "trl"} <= loaded


def test_starting_a_supervisor_does_not_load_the_stack() -> None:
    loaded = _loaded_by("import ftwiz.engine.supervise, ftwiz.engine.supervise.__main__")
    assert not loaded & (STACK | SCREEN)
