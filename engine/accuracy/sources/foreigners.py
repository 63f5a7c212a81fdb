"""Trainers with models of their own: litgpt, torchtitan, torchtune; ``foreign`` says what they do."""

from importlib import import_module
from typing import Protocol, cast

from ...specs.workload import Workload
from ..case import Case, counter_of
from ..row import NotScored, Row

ENGINES = ("litgpt", "torchtitan", "torchtune")
ASSUMPTIONS = (
    "The measured numbers are of one device; what each script does is written down beside its operations.",
)


class _Foreign(Protocol):
    def workload_of_row(self, row: Row) -> Workload: ...


def case_of(row: Row) -> Case:
    """Return the step of a foreign trainer that a row was measured at."""
    try:
        foreign = cast("_Foreign", import_module("..foreign", __package__))
    except ModuleNotFoundError:
        raise NotScored("the models of litgpt, torchtitan and torchtune are not written down yet") from None
    return Case(
        workload=foreign.workload_of_row(row),
        config={},
        counter=counter_of(row),
        measured_bytes=row.measured_bytes,
    )
