"""Presets are jobs that come with ftwiz."""

import pytest

from ftwiz.engine.errors import BadInput
from ftwiz.engine.job import Source, dump_job, load_preset, parse_job, preset_names


def test_there_is_a_demo() -> None:
    assert "demo" in preset_names()


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_a_valid_job_whose_data_is_there(name: str) -> None:
    loaded = load_preset(name)
    assert loaded.name == name
    assert loaded.sources["model.name_or_path"] is Source.PRESET
    assert loaded.path.is_file()
    again = parse_job(dump_job(loaded.job), name="job.yaml", base=loaded.path.parent)
    assert again.job == loaded.job


def test_the_command_line_overrides_a_preset() -> None:
    loaded = load_preset("demo", ["train.seed=7"])
    assert loaded.job.train.seed == 7
    assert loaded.sources["train.seed"] is Source.COMMAND_LINE


@pytest.mark.parametrize("name", ["dmeo", "../demo", "/etc/passwd", "demo.yaml", "", "de\x1bmo"])
def test_an_unknown_preset_is_told_with_the_known_ones(name: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_preset(name)
    assert caught.value.message.startswith("no preset ")
    assert caught.value.message.isprintable()
    assert "demo" in (caught.value.hint or "")
