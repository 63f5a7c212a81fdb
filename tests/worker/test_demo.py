"""The embedded demo: its data, its model, and that it learns what it claims to."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine.checkpoints import verify
from ftwiz.engine.job import load_job
from ftwiz.engine.specs.events import EndEvent, EvalEvent, SampleEvent, StepEvent
from ftwiz.engine.worker import demo

ROOT = Path(__file__).resolve().parents[2]
BUILD = "from ftwiz.engine.worker.demo import folder; print(folder(print))"


def data(name: str) -> list[dict[str, str]]:
    text = (ROOT / "presets" / "demo" / name).read_text(encoding="utf8")
    return [json.loads(line) for line in text.splitlines()]


def test_the_data_is_what_its_script_makes(tmp_path: Path) -> None:
    script = ROOT / "bench" / "make_demo_data.py"
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, timeout=60)
    for name in ("train.jsonl", "eval.jsonl", "preferences.jsonl", "text.jsonl"):
        assert (tmp_path / name).read_bytes() == (ROOT / "presets" / "demo" / name).read_bytes()


def test_no_held_out_word_stands_in_the_training_data() -> None:
    def words(rows: list[dict[str, str]]) -> set[str]:
        return {row["prompt"].split(": ")[1] for row in rows}

    assert not words(data("train.jsonl")) & words(data("eval.jsonl"))
    assert len(words(data("train.jsonl"))) == len(data("train.jsonl"))


def test_every_task_is_asked_equally_often() -> None:
    for rows in (data("train.jsonl"), data("eval.jsonl")):
        tasks = [row["prompt"].split(": ")[0] for row in rows]
        assert {tasks.count(task) for task in set(tasks)} == {len(rows) // 4}


@pytest.mark.train
def test_the_model_is_the_same_every_time_and_processes_may_race_for_it(lab: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-c", BUILD]
    racing = [
        subprocess.Popen(command, env=lab.environment | {"FTWIZ_HOME": str(tmp_path)}, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    assert [process.wait(timeout=120) for process in racing] == [0, 0]
    for process in racing:
        process.communicate()
    (path,) = (tmp_path / "models").iterdir()
    assert path.name == demo.VERSION
    assert verify(path) is None
    other = tmp_path / "other"
    lab.python("-c", BUILD, cwd=tmp_path, FTWIZ_HOME=str(other))
    for file in path.iterdir():
        assert file.read_bytes() == (other / "models" / demo.VERSION / file.name).read_bytes(), file.name


DAMAGE = """
from ftwiz.engine.worker.demo import folder
told = []
path = folder(told.append)
weights = path / "model.safetensors"
whole = weights.read_bytes()
weights.write_bytes(whole[:-5])
again = folder(told.append)
assert again == path and weights.read_bytes() == whole
folder(told.append)
print(told)
"""


@pytest.mark.train
def test_a_damaged_model_is_built_anew(lab: Any, tmp_path: Path) -> None:
    done = lab.python("-c", DAMAGE, cwd=tmp_path)
    last = done.stdout.strip().splitlines()[-1]  # deepspeed, where it is installed, has a line on the CPU
    assert last == str(["building the demo model from its seed"] * 2), done.stderr


@pytest.mark.train
def test_two_ranks_may_both_build_it_and_train(lab: Any) -> None:
    run = lab.train("ddp", model={"name_or_path": demo.NAME}, train={"max_steps": 2})
    assert len(lab.events(run, StepEvent)) == 2
    (path,) = (lab.folder / "models").iterdir()
    assert verify(path) is None


@pytest.mark.train
@pytest.mark.timeout(300)
def test_a_third_of_the_demo_already_understands_most_of_the_words_it_has_never_seen(lab: Any) -> None:
    job = load_job(ROOT / "presets" / "demo.yaml", overrides=["train.max_steps=300"]).job
    sections = job.model_dump(exclude_unset=True)
    run = lab.train(strategy={"micro_batch_size": job.train.global_batch_size}, **sections)
    steps, evals = lab.events(run, StepEvent), lab.events(run, EvalEvent)
    assert steps[-1].loss < steps[0].loss / 5
    assert evals[0].exact_match <= 0.02
    assert evals[-1].exact_match >= 0.6
    samples = lab.events(run, SampleEvent)
    assert [sample.index for sample in samples] == [*range(64)] * 2
    assert sum(sample.matches for sample in samples[64:]) / 64 == evals[-1].exact_match
    assert all(sample.prompt == samples[sample.index].prompt for sample in samples)
    assert lab.events(run, EndEvent)[-1].status == "finished"
