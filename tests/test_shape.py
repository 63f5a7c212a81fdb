"""The size and the habits of the house: what a reader may count on in every file."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAX_FUNCTION, USUAL_FUNCTION, USUAL_SHARE = 60, 40, 0.96
MAX_FILE = 400
Function = ast.FunctionDef | ast.AsyncFunctionDef


def _tracked() -> list[Path]:
    """Every file that git knows; in an unpacked archive, every file there is."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        skipped = {".git", ".venv", "__pycache__", "runs"}
        paths = [path for path in ROOT.rglob("*") if not skipped & set(path.relative_to(ROOT).parts)]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


TRACKED = _tracked()
SOURCES = [path for path in TRACKED if path.suffix == ".py"]
HOUSE = [path for path in SOURCES if path.relative_to(ROOT).parts[0] in {"ftwiz", "engine", "tui"}]
TREES = {path: ast.parse(path.read_text(encoding="utf8"), str(path)) for path in SOURCES}


def _name(path: Path, node: ast.AST | None = None) -> str:
    place = path.relative_to(ROOT).as_posix()
    return f"{place}:{getattr(node, 'lineno', '?')}" if node else place


def _functions(paths: list[Path]) -> Iterator[tuple[Path, Function, int]]:
    """Every function with its length in lines, without decorators and docstring."""
    for path in paths:
        for node in ast.walk(TREES[path]):
            if isinstance(node, Function):
                first = node.body[0]
                has_docstring = ast.get_docstring(node, clean=False) is not None
                docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if has_docstring else 0
                yield path, node, (node.end_lineno or node.lineno) - node.lineno + 1 - docstring


def test_the_house_is_seen_by_these_tests() -> None:
    rooms = {path.relative_to(ROOT).parts[0] for path in HOUSE}
    assert rooms == {"ftwiz", "engine", "tui"}


def test_no_function_is_longer_than_sixty_lines() -> None:
    long = [
        f"{_name(p, f)} {f.name}: {length}" for p, f, length in _functions(SOURCES) if length > MAX_FUNCTION
    ]
    assert not long


def test_nearly_all_functions_of_the_house_fit_in_forty_lines() -> None:
    lengths = [length for _, _, length in _functions(HOUSE)]
    share = sum(length <= USUAL_FUNCTION for length in lengths) / len(lengths)
    assert share >= USUAL_SHARE


def test_no_file_is_longer_than_four_hundred_lines() -> None:
    lines = {path: path.read_text(encoding="utf8").count("\n") for path in SOURCES}
    assert not [f"{_name(path)}: {count}" for path, count in lines.items() if count > MAX_FILE]


def test_every_module_of_the_house_says_what_it_is() -> None:
    assert not [_name(path) for path in HOUSE if not ast.get_docstring(TREES[path])]


def test_nothing_is_global() -> None:
    found = [_name(p, n) for p in SOURCES for n in ast.walk(TREES[p]) if isinstance(n, ast.Global)]
    assert not found


def test_rooms_are_imported_through_the_package_only() -> None:
    """``import engine`` works inside a checkout, and would make every noun exist twice."""
    found = []
    for path, node in ((p, n) for p in SOURCES for n in ast.walk(TREES[p])):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        found += [_name(path, node) for name in names if name.split(".")[0] in {"engine", "tui", "presets"}]
    assert not found


def test_inside_the_house_imports_are_relative() -> None:
    found = [
        _name(path, node)
        for path in HOUSE
        for node in ast.walk(TREES[path])
        if (isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").startswith("ftwiz"))
        or (isinstance(node, ast.Import) and any(alias.name.startswith("ftwiz") for alias in node.names))
    ]
    assert not found


def test_no_shell_reads_what_we_run() -> None:
    found = []
    for path, node in ((p, n) for p in SOURCES for n in ast.walk(TREES[p])):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        shell = any(k.arg == "shell" and ast.unparse(k.value) != "False" for k in node.keywords)
        if shell or called in {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}:
            found.append(f"{_name(path, node)} {called}")
    assert not found


def test_no_error_is_swallowed_unnamed() -> None:
    found = [
        _name(path, node)
        for path in SOURCES
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.ExceptHandler) and node.type is None
    ]
    assert not found


def test_every_noqa_names_its_rule() -> None:
    blanket = re.compile(r"#\s*(noqa(?!:\s*[A-Z])|type:\s*ignore(?!\[))")
    found = [
        f"{_name(path)}:{number}"
        for path in HOUSE
        for number, line in enumerate(path.read_text(encoding="utf8").splitlines(), 1)
        if blanket.search(line)
    ]
    assert not found


def test_nothing_is_left_to_do_later() -> None:
    words = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")) + r")\b")
    found = [_name(path) for path in SOURCES if words.search(path.read_text(encoding="utf8"))]
    assert not found


FOREIGN = (
    r"/home/\w+",
    r"/root/",
    r"/Users/\w+",
    re.escape(str(ROOT)) + r"\b",
    r"index-url",
    r"https?://[\w.-]*(artifactory|nexus|registry|simple)[\w.-]*",
    r"\b(AKIA[0-9A-Z]{16}|hf_[A-Za-z0-9]{30,}|-----BEGIN [A-Z ]*PRIVATE KEY)",
)
"""What belongs to one person's machine, one company's network, or nobody's eyes."""


@pytest.mark.parametrize("pattern", FOREIGN)
def test_no_file_names_a_private_place(pattern: str) -> None:
    found = []
    for path in TRACKED:
        if path == Path(__file__).resolve():
            continue
        try:
            text = path.read_text(encoding="utf8")
        except UnicodeDecodeError:
            continue  # a picture
        found += [f"{_name(path)}: {match.group()}" for match in re.finditer(pattern, text)]
    assert not found


def test_links_stay_inside_the_checkout() -> None:
    links = {name: (ROOT / "ftwiz" / name).readlink().as_posix() for name in ("engine", "tui", "presets")}
    assert links == {name: f"../{name}" for name in links}


def test_big_files_stay_out() -> None:
    sizes = {path: path.stat().st_size for path in TRACKED}
    assert not [f"{_name(path)}: {size}" for path, size in sizes.items() if size > 1_000_000]
    assert sum(sizes.values()) < 10_000_000
