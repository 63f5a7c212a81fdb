"""The page about the job file is true: its table is generated, its example is a job."""

import json
import re
from pathlib import Path

import pytest

from ftwiz.engine.job import dump_job, job_schema, parse_job
from ftwiz.engine.job.reference import refreshed
from ftwiz.engine.job.schema import fields
from ftwiz.engine.specs.job import Job

PAGE = Path(__file__).parents[2] / "docs" / "job.md"


def test_the_table_of_keys_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf8")
    assert page == refreshed(page), "regenerate: python -m ftwiz.engine.job.reference docs/job.md"
    assert all(f"| `{dotted}` |" in page for dotted, _ in fields())


def test_the_annotated_job_is_a_job() -> None:
    page = PAGE.read_text(encoding="utf8")
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert blocks
    for block in blocks:
        job = parse_job(block, name="job.yaml", base=PAGE.parent).job
        assert parse_job(dump_job(job), name="job.yaml", base=PAGE.parent).job == job


def test_the_error_that_the_page_shows_is_the_error(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf8")
    shown = re.search(r"```text\nerror: (.*)\nhint: (.*)\n```", page)
    assert shown
    text = "model: {name_or_path: gpt2}\ndata: {path: x}\ntrain:\n" + "\n" * 8 + "  lerning_rate: 1\n"
    with pytest.raises(Exception, match="lerning_rate") as caught:
        parse_job(text, name="saved.yaml", base=tmp_path)
    assert [str(caught.value), getattr(caught.value, "hint", None)] == list(shown.groups())


def test_every_key_has_a_help_text_that_ends_as_a_sentence() -> None:
    for dotted, schema in fields():
        assert str(schema.get("description", "")).endswith("."), dotted
    for name, info in Job.model_fields.items():
        assert (info.description or "").endswith("."), name


def test_the_schema_is_json_and_knows_both_sides_of_auto() -> None:
    schema = json.loads(json.dumps(job_schema()))
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["model", "data"]
    rate = schema["$defs"]["Train"]["properties"]["learning_rate"]
    assert [part["type"] for part in rate["anyOf"]] == ["string", "number"]
