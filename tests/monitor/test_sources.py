"""Where frames come from besides a run folder: other trainers' files, the past, a log too long to read."""

import json
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftwiz.engine.errors import BadInput
from ftwiz.engine.rundir import RunFolder
from ftwiz.engine.specs.run import RunState
from ftwiz.tui.monitor import sampling
from ftwiz.tui.monitor.foreign import ForeignReader, find_trace
from ftwiz.tui.monitor.prometheus import exposition, keep
from ftwiz.tui.monitor.reader import Reader
from ftwiz.tui.monitor.replay import Replay
from ftwiz.tui.monitor.runs import Runs, blocks
from ftwiz.tui.monitor.tensorboard import ScalarFile, scalars
from ftwiz.tui.monitor.view import Frame

Recorded = Callable[[str], RunFolder]


def varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def field(number: int, wire: int, data: bytes) -> bytes:
    return varint(number << 3 | wire) + (varint(len(data)) + data if wire == 2 else data)


def event(step: int, tag: str, value: float, *, as_tensor: bool = False) -> bytes:
    """An event as TensorBoard's writers encode it."""
    tensor = field(1, 0, b"\x01") + field(5, 2, struct.pack("<f", value))
    number = field(8, 2, tensor) if as_tensor else field(2, 5, struct.pack("<f", value))
    summary = field(1, 2, field(1, 2, tag.encode()) + number)
    return field(1, 1, struct.pack("<d", 1.75e9 + step)) + field(2, 0, varint(step)) + field(5, 2, summary)


