"""docs/planning.md says what is planned, and its constants are the code's."""

import runpy
from pathlib import Path

from ftwiz.engine.plan.search import NEAR
from ftwiz.engine.specs.speed import CAREFUL
from ftwiz.engine.speed import moving, step

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "planning.md").read_text(encoding="utf8")


def test_the_table_is_what_the_planner_says_now() -> None:
    """Engines, ranks, packing and offloads; another estimate by a few bytes may change sizes and speeds."""
    made = runpy.run_path(str(ROOT / "docs" / "make_planning.py"))
    shown = [line.strip("|").split(" | ") for line in PAGE.partition(made["START"])[2].splitlines()]
    told = {(row[0].strip(), row[1]): row[2] for row in shown[:46] if len(row) == 4}
    now = {(name, machine): what for name, machine, what, _ in made["rows"]("lora")}
    assert told.keys() - {("model", "machine"), ("---|---|---|---", "")} >= now.keys()
    different = {key: (told[key], what) for key, what in now.items() if way(told[key]) != way(what)}
    assert not different, "run: python docs/make_planning.py"


def way(what: str) -> str:
    """``fsdp, nf4 on 2`` of ``fsdp, nf4 on 2, 4 x 4, checkpointing``."""
    return what.partition(" x ")[0].rpartition(", ")[0]


def test_the_constants_of_the_page_are_those_of_the_code() -> None:
    assert f"less than {NEAR:.0%}".replace("%", " %") in PAGE
    assert "gave half of what is assumed" in PAGE
    assert CAREFUL == 2
    assert f"behind {moving.OVERLAP:.0%}".replace("%", " %") in PAGE
    assert f"within\na factor of {step.UNCERTAINTY}" in PAGE
    for value in (step.OTHER_MATMUL_SHARE, step.SHAPES_SHARE, step.MEMORY_SHARE):
        assert f"| {value:.2f}".rstrip("0") in PAGE
    adam = moving.CPU_ADAM_THREAD_SECONDS, moving.CPU_ADAM_SECONDS
    assert f"{adam[0] * 1e9:.0f} s per 10⁹ parameters and thread, at best {adam[1] * 1e9:.2f} s" in PAGE
    assert f"{moving.TORCH_ADAM_RATIO} times as long" in PAGE
