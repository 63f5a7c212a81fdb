"""The run folder is private, is found by its id only, and is listed quickly whatever lies around."""

import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ftwiz.engine.errors import BadInput, Refused
from ftwiz.engine.rundir import RunFolder, create, find, list_runs
from ftwiz.engine.specs.run import Attempt, Diagnosis, ProcessIdentity, RunRecord, RunState

Make = Callable[..., RunFolder]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make(name: str, *, now: float | None = None, files: dict[str, str] | None = None) -> RunFolder:
        run = create(tmp_path / "runs", name, files=files or {}, now=now)
        run.write_record(
            RunRecord(
                id=run.id,
                name=name,
                state=RunState.CREATED,
                created_at=now or time.time(),
                host=socket.gethostname(),
                ftwiz_version="0",
            )
        )
        return run

    return make


@pytest.fixture(params=[0o000, 0o077, 0o777], ids=lambda mask: f"umask {mask:03o}")
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_folders_are_0700_and_files_0600_under_any_umask(umask: int, tmp_path: Path) -> None:
    run = create(tmp_path / "home" / "runs", "x", files={"job.yaml": "a", "launch.sh": "b"})
    run.write_record(
        RunRecord(id=run.id, name="x", state=RunState.CREATED, created_at=1.0, host="h", ftwiz_version="0")
    )
    folders = [tmp_path / "home", run.path.parent, run.path, *(p for p in run.path.iterdir() if p.is_dir())]
    assert {mode(folder) for folder in folders} == {0o700}
    assert mode(run.path / "job.yaml") == mode(run.record_file) == 0o600
    assert mode(run.launch_script) == 0o700


def test_a_record_comes_back_as_it_was_written(make: Make) -> None:
    run = make("whole")
    me = ProcessIdentity(pid=1, start_ticks=2, boot_id="b")
    record = RunRecord(
        id=run.id,
        name="whole",
        state=RunState.FAILED,
        created_at=1.5,
        host="h",
        ftwiz_version="0",
        supervisor=me,
        attempts=(
            Attempt(number=1, started_at=2.0, exit_code=-9, launcher=me),
            Attempt(number=2, started_at=3.0),
        ),
        reason="r",
        diagnosis=Diagnosis(cause="nan", message="m"),
        resumable_from="checkpoint-4",
    )
    run.write_record(record)
    assert run.read_record() == record


def test_two_runs_of_one_second_get_two_folders(make: Make) -> None:
    assert make("twin", now=1e9).path != make("twin", now=1e9).path


def test_runs_are_listed_newest_first_whatever_was_touched_since(make: Make, tmp_path: Path) -> None:
    made = [make("a", now=2e9), make("b", now=1e9), make("c", now=3e9)]
    made[1].write_record(made[1].read_record())
    assert [run.id[0] for run in list_runs(tmp_path / "runs")] == ["c", "a", "b"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"created_at": "x"}', "[" * 100_000], ids=range(5))
def test_a_broken_record_is_listed_and_does_not_hide_the_others(
    text: str, make: Make, tmp_path: Path
) -> None:
    whole, broken = make("whole"), make("broken")
    broken.record_file.write_text(text)
    assert {run.id for run in list_runs(tmp_path / "runs")} == {whole.id, broken.id}
    with pytest.raises(BadInput, match=r"run\.json"):
        broken.read_record()


def test_what_is_no_run_is_not_listed(make: Make, tmp_path: Path) -> None:
    run = make("real")
    root = tmp_path / "runs"
    (root / "notes.txt").write_text("x")
    (root / "empty").mkdir()
    (root / "link").symlink_to(run.path)
    assert list_runs(root) == [run]
    assert list_runs(root / "notes.txt") == []
    assert list_runs(tmp_path / "nowhere") == []


def test_a_thousand_runs_are_listed_within_half_a_second(make: Make, tmp_path: Path) -> None:
    text = make("first").record_file.read_text()
    for number in range(999):
        folder = tmp_path / "runs" / f"run-{number}"
        folder.mkdir()
        (folder / "run.json").write_text(text)
    best = min(_seconds(lambda: list_runs(tmp_path / "runs")) for _ in range(3))
    assert len(list_runs(tmp_path / "runs")) == 1000
    assert best < 0.5


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def test_a_run_is_found_by_id_by_unique_prefix_by_path_and_as_the_newest(make: Make, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    old, new = make("alpha", now=1e9), make("beta", now=2e9)
    assert find(root, None) == new
    assert find(root, old.id) == old
    assert find(root, "al") == old
    assert find(root, str(old.path)) == old


def test_an_id_that_begins_another_is_still_itself(make: Make, tmp_path: Path) -> None:
    short = make("x", now=1e9)
    make("x", now=1e9)
    assert find(tmp_path / "runs", short.id) == short


def test_a_prefix_of_several_names_them(make: Make, tmp_path: Path) -> None:
    make("same", now=1e9), make("same", now=2e9)
    with pytest.raises(BadInput, match="fits 2 runs: same-2033"):
        find(tmp_path / "runs", "same")


@pytest.mark.parametrize(
    "wanted",
    [
        *["..", ".", "../runs", "../../etc", "/etc", "/", "-rf", "", "a b", "a/../b", "~"],
        *["x\n", "\x1b[2J", "\0", "/\0", "x" * 300, "/" + "x" * 300],
    ],
    ids=repr,
)
def test_what_is_no_id_is_bad_input(wanted: str, make: Make, tmp_path: Path) -> None:
    make("x", now=1e9)
    with pytest.raises(BadInput) as refusal:
        find(tmp_path / "runs", wanted)
    assert refusal.value.exit_code == 2


def test_a_path_that_climbs_is_refused_even_to_a_real_run(make: Make, tmp_path: Path) -> None:
    run = make("real")
    with pytest.raises(BadInput, match=r"\.\."):
        find(tmp_path / "runs", f"{run.path}/../{run.id}")


def test_a_link_is_not_followed(make: Make, tmp_path: Path) -> None:
    run = make("real")
    link = tmp_path / "runs" / "linked"
    link.symlink_to(run.path)
    with pytest.raises(BadInput, match="link"):
        find(tmp_path / "runs", str(link))
    with pytest.raises(BadInput, match="no run"):
        find(tmp_path / "runs", "linked")


def test_no_runs_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no runs") as refusal:
        find(tmp_path, None)
    assert refusal.value.hint == "start one with: ftwiz run JOB.yaml"


def test_a_file_in_the_way_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(Refused, match="cannot be written"):
        create(tmp_path / "runs", "x", files={})


def test_a_folder_that_cannot_be_filled_does_not_stay(tmp_path: Path) -> None:
    with pytest.raises(Refused):
        create(tmp_path, "x", files={"a": "1", "b" * 300: "2"})
    assert list(tmp_path.iterdir()) == []