def record(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + b"\0\0\0\0" + data + b"\0\0\0\0"


@pytest.mark.parametrize("as_tensor", [False, True])
def test_tensorboards_files_are_read_without_it(tmp_path: Path, *, as_tensor: bool) -> None:
    path = tmp_path / "runs" / "today" / "events.out.tfevents.1.box"
    path.parent.mkdir(parents=True)
    rows = [("train/loss", 1 / step, step) for step in range(1, 40)] + [("eval/loss", 0.5, 39)]
    path.write_bytes(
        b"".join(record(event(step, tag, value, as_tensor=as_tensor)) for tag, value, step in rows)
    )
    frame = ForeignReader(tmp_path).read_all()
    assert frame.view.latest is not None
    assert frame.view.latest.step == 39
    assert frame.view.latest.loss == pytest.approx(1 / 39)
    assert [one.loss for one in frame.view.evals] == [0.5]
    assert (frame.source, frame.is_own) == ("TensorBoard", False)


def test_a_record_that_is_not_whole_yet_is_read_later(tmp_path: Path) -> None:
    path = tmp_path / "events.out.tfevents.1"
    whole = record(event(1, "loss", 2.0)) + record(event(2, "loss", 1.0))
    path.write_bytes(whole[:-9])
    file = ScalarFile(path)
    assert [scalar.step for scalar in file.poll()] == [1]
    path.write_bytes(whole)
    assert [scalar.step for scalar in file.poll()] == [2]
    assert file.poll() == []


@given(st.binary(max_size=200))
def test_bytes_that_are_no_event_are_no_scalars(data: bytes) -> None:
    assert all(isinstance(scalar.value, float) for scalar in scalars(data))


def test_a_trainers_state_is_watched_as_it_grows(tmp_path: Path) -> None:
    def write(num_steps: int, *more: dict[str, float]) -> None:
        folder = tmp_path / f"checkpoint-{num_steps}"
        folder.mkdir()
        log = [{"step": step, "loss": 2 / step, "learning_rate": 1e-4} for step in range(1, num_steps + 1)]
        body = {"max_steps": 20, "log_history": [*log, {"step": num_steps, "eval_loss": 0.4}, *more]}
        (folder / "trainer_state.json").write_text(json.dumps(body))

    write(10)
    reader = ForeignReader(tmp_path)
    first = reader.read_all()
    assert (first.record.state, first.view.latest and first.view.latest.step) == (RunState.RUNNING, 10)
    time.sleep(0.02)
    write(20, {"step": 20, "train_runtime": 9.0})
    second = reader.read_all()
    assert (second.record.state, second.view.latest and second.view.latest.step) == (RunState.FINISHED, 20)
    assert len(second.view.evals) == 2


def test_llamafactorys_log_tells_speed_and_time(tmp_path: Path) -> None:
    lines = [
        {"current_steps": step, "total_steps": 100, "loss": 1.0, "lr": 1e-4, "epoch": step / 50,
         "elapsed_time": f"0:00:{step // 2:02}", "throughput": 4000.5}
        for step in range(10, 60, 10)
    ]  # fmt: skip
    (tmp_path / "trainer_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    view = ForeignReader(tmp_path).read_all().view
    assert view.latest is not None
    assert (view.latest.tokens_per_second, view.latest.learning_rate) == (4000.5, 1e-4)
    assert view.step_seconds == pytest.approx(0.5)
    assert view.remaining_seconds == pytest.approx(25.0)


def test_a_folder_with_nothing_in_it_is_refused(tmp_path: Path) -> None:
    assert find_trace(tmp_path) is None
    with pytest.raises(BadInput, match="neither a run of ftwiz"):
        ForeignReader(tmp_path)


def test_a_replay_shows_the_run_as_it_stood(recorded: Recorded) -> None:
    moment = [0.0]
    replay = Replay(recorded("demo"), speed=1.0, clock=lambda: moment[0])
    assert replay.read().view.latest is None
    moment[0] = 8.0
    early = replay.read()
    assert early.record.state is RunState.RUNNING
    assert early.source == "replay x1"
    replay.change_speed(1000.0)
    moment[0] = 20.0
    late = replay.read()
    assert late.record.state is RunState.FINISHED
    assert late.view.latest is not None
    assert (early.view.latest.step if early.view.latest else 0) < late.view.latest.step == 400


def test_of_a_very_long_log_pieces_are_seen_and_its_end(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = recorded("running")
    line = '{{"kind":"step","t":1750000000.0,"step":{0},"max_steps":200000,"loss":{1:.4f}}}\n'
    with run.events_file.open("a") as file:
        file.writelines(line.format(step, 1 + 100 / step) for step in range(200, 24_000))
    monkeypatch.setattr("ftwiz.tui.monitor.reader.LARGE_BYTES", 1 << 20)
    monkeypatch.setattr(sampling, "TAIL_BYTES", 1 << 16)
    monkeypatch.setattr("ftwiz.tui.monitor.reader.TAIL_BYTES", 1 << 16)
    reader = Reader(run, status=RunFolder.read_record)
    first = reader.read()
    assert reader.behind
    assert first.view.latest is not None
    assert first.view.latest.step == 23_999
    assert 200 < len(first.view.loss.points) <= 1024
    last = reader.read_all()
    with run.events_file.open("a") as file:
        file.write(line.format(24_000, 1.0))
    assert last.view.latest is not None
    assert (newest := reader.read().view.latest) is not None
    assert (last.view.latest.step, newest.step) == (23_999, 24_000)
    assert any("pieces of it are shown" in one.text for one in last.view.lines)


def test_prometheus_gets_a_file_that_it_can_read(
    recorded: Recorded, tmp_path: Path, frame_of: Callable[[str], Frame]
) -> None:
    keep(recorded("nan"), tmp_path / "ftwiz.prom", once=True)
    text = (tmp_path / "ftwiz.prom").read_text()
    assert 'ftwiz_run_state{run="nan",state="failed"} 1.0' in text
    assert 'ftwiz_loss{run="nan"} NaN' in text
    for line in exposition(frame_of("gpus")).splitlines():
        assert line.startswith("# ") or float(line.rpartition(" ")[2]) >= 0
    assert text.count("# TYPE ftwiz_loss gauge") == 1


async def test_the_screen_of_runs_opens_one_beside_a_marked_one(recorded: Recorded) -> None:
    runs = [recorded(name) for name in ("demo", "nan", "resumed")]
    app = Runs(lambda: runs, status=RunFolder.read_record)
    async with app.run_test(size=(100, 12)) as pilot:
        await pilot.pause()
        strips = app.screen._compositor.render_strips()  # noqa: SLF001 - there is no other way to the cells
        shown = ["".join(segment.text for segment in strip) for strip in strips]
        assert "400/400" in shown[2]
        assert "▁" in shown[2]
        assert "failed" in shown[3]
        await pilot.press("space", "down", "enter")
    assert app.return_value is not None
    assert (app.return_value.run.id, app.return_value.compare) == ("nan", "demo")


def test_a_picture_of_a_row_goes_from_its_lowest_to_its_highest() -> None:
    assert blocks([3.0, 2.0, 1.0], 10) == "█▅▁"
    assert blocks([1.0], 10) == ""
    assert len(blocks(list(map(float, range(100))), 20)) == 20
