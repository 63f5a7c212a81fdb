"""Text becomes a checked tree, or one line says why not: reliability cases I3 to I6 and I8."""

import math
import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from ftwiz.engine.errors import BadInput
from ftwiz.engine.job import load_job, parse_job
from ftwiz.engine.job.reader import MAX_BYTES, read_tree
from ftwiz.engine.job.tree import Origin, Source, plain

Refuse = Callable[..., BadInput]
pytestmark = pytest.mark.timeout(20)


def read(text: str) -> object:
    node = read_tree(text, Origin("job.yaml", Source.FILE, Path("/jobs")))
    return None if node is None else plain(node)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("1e-4", 1e-4),
        ("2E5", 2e5),
        ("1_000", "1_000"),
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("true", True),
        ("False", False),
        ("22:22", "22:22"),
        ("~", None),
        ("", None),
        ("0x1F", 31),
        ("0o17", 15),
        ("0", 0),
        ("-7", -7),
        (".5", 0.5),
        ("5.", 5.0),
        ("-.inf", -math.inf),
        ("2026-01-01", "2026-01-01"),
        ("1.2.3", "1.2.3"),
        ("'1'", "1"),
        ('"no"', "no"),
        ("!!str 12", "12"),
        ("!!float 1", 1),
        ("ftwiz:demo", "ftwiz:demo"),
    ],
)
def test_words_mean_what_yaml_1_2_says(word: str, value: object) -> None:
    found = read(f"key: {word}\n")
    assert isinstance(found, dict)
    assert (found["key"], type(found["key"])) == (value, type(value))


def test_not_a_number_can_be_written() -> None:
    found = read("key: .nan")
    assert isinstance(found, dict)
    assert math.isnan(found["key"])


def test_a_leading_zero_is_explained(refusal_of_train: Refuse) -> None:
    message = refusal_of_train("seed: 010").message
    assert (
        message
        == "job.yaml:4: train.seed: 010 is octal to some readers and 10 to others; write 10, or quote it"
    )


def test_equal_keys_name_both_lines(refusal_of_text: Refuse) -> None:
    message = refusal_of_text("train:\n  seed: 1\n\n  seed: 2\n").message
    assert message == "job.yaml:4: the key 'seed' is here a second time (first on line 2)"


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("train:\n\tseed: 1\n", 2, "tab"),
        ("\tseed: 1\n", 1, "tab"),
        ("- a\n- b\n", 1, "a list"),
        ("just words\n", 1, "keys and values"),
        ("5\n", 1, "keys and values"),
        ("a: b: c\n", 1, "not valid YAML"),
        ("a: 'open\n", 2, "not valid YAML"),
        ("a: 1\nb: \x1b]52;c;aGk=\x07\n", 2, "does not belong"),
        ("a: 1\n---\nb: 2\n", 2, "second document"),
        ("1: a\n", 1, "needs quotes"),
        ("? [a, b]\n: c\n", 1, "a key is a word"),
        ("a: *nothing\n", 1, "stands for nothing"),
        ("a: !!binary aGk=\n", 1, "the tag"),
        ("a: !!int word\n", 1, "is not int"),
        ("a: !!set {b}\n", 1, "the tag"),
        (f"seed: {'9' * 5000}\n", 1, "5,000 digits"),
    ],
)
def test_what_is_no_job_gets_one_line_with_its_place(
    refusal_of_text: Refuse, text: str, line: int, part: str
) -> None:
    message = refusal_of_text(text).message
    assert message.startswith(f"job.yaml:{line}: ")
    assert part in message


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n"])
def test_an_empty_file_says_so(refusal_of_text: Refuse, text: str) -> None:
    assert refusal_of_text(text).message == "job.yaml: is empty"


