"""Trainers with models of their own: litgpt, torchtitan, torchtune; ``foreign`` says what they do."""

from ..case import Case, counter_of
from ..foreign import ASSUMPTIONS, config_of_row, workload_of_row
from ..row import Row

__all__ = ["ASSUMPTIONS", "ENGINES", "case_of"]

ENGINES = ("litgpt", "torchtitan", "torchtune")


def case_of(row: Row) -> Case:
    """Return the step of a foreign trainer that a row was measured at."""
    return Case(
        workload=workload_of_row(row),
        config=config_of_row(row),
        counter=counter_of(row),
        measured_bytes=row.measured_bytes,
    )
