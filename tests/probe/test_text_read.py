"""The text of the data is counted while it is read."""

from collections.abc import Callable
from pathlib import Path

from ftwiz.engine.hardware.written import parse_machine
from ftwiz.engine.job import load_job
from ftwiz.engine.prepare import prepare


def test_a_plan_counts_the_text_that_is_read(make_job: Callable[..., Path]) -> None:
    loaded = load_job(make_job())
    plan = prepare(loaded, parse_machine("1xH200+99GB")).plan
    assert plan.estimate is not None
    (text,) = [term for term in plan.estimate.terms if term.name == "text while it is prepared"]
    assert text.num_bytes == sum(Path(path).stat().st_size for path in loaded.job.data.paths)
    assert (text.place, text.phases) == ("host", ("load",))
