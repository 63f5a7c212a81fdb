"""docs/presets.md says what each preset becomes on each machine, and is what the planner says now."""

import runpy
from pathlib import Path

import pytest

from ftwiz.engine.job import preset_names

ROOT = Path(__file__).resolve().parents[2]
MADE = runpy.run_path(str(ROOT / "docs" / "make_presets.py"))
PAGE = (ROOT / "docs" / "presets.md").read_text(encoding="utf8")
LOOKED_AT = ("1xH100+256GB", "2x4090+128GB", "8xAscend 910B-64GB+1500GB", "2 nodes x 8xA100-80GB+1TB")


def told(name: str) -> dict[str, str]:
    """Return machine -> plan of a preset's table."""
    section = PAGE.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    cells = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return {row[0]: row[1] for row in cells[1:]}


@pytest.mark.parametrize("name", preset_names())
def test_the_page_shows_the_plans_of_now(name: str) -> None:
    shown = told(name)
    assert set(shown) == set(MADE["MACHINES"])
    now = {machine: MADE["planned"](name, machine)[0] for machine in LOOKED_AT}
    different = {machine: (shown[machine], what) for machine, what in now.items() if shown[machine] != what}
    assert not different, "run: python docs/make_presets.py"


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_begins_with_its_command_and_says_what_it_costs(name: str) -> None:
    command, empty, *words = MADE["about"](name)
    assert not empty
    assert len(" ".join(words)) > 100
    if name != "demo":
        assert command.startswith(f"ftwiz run --preset {name} --set data.path=")


def test_every_machine_of_the_page_can_train_what_is_made_for_it() -> None:
    assert told("qlora-single")["1x3060-12GB+32GB"].startswith("single, nf4")
    assert told("qlora-fsdp")["2x4090+128GB"].startswith("fsdp, nf4 on 2")
    assert told("ascend-lora")["8xAscend 910B-64GB+1500GB"].startswith("ddp on 8")
    assert told("llama2-70b-fsdp")["2 nodes x 8xA100-80GB+1TB"].startswith("fsdp on 16, 1 x 1")
