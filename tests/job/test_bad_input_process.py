"""``ftwiz run`` on bad input as a user meets it: one line with the place, exit 2, soon, and nothing done.

Cases I1 to I11, each a process of its own in an empty folder.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

SMALLEST = "model: {name_or_path: gpt2}\ndata: {path: rows.jsonl}\n"
CONFIG = '"model_type": "llama", "hidden_size": 32'
MAX_BYTES = 200 << 20
MAX_CPU_SECONDS = 1.0
pytestmark = pytest.mark.timeout(60)


@dataclass(frozen=True)
class Ended:
    """How a process ended and what it took."""

    code: int
    out: str
    err: str
    cpu_seconds: float
    peak_bytes: int


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty folder to run in, beside ``jobs`` with the files."""
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


# A process started by a large one counts as large: Linux keeps the peak of before the exec. So a small
# one stands between this test and what it measures.
MEASURE = """
import json, os, sys
pid = os.spawnv(os.P_NOWAIT, sys.argv[2], sys.argv[2:])
_, status, usage = os.wait4(pid, 0)
body = [os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024]
with open(sys.argv[1], "w") as file:
    json.dump(body, file)
"""


def run(place: Path, *arguments: str | Path) -> Ended:
    """Run ``ftwiz run``, with nothing to read from and no pipe that could fill."""
    out, err, usage = (place.parent / name for name in ("out", "err", "usage"))
    measure = [sys.executable, "-I", "-S", "-c", MEASURE, str(usage)]
    with out.open("wb") as out_file, err.open("wb") as err_file:
        subprocess.run(
            [*measure, sys.executable, "-m", "ftwiz", "run", *map(str, arguments)],
            cwd=place,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(place),
                "LANG": "C.UTF-8",
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=out_file,
            stderr=err_file,
            check=True,
        )
    code, cpu_seconds, peak_bytes = json.loads(usage.read_text(encoding="utf8"))
    return Ended(
        code=code,
        out=out.read_text(encoding="utf8"),
        err=err.read_text(encoding="utf8"),
        cpu_seconds=cpu_seconds,
        peak_bytes=peak_bytes,
    )


def assert_refused(place: Path, ended: Ended, *parts: str) -> None:
    """One line says what and where, a second at most what to do; nothing was written and nothing run."""
    lines = ended.err.splitlines()
    assert ended.code == 2, ended.err
    assert ended.out == ""
    assert 1 <= len(lines) <= 2
    assert lines[0].startswith("error: ")
    assert all(line.startswith("hint: ") for line in lines[1:])
    assert all(line.isprintable() for line in lines)
    for part in parts:
        assert part in lines[0]
    assert list(place.iterdir()) == []
    assert not list(place.parent.rglob("PWN*"))
    assert ended.cpu_seconds < MAX_CPU_SECONDS
    assert ended.peak_bytes < MAX_BYTES


BOMB = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else 'lol'] * 9)}]\n" for n in range(9))

TEXTS: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "I1 unknown key": (f"{SMALLEST}train:\n  learning_rat: 1\n".encode(), (":4: ", "'learning_rate'")),
    "I2 word": (f"{SMALLEST}train: {{seed: many}}\n".encode(), (":3: ", "train.seed", "from 0 to")),
    "I2 nan": (
        f"{SMALLEST}train: {{learning_rate: .nan}}\n".encode(),
        (":3: ", "train.learning_rate", "above 0"),
    ),
    "I2 inf": (f"{SMALLEST}train: {{num_train_epochs: .inf}}\n".encode(), (":3: ", "train.num_train_epochs")),
    "I2 negative": (
        f"{SMALLEST}train: {{global_batch_size: -1}}\n".encode(),
        (":3: ", "train.global_batch_size"),
    ),
    "I2 huge": (f"{SMALLEST}train: {{weight_decay: 1e300}}\n".encode(), (":3: ", "train.weight_decay")),
    "I3 duplicate": (f"{SMALLEST}data: {{path: x}}\n".encode(), (":3: ", "'data'", "line 2")),
    "I4 tab": (b"train:\n\tseed: 1\n", (":2: ", "tab")),
    "I4 Latin-1": (b"model: caf\xe9\n", (":1: ", "UTF-8")),
    "I4 NUL": (b"model: \0\n", (":1: ", "NUL")),
    "I4 empty": (b"", ("is empty",)),
    "I4 list": (b"- a\n", (":1: ", "a list")),
    "I4 scalar": (b"words\n", (":1: ", "keys and values")),
    "I5 object": (b"model: !!python/object/apply:os.system [touch PWNED]\n", (":1: ", "tag")),
    "I6 bomb": (BOMB.encode(), ("aliases",)),
    "I6 self": (b"a: &x [*x]\n", (":1: ", "alias")),
    "I6 brackets": (b"[" * 200_000, (":1: ", "deep")),
    "I6 megabyte": (b"a: b\n" * 200_000, ("KiB",)),
    "I8 octal": (f"{SMALLEST}train: {{seed: 010}}\n".encode(), (":3: ", "train.seed", "octal")),
    "I8 no": (f"{SMALLEST}train: {{packing: no}}\n".encode(), (":3: ", "train.packing", "true or false")),
    "missing data": (
        b"model: {name_or_path: gpt2}\ndata: {path: gone.jsonl}\n",
        (":2: ", "data.path", "gone.jsonl"),
    ),
}


