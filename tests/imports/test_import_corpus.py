"""LLaMA-Factory's own examples: each is a job that loads and plans, or refused with a reason."""

from collections import Counter
from pathlib import Path

import pytest
import yaml

from ftwiz.engine.errors import FtwizError
from ftwiz.engine.hardware.written import parse_machine
from ftwiz.engine.imports import Imported, Wishes, import_files
from ftwiz.engine.job import load_job
from ftwiz.engine.prepare import prepare

ROWS = {
    "pt": "pt_text.jsonl", "rm": "dpo_sharegpt.json", "dpo": "dpo_sharegpt.json", "kto": "kto_sharegpt.json",
}  # fmt: skip
"""Rows for the stages that train on others than conversations."""
MACHINE = parse_machine("8xA100-80GB+1TB")


def _examples(corpus: Path) -> list[Path]:
    folder = corpus / "llamafactory"
    files = sorted(path for path in folder.rglob("*") if path.suffix in {".yaml", ".json"})
    assert len(files) > 50
    return files


def _imported(path: Path, rows: Path) -> Imported | FtwizError:
    own = next(parent for parent in path.parents if parent.name == "corpus") / "data" / "own"
    text = path.read_text(encoding="utf8")
    for stage, name in ROWS.items():
        if f"stage: {stage}\n" in text:
            rows = own / name
    try:
        return import_files([path], Wishes(data=rows, processes=8))
    except FtwizError as error:
        return error


@pytest.mark.timeout(120)
def test_every_example_plans_or_is_refused_with_a_reason(corpus: Path, rows: Path, tmp_path: Path) -> None:
    num_planned = 0
    examples = _examples(corpus)
    for path in examples:
        done = _imported(path, rows)
        assert isinstance(done, Imported), f"{path}: {done}"
        if done.problems:
            first = done.problems[0]
            assert first.message.startswith(f"{path}:"), first.message
            assert first.exit_code == 3, first.message
            continue
        job = tmp_path / f"{path.stem}.yaml"
        job.write_text(done.text, encoding="utf8")
        loaded = load_job(job)
        assert loaded.job == done.job
        assert prepare(loaded, MACHINE).plan.strategy.num_processes >= 1
        num_planned += 1
    assert num_planned >= len(examples) // 3


def test_every_key_of_an_imported_example_is_told_of(corpus: Path, rows: Path) -> None:
    for path in _examples(corpus):
        done = _imported(path, rows)
        assert isinstance(done, Imported)
        told = {change.key.split(".")[0] for change in done.changes}
        top = yaml.safe_load(path.read_text(encoding="utf8"))
        assert done.problems or top.keys() <= told, path


def test_without_its_data_an_example_is_not_imported(corpus: Path) -> None:
    for path in _examples(corpus):
        done = import_files([path], Wishes())
        if "accelerate" in path.parts or "deepspeed" in path.parts:
            assert done.job is None or done.job.model.name_or_path == "ftwiz:demo"
        else:
            assert done.job is None
            assert done.problems


def test_reasons_are_as_many_as_there_are_things_that_ftwiz_does_not_do(corpus: Path, rows: Path) -> None:
    reasons: Counter[str] = Counter()
    for path in _examples(corpus):
        done = _imported(path, rows)
        if isinstance(done, Imported) and done.problems:
            reasons[done.problems[0].message.split(": ")[1]] += 1
    assert reasons["image_max_pixels"] >= 4
    assert {"stage", "finetuning_type", "use_galore", "use_apollo", "use_kt"} & reasons.keys()