@pytest.mark.parametrize(
    "tag",
    ["!!python/object/apply:os.system", "!!python/name:os.system", "!!python/object/new:os.system", "!mine"],
)
def test_tags_that_make_objects_are_refused_and_make_none(
    refusal_of_text: Refuse, tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for text in (f"train: {tag} [touch PWNED]\n", f"train: {tag} touch PWNED\n", f"{tag} a: b\n"):
        assert "the tag" in refusal_of_text(text).message
    assert list(tmp_path.iterdir()) == []


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, levels)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        bomb(9),
        "a: &x [*x]\n",
        "a: &x {b: *x}\n",
        "[" * 200_000,
        "{" * 200_000,
        '{"a":' * 40_000,
        "- " * 100_000,
        "? " * 100_000,
        "a: " + "[" * 200_000 + "]" * 200_000,
        "a: [" + "1, " * 80_000 + "]\n",
        "".join(f"k{n}: 1\n" for n in range(20_000)),
        "a: &a b\n" + "".join(f"k{n}: *a\n" for n in range(1000)),
        "a: " + "&a" * 50_000,
        "a" * MAX_BYTES,
        "a: " + "x" * MAX_BYTES,
        "#\n" * (MAX_BYTES // 2),
        "!" * 100_000,
        "a: '" + "'" * 200_000,
        "a: |\n" + " x\n" * 60_000,
        "%" * 100_000,
    ],
    ids=lambda text: text[:12].encode().hex()[:12] + str(len(text)),
)
def test_bombs_are_refused_in_little_time_and_memory(refusal_of_text: Refuse, text: str) -> None:
    started = time.process_time()
    refusal_of_text(text)
    assert time.process_time() - started < 1
    tracemalloc.start()
    refusal_of_text(text)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 100 << 20


def test_aliases_within_bounds_work() -> None:
    found = read("base: &b {seed: 1}\nother: *b\n")
    assert found == {"base": {"seed": 1}, "other": {"seed": 1}}


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"model: caf\xe9\n", ":1: byte 0xe9 is not UTF-8"),
        (b"a: 1\nb: x\0y\n", ":2: a NUL byte"),
        ("a: 1\n".encode("utf-16"), ":1: is UTF-16"),
        (b"", ": is empty"),
        (b"\xef\xbb\xbf", ": is empty"),
        (b"a" * (MAX_BYTES + 1), "KiB"),
        (bytes(range(128, 256)), ":1: byte 0x80 is not UTF-8"),
    ],
)
def test_files_that_are_not_text_are_told(
    job_folder: Path, refusal_of_file: Refuse, data: bytes, part: str
) -> None:
    path = job_folder / "job.yaml"
    path.write_bytes(data)
    message = refusal_of_file(path).message
    assert message.startswith(str(path))
    assert part in message


def test_a_byte_order_mark_and_windows_line_ends_are_fine(job_folder: Path) -> None:
    path = job_folder / "job.yaml"
    text = "model: {name_or_path: Qwen/Qwen3-0.6B}\r\ndata:\r\n  path: rows.jsonl\r\ntrain:\r\n  seed: 7\r\n"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert load_job(path).job.train.seed == 7


def test_what_is_no_ordinary_file_is_refused_without_waiting(
    job_folder: Path, refusal_of_file: Refuse
) -> None:
    pipe, loop, gone = job_folder / "pipe", job_folder / "loop", job_folder / "gone.yaml"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    assert refusal_of_file(pipe).message == f"{pipe}: is a named pipe, not a job file"
    assert refusal_of_file(job_folder).message == f"{job_folder}: is a folder, not a job file"
    assert refusal_of_file(Path("/dev/zero")).message == "/dev/zero: is a device, not a job file"
    assert refusal_of_file(loop).message == f"{loop}: too many levels of symbolic links"
    assert refusal_of_file(gone).message == f"{gone}: no such file or directory"
    assert "file name too long" in refusal_of_file(job_folder / ("x" * 300)).message
    assert "NUL" in refusal_of_file(Path("a\0b")).message


def test_escapes_in_names_and_values_never_reach_the_terminal(refusal_of_text: Refuse) -> None:
    evil = r"\e]52;c;aGk=\a\u202e"
    assert "\\x1b" in refusal_of_text(f'"{evil}": 1\n').message
    assert "\\x1b" in refusal_of_text(f'stage: "{evil}"\n').message
    assert (
        "\\x1b"
        in refusal_of_text(
            "model: 1\n", overrides=["\x1b[2J=1", "model.name_or_path=q", "data.path=q"]
        ).message
    )


def test_random_damage_never_gives_anything_but_a_job_or_one_line() -> None:
    whole = "model: {name_or_path: Qwen/Q}\ndata:\n  path: /x\ntrain: {seed: 1, optim: 'sgd'}\n"
    for position in range(len(whole)):
        for wrong in ("\t", "[", "}", ":", "&", "*", "!", "\n", "'", "-", "é"):
            text = whole[:position] + wrong + whole[position + 1 :]
            message = outcome(text)
            assert message is None or (message.startswith("job.yaml") and message.isprintable())


def outcome(text: str) -> str | None:
    try:
        parse_job(text, name="job.yaml", base=Path("/jobs"))
    except BadInput as error:
        return error.message
    return None
