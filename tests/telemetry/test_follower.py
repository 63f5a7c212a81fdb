import errno
import os
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftwiz.engine import telemetry
from ftwiz.engine.specs.events import LogEvent, StateEvent
from ftwiz.engine.telemetry import EventFollower, EventLog, Follower, encode, follow, read_events

LINES = st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"") + b"\n"), max_size=8).map(
    b"".join
)
PIECES = st.lists(st.tuples(LINES, st.integers(0, 40)), min_size=1, max_size=5)
READS = st.tuples(st.integers(1, 9), st.integers(1, 30))
"""Bytes of one read, and of one poll."""


def drain(follower: Follower) -> list[bytes]:
    lines = follower.poll()
    while follower.behind:
        lines += follower.poll()
    return lines


@given(files=PIECES, torn=st.binary(max_size=5), rotate=st.booleans(), reads=READS)
def test_every_complete_line_is_handed_out_once_however_it_is_written(
    tmp_path_factory: pytest.TempPathFactory,
    *,
    files: list[tuple[bytes, int]],
    torn: bytes,
    rotate: bool,
    reads: tuple[int, int],
) -> None:
    """Each file is written in two pieces with polls between, ends torn, and is then rotated or cut."""
    path = tmp_path_factory.mktemp("follow") / "log"
    follower = Follower(path)
    seen: list[bytes] = []
    written: list[bytes] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(telemetry, "CHUNK_BYTES", reads[0])
        patch.setattr(telemetry, "POLL_BYTES", reads[1])
        seen += drain(follower)
        for number, (text, cut) in enumerate(files):
            if rotate and number:
                path.rename(path.with_suffix(f".{number}"))
            elif number:
                os.truncate(path, 0)
                seen += drain(follower)
            for piece in (text[:cut], text[cut:], torn.replace(b"\n", b"")):
                with path.open("ab") as file:
                    file.write(piece)
                if not rotate or cut % 2:  # of a file that was rotated away unread lines are still read
                    seen += drain(follower)
            seen += drain(follower) if not rotate or number < len(files) - 1 else []
            written += text.split(b"\n")[:-1]
        seen += drain(follower)
        seen += drain(follower)
    follower.close()
    assert seen == written


def test_lines_written_before_a_rotation_and_never_polled_are_still_handed_out(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\n")
    follower = Follower(path)
    assert follower.poll() == [b"one"]
    with path.open("ab") as file:
        file.write(b"two\n")
    path.rename(tmp_path / "log.1")
    path.write_bytes(b"three\n")
    assert follower.poll() == [b"two", b"three"]


def test_a_file_cut_and_grown_past_the_old_end_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\n")
    follower = Follower(path)
    assert follower.poll() == [b"one"]
    path.write_bytes(b"two and more\nthree\n")
    assert follower.poll() == [b"two and more", b"three"]


def test_a_torn_end_waits_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    follower = Follower(path)
    assert follower.poll() == []
    path.write_bytes(b"on")
    assert follower.poll() == []
    with path.open("ab") as file:
        file.write(b"e\ntw")
    assert follower.poll() == [b"one"]


def test_a_backlog_is_worked_off_in_bounded_pieces(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * 99 + b"\n")
    os.truncate(path, 0)
    with path.open("ab") as file:
        for _ in range(40):
            file.write((b"x" * 99 + b"\n") * 10_000)
    follower = Follower(path)
    tracemalloc.start()
    first = len(follower.poll())
    assert follower.behind
    assert first <= telemetry.POLL_BYTES // 100 + 1
    total = first
    while follower.behind:
        total += len(follower.poll())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 400_000
    assert peak < 40 << 20


@pytest.mark.timeout(120)
def test_a_gigabyte_without_a_newline_is_passed_over_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.write(b"before\n")
        file.truncate(1 << 30)  # a hole: a gigabyte of NULs that costs no disk
        file.seek(0, os.SEEK_END)
        file.write(b"\nafter\n")
    code = (
        "import sys\nfrom pathlib import Path\nfrom ftwiz.engine.telemetry import Follower\n"
        "follower = Follower(Path(sys.argv[1])); lines = follower.poll()\n"
        "while follower.behind: lines += follower.poll()\n"
        "print(lines, Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    out = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    lines, kib = out.stdout.rsplit(" ", 1)
    assert lines == "[b'before', b'after']"
    assert int(kib) < 200 * 1024


def test_a_line_is_passed_over_for_its_length_wherever_the_reads_fall(tmp_path: Path) -> None:
    path = tmp_path / "log"
    limit = telemetry.MAX_LINE_BYTES
    for before in (0, 1, limit // 2, limit - 1):
        path.write_bytes(b"a" * before + b"\n" + b"b" * limit + b"\n" + b"c" * (limit + 1) + b"\nd\n")
        lines = [line[:1] for line in Follower(path).poll() if line]
        assert lines == ([b"a"] if before else []) + [b"b", b"d"]


def test_a_pipe_in_the_place_of_a_log_blocks_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    assert Follower(tmp_path / "log").poll() == []
    assert Follower(tmp_path).poll() == []


def test_an_event_after_a_torn_one_starts_on_its_own_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(encode(LogEvent(t=1.0, message="whole")) + b'{"kind":"log","t":2')
    log = EventLog(path)
    log.append(LogEvent(t=3.0, message="later"))
    log.close()
    assert [event.t for event in read_events(path)] == [1.0, 3.0]


def test_two_writers_never_mix_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"

    def write(name: str) -> None:
        log = EventLog(path)
        for number in range(300):
            log.append(LogEvent(t=float(number), message=name * 50))
        log.close()

    writers = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(read_events(path)) == 600


def test_a_full_disk_is_told_and_costs_only_the_event_that_did_not_fit(tmp_path: Path) -> None:
    code = (
        "import sys, resource\nfrom pathlib import Path\nimport signal\n"
        "from ftwiz.engine.telemetry import EventLog\nfrom ftwiz.engine.specs.events import LogEvent\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "log = EventLog(Path(sys.argv[1])); log.append(LogEvent(t=1.0, message='fits'))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60, resource.RLIM_INFINITY))\n"
        "try: log.append(LogEvent(t=2.0, message='x' * 100))\n"
        "except OSError as error: print(error.errno)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "log.append(LogEvent(t=3.0, message='again'))"
    )
    path = tmp_path / "events.jsonl"
    out = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert int(out.stdout) in {errno.ENOSPC, errno.EFBIG}
    assert [event.t for event in read_events(path)] == [1.0, 3.0]


def test_following_ends_when_it_is_over_and_everything_is_read(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(encode(StateEvent(t=1.0, state="running")))
    answers = iter([False, True])

    def until() -> bool:
        over = next(answers)
        if over:
            with path.open("ab") as file:
                file.write(encode(StateEvent(t=2.0, state="finished")))
        return over

    assert [event.t for event in follow(path, until=until, poll_seconds=0.01)] == [1.0, 2.0]


def test_a_follower_starts_over_after_close(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(encode(StateEvent(t=1.0, state="running")))
    follower = EventFollower(path)
    assert len(follower.poll()) == 1
    assert follower.poll() == []
    follower.close()
    assert len(follower.poll()) == 1
    follower.close()


def test_a_reader_of_the_tail_starts_at_the_first_whole_line_near_the_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(b"line %d\n" % number for number in range(1000)))
    follower = Follower(path, tail_bytes=20)
    assert follower.poll() == [b"line 998", b"line 999"]
    with path.open("ab") as file:
        file.write(b"more\n")
    assert follower.poll() == [b"more"]
