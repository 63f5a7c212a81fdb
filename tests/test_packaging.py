"""What is shipped: the files of a wheel, a plain install without the stack, and the tested versions."""

import json
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))
ROOMS = ("engine", "tui", "presets")


def _run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        cwd=cwd,
        env=env,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made from the source archive as an index's users would make it."""
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    (found,) = folder.glob("*.whl")
    assert list(folder.glob("*.tar.gz"))
    return found


def _files_of(folder: Path) -> set[str]:
    """Every file below, by its path from the folder, without what Python leaves."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if "__pycache__" not in path.parts}


def test_a_wheel_made_from_the_source_archive_holds_every_file_of_the_rooms(wheel: Path) -> None:
    wanted = {f"ftwiz/{name}" for name in _files_of(ROOT / "ftwiz") if name.split("/")[0] not in ROOMS}
    for room in ROOMS:
        wanted |= {f"ftwiz/{room}/{name}" for name in _files_of(ROOT / room)}
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert shipped == wanted


def test_what_is_not_code_is_shipped_too(wheel: Path) -> None:
    shipped = set(zipfile.ZipFile(wheel).namelist())
    assert {"ftwiz/py.typed", "ftwiz/cli/help.txt", "ftwiz/presets/demo.yaml"} <= shipped
    assert any(name.startswith("ftwiz/presets/demo/") for name in shipped)
    assert any(name.endswith("licenses/LICENSE") for name in shipped)


def _light_closure() -> set[str]:
    """Names of every distribution that a plain ``pip install ftwiz`` brings."""
    waiting: list[str] = list(PROJECT["project"]["dependencies"])
    known: set[str] = set()
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        extras = requirement.extras or {""}
        if name in known or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        known.add(name)
        for needed in metadata.requires(name) or ():
            marker = Requirement(needed).marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(needed)
    return known


def test_a_plain_install_brings_no_training_stack() -> None:
    heavy = {"torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy", "tokenizers"}
    assert not _light_closure() & heavy


@pytest.fixture(scope="module")
def plain_install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel and the light dependencies; there is no torch to be found in it.

    The dependencies are linked from this environment, so that no index is asked.
    """
    folder = tmp_path_factory.mktemp("plain")
    venv, light = folder / "venv", folder / "light"
    _run(sys.executable, "-m", "venv", "--without-pip", venv)
    light.mkdir()
    for name in _light_closure():
        distribution = metadata.distribution(name)
        tops = {
            file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")
        }
        for top in tops:
            target = Path(str(distribution.locate_file(top)))
            if not (light / top).exists():
                (light / top).symlink_to(target)
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "light.pth").write_text(f"{light}\n", encoding="utf8")
    python = venv / "bin" / "python"
    _run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    return venv


def _plain_environment(home: Path) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "HOME": str(home), "FTWIZ_HOME": str(home), "LANG": "C.UTF-8"}


def test_the_installed_command_answers_from_anywhere(plain_install: Path, tmp_path: Path) -> None:
    from ftwiz import __version__

    environment = _plain_environment(tmp_path)
    ftwiz, python = plain_install / "bin" / "ftwiz", plain_install / "bin" / "python"
    assert _run(ftwiz, "--version", cwd=Path("/"), env=environment) == f"ftwiz {__version__}\n"
    assert (
        _run(python, "-m", "ftwiz", "--version", cwd=Path("/"), env=environment) == f"ftwiz {__version__}\n"
    )
    assert "demo" in _run(ftwiz, "presets", cwd=Path("/"), env=environment).split()
    assert _run(ftwiz, "runs", "--json", cwd=Path("/"), env=environment).strip() == "[]"


def test_without_torch_runs_are_planned_and_watched(
    plain_install: Path, qa_rows: Path, home: Path, finished_run: Path
) -> None:
    job = home / "job.yaml"
    job.write_text(f"model: {{name_or_path: some/model}}\ndata: {{path: {qa_rows}}}\n", encoding="utf8")
    ftwiz, environment = plain_install / "bin" / "ftwiz", _plain_environment(home)
    plan = json.loads(_run(ftwiz, "plan", "--json", job, env=environment))
    assert plan["strategy"]["num_processes"] >= 1
    state = json.loads(_run(ftwiz, "watch", "--once", "--json", finished_run.name, env=environment))
    assert "finished" in json.dumps(state)
    assert finished_run.name in _run(ftwiz, "runs", env=environment)
    assert _run(ftwiz, "logs", finished_run.name, env=environment) == "training is over\n"


@pytest.mark.parametrize(
    ("has_pip", "command"),
    [(True, "/bin/python -m pip install 'ftwiz[train]'"), (False, "pipx install --force 'ftwiz[train]'")],
    ids=["pip", "pipx and uv"],
)
def test_without_torch_the_demo_names_the_install_command_and_leaves_nothing(
    has_pip: bool, command: str, plain_install: Path, tmp_path: Path
) -> None:
    import pip

    (tmp_path / "pip").symlink_to(Path(pip.__file__).parent)
    environment = _plain_environment(tmp_path) | ({"PYTHONPATH": str(tmp_path)} if has_pip else {})
    done = subprocess.run(
        [plain_install / "bin" / "ftwiz", "demo"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 3
    assert "torch" in done.stderr
    assert command in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert not (tmp_path / "runs").exists()


PINS = {
    canonicalize_name(Requirement(line).name): Version(line.partition("==")[2])
    for line in (ROOT / "constraints.txt").read_text(encoding="utf8").splitlines()
    if line and not line.startswith("#")
}


def _declared() -> list[Requirement]:
    project = PROJECT["project"]
    texts = list(project["dependencies"]) + PROJECT["build-system"]["requires"]
    texts += [text for extra in project["optional-dependencies"].values() for text in extra]
    texts += [
        text for group in PROJECT["dependency-groups"].values() for text in group if isinstance(text, str)
    ]
    return [requirement for requirement in map(Requirement, texts) if requirement.name != "ftwiz"]


@pytest.mark.parametrize("requirement", _declared(), ids=str)
def test_every_range_admits_the_version_that_is_tested(requirement: Requirement) -> None:
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


def test_what_runs_here_is_the_tested_set() -> None:
    installed = {canonicalize_name(d.metadata["Name"]): Version(d.version) for d in metadata.distributions()}
    others = {
        name: str(installed[name])
        for name in PINS.keys() & installed.keys()
        if Version(installed[name].public) != PINS[name]
    }
    assert not others, "other versions than constraints.txt pins: rm .venv/.installed-*, then make check"
