"""What is documented is true: commands run, jobs load, links lead somewhere, and nothing is left out.

Every ``$ ftwiz ...`` line of a ``console`` block is run, page by page, in a folder that holds the files which
the page shows. A comment before a block adds arguments, so that a page can show a real model and the test can
train a tiny one: ``<!-- test: run with --set train.max_steps=3 -->``.
"""

import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ftwiz import __version__
from ftwiz.cli.group import VERBS, group
from ftwiz.engine.job import job_schema, parse_job

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted(ROOT.glob("docs/**/*.md")),
]
LANGUAGES = {"console", "yaml", "json", "text", "sh", "python"}
"""``console`` is run here; ``sh`` is what a person types once, to install."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, its text, and the arguments that a test adds."""

    language: str
    text: str
    added: tuple[str, ...]


FENCE = re.compile(
    r"(?:<!-- test: run with (?P<added>.*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


def _blocks(page: Path) -> Iterator[Block]:
    for found in FENCE.finditer(page.read_text(encoding="utf8")):
        yield Block(found["language"], found["text"], tuple(shlex.split(found["added"] or "")))


def _commands(page: Path) -> Iterator[list[str]]:
    for block in _blocks(page):
        lines = block.text.splitlines() if block.language == "console" else []
        for line in lines:
            if line.startswith("$ "):
                yield [*shlex.split(line.removeprefix("$ "), comments=True), *block.added]


def _id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


RUNNABLE = [page for page in PAGES if any(_commands(page))]

JOB = """version: 1
model: {name_or_path: ./tiny-model}
data: {path: questions.jsonl}
train: {max_steps: 2, global_batch_size: 2, max_length: 64}
run: {num_samples: 1, sample_max_new_tokens: 2}
"""


@pytest.fixture
def workspace(tmp_path: Path, tiny_model: Path, qa_rows: Path) -> Path:
    """A reader's folder: a model, rows, and a job of his own."""
    folder = tmp_path / "reader"
    folder.mkdir()
    (folder / "tiny-model").symlink_to(tiny_model)
    for name in ("gsm8k.jsonl", "questions.jsonl"):
        shutil.copy(qa_rows, folder / name)
    (folder / "job.yaml").write_text(JOB, encoding="utf8")
    return folder


@pytest.mark.train
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", RUNNABLE, ids=_id)
def test_the_commands_of_a_page_run(page: Path, workspace: Path, run_ftwiz: Callable[..., Any]) -> None:
    for block in _blocks(page):
        name = re.match(r"# ([\w.-]+\.yaml)\n", block.text)
        if block.language == "yaml" and name:
            (workspace / name[1]).write_text(block.text, encoding="utf8")
    for command in _commands(page):
        assert command[0] == "ftwiz"
        done = run_ftwiz(*command[1:], cwd=workspace, timeout=120)
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"


def test_there_are_commands_to_run() -> None:
    assert ROOT / "README.md" in RUNNABLE


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_a_page_has_only_blocks_that_are_known(page: Path) -> None:
    assert {block.language for block in _blocks(page)} <= LANGUAGES


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_jobs_and_json_of_a_page_load(page: Path, workspace: Path) -> None:
    for block in _blocks(page):
        if block.language == "yaml" and re.search(r"^version: 1\b", block.text, re.MULTILINE):
            assert parse_job(block.text, name=_id(page), base=workspace).job
        if block.language == "json":
            assert [json.loads(line) for line in block.text.splitlines() if line.strip()]


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_links_between_pages_lead_to_a_file(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    local = [target for target in targets if "://" not in target]
    assert not [target for target in local if not (page.parent / target).exists()]


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    named = re.findall(
        r"`((?:tests|engine|tui|presets|bench|docs|tools|ftwiz)/[\w./-]+)`", page.read_text("utf8")
    )
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_a_page_names_only_commands_that_exist_or_are_said_to_be_planned(page: Path) -> None:
    unknown = set()
    for line in page.read_text(encoding="utf8").splitlines():
        verbs = set(re.findall(r"`ftwiz ([a-z]+)", line))
        unknown |= set() if "| planned: " in line else verbs - VERBS.keys()
    assert not unknown


def test_every_command_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf8")
    table = text[text.index("## Commands") : text.index("## How it works")]
    assert not [name for name in VERBS if f"| `ftwiz {name}" not in table]


def test_the_options_in_the_readme_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf8")
    with group.make_context("ftwiz", [], resilient_parsing=True) as context:
        for verb, row in re.findall(r"^\| `ftwiz ([a-z]+)(.*)\|$", text, re.MULTILINE):
            command = group.get_command(context, verb)
            assert command is not None, verb
            known = {option for parameter in command.params for option in parameter.opts}
            assert set(re.findall(r"--[a-z-]+", row)) <= known, verb


def test_the_changelog_has_this_version() -> None:
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf8")


def test_the_readme_names_every_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]
    install = (ROOT / "docs" / "install.md").read_text(encoding="utf8")
    assert not [extra for extra in project["optional-dependencies"] if f"`ftwiz[{extra}]`" not in install]


def test_every_room_has_its_section() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf8")
    sections = set(re.findall(r"^### (\S+)$", page, re.MULTILINE))
    entries = (path for path in (ROOT / "engine").iterdir() if not path.name.startswith(("_", ".")))
    rooms = {path.stem for path in entries if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert rooms | {"tui", "presets", "ftwiz/cli"} == sections


def test_the_readme_shows_the_rooms_that_are_there() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf8")
    tree = text[text.index("## The house") : text.index("## Status")]
    rooms = re.findall(r"^  (\w[\w.]*)/? ", tree, re.MULTILINE)
    assert rooms
    assert not [room for room in rooms if not (ROOT / "engine" / room).exists()]


ROW = re.compile(r"^\| (?P<name>[^|]+) \| (?P<status>[^|]+) \| (?P<here>[^|]*)\|$", re.MULTILINE)
MATRIX = [
    (found["name"].strip(), found["status"].strip(), found["here"].strip())
    for found in ROW.finditer((ROOT / "docs" / "support-matrix.md").read_text(encoding="utf8"))
    if found["name"].strip() not in {"name", "---"}
]
PARTS = {
    "hardware",
    "planner and engines",
    "training coverage",
    "many machines",
    "supervisor",
    "monitor",
    "wizard",
}


def test_every_row_of_the_matrix_says_where_it_stands() -> None:
    for name, status, here in MATRIX:
        word, _, parts = status.partition(": ")
        assert word in {"works", "untested", "planned", "refused"}, name
        assert word != "refused" or here, f"{name}: refused without what to use instead"
        assert (word == "planned") == bool(parts), name
        assert set(filter(None, parts.split(", "))) <= PARTS, name


@pytest.mark.parametrize("name", [name for name, status, _ in MATRIX if status in {"works", "untested"}])
def test_what_the_matrix_offers_is_taken_by_the_job_file(name: str, workspace: Path) -> None:
    (here,) = (here for row, _, here in MATRIX if row == name)
    for key, value in re.findall(r"`([a-z]+(?:\.\w+)*): ([^`]+)`", here):
        rollout = [f"rollout.{one}" for one in ("reward_functions=[r.py:f]", "max_completion_length=8")]
        more = [*rollout, "train.global_batch_size=8"] if value in {"grpo", "rloo"} else []
        more += ["method.kind=full"] if value.startswith(("galore", "apollo")) else []
        loaded = parse_job(JOB, name="job", base=workspace, overrides=[f"{key}={value}", *more])
        assert loaded.job


def _choices(schema: dict[str, Any], path: str) -> set[str]:
    node: Any = schema
    for key in path.split("."):
        node = node["properties"][key]
        while "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    return set(node.get("enum", [node.get("const")])) - {"auto"}


@pytest.mark.parametrize("key", ["stage", "method.kind", "plan.backend", "train.optim", "data.format"])
def test_every_choice_of_the_job_file_has_its_row(key: str) -> None:
    offered = " ".join(here for _, status, here in MATRIX if status in {"works", "untested"})
    missing = {choice for choice in _choices(job_schema(), key) if f"`{key}: {choice}`" not in offered}
    assert not missing