@pytest.mark.parametrize("case", TEXTS)
def test_a_bad_job_file_is_refused(place: Path, case: str) -> None:
    data, parts = TEXTS[case]
    path = place.parent / "jobs" / "job.yaml"
    path.write_bytes(data)
    assert_refused(place, run(place, path, "--dry-run"), str(path), *parts)
    assert path.read_bytes() == data


def test_what_is_no_ordinary_file_is_refused_and_a_pipe_does_not_hang(place: Path) -> None:
    pipe = place.parent / "jobs" / "pipe"
    os.mkfifo(pipe)
    assert_refused(place, run(place, pipe, "--dry-run"), str(pipe), "named pipe")
    assert_refused(place, run(place, pipe.parent, "--dry-run"), str(pipe.parent), "folder")
    assert_refused(place, run(place, "/dev/zero", "--dry-run"), "/dev/zero", "device")


def test_a_bad_override_is_refused(place: Path) -> None:
    path = place.parent / "jobs" / "job.yaml"
    path.write_text(SMALLEST)
    ended = run(place, path, "--dry-run", "--set", "train.lerning_rate=1")
    assert_refused(place, ended, "--set train.lerning_rate", "'learning_rate'")


CONFIGS = {
    "empty": ("", "is empty"),
    "NaN": (f'{{{CONFIG}, "rms_norm_eps": NaN}}', "rms_norm_eps"),
    "negative": (f'{{{CONFIG}, "num_hidden_layers": -3}}', "num_hidden_layers"),
    "petabytes": (f'{{{CONFIG}, "vocab_size": {10**15}}}', "vocab_size"),
    "5000 digits": (f'{{{CONFIG}, "vocab_size": {"9" * 5000}}}', "vocab_size"),
    "deep": ('{"a":' * 100_000, "too deep"),
    "auto_map": (f'{{{CONFIG}, "auto_map": {{"AutoConfig": "evil.Config"}}}}', "auto_map"),
    "internal": (
        f'{{{CONFIG}, "_attn_implementation_internal": "evil/kernels"}}',
        "_attn_implementation_internal",
    ),
    "nested trust": (f'{{{CONFIG}, "text_config": {{"trust_remote_code": true}}}}', "trust_remote_code"),
}


def model_job(place: Path) -> tuple[Path, Path]:
    """A job whose model is a folder with code in it; its config.json is still to be made."""
    folder = place.parent / "jobs" / "model"
    folder.mkdir()
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(place.parent / 'PWNED')!r})\n")
    path = place.parent / "jobs" / "job.yaml"
    path.write_text("model: {name_or_path: ./model}\ndata: {path: rows.jsonl}\n")
    return path, folder / "config.json"


@pytest.mark.parametrize("case", CONFIGS)
def test_a_bad_model_folder_is_refused(place: Path, case: str) -> None:
    path, config = model_job(place)
    config.write_text(CONFIGS[case][0])
    assert_refused(place, run(place, path, "--dry-run"), str(config), CONFIGS[case][1])


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (str, "no such file"),
        (os.mkfifo, "named pipe"),
        (lambda config: config.symlink_to(config), "symbolic links"),
        (lambda config: config.symlink_to("/dev/zero"), "device"),
    ],
    ids=["missing", "pipe", "loop", "zero"],
)
def test_a_config_that_is_no_file_is_refused(place: Path, make: Callable[[Path], object], part: str) -> None:
    path, config = model_job(place)
    make(config)
    assert_refused(place, run(place, path, "--dry-run"), str(config), part)


@pytest.mark.parametrize(
    "name", ["sp ace", "übung 訓練", "two\nlines", "-rf", "$(touch PWN)", "`touch PWN`", "n" * 249]
)
def test_hostile_names_of_job_and_data_are_one_line_at_most(place: Path, name: str) -> None:
    path = place.parent / "jobs" / f"{name}.yaml"
    path.write_text(f"{SMALLEST}train: {{seed: -1}}\n")
    assert_refused(place, run(place, path, "--dry-run"), "train.seed")
    path.write_text(SMALLEST)
    ended = run(place, path, "--dry-run", "--set", f"data.path={path.parent / name}")
    assert_refused(place, ended, "data.path")


@pytest.mark.parametrize("name", ["-rf.yaml", "--dry-run"])
def test_a_job_file_whose_name_begins_with_a_dash_needs_dashes_before_it(place: Path, name: str) -> None:
    ended = run(place, "--dry-run", "--", name)
    assert_refused(place, ended, f"{name}: no such file or directory")


def test_a_rejected_job_is_the_same_without_dry_run(place: Path) -> None:
    path = place.parent / "jobs" / "job.yaml"
    path.write_text(f"{SMALLEST}train: {{seed: -1}}\n")
    assert_refused(place, run(place, path), str(path), "train.seed")
