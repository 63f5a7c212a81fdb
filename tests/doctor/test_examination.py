"""The examination as a whole: a check that fails or hangs is a finding, and costs no other check."""

import time
from collections.abc import Iterator
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftwiz.cli.doctor import report, summary
from ftwiz.engine.doctor import CHECKS, Check, Finding, Level, Patient, examine
from ftwiz.engine.doctor.environment_checks import ALLOCATOR, BITING, OLD_ALLOCATORS, VISIBLE
from ftwiz.engine.doctor.finding import error, note, ok, warning
from ftwiz.engine.doctor.network_checks import BY_NAME, BY_PATTERN
from ftwiz.engine.doctor.patient import Awaited
from ftwiz.engine.specs.machine import Machine

from .conftest import MakePatient


def _check(name: str, *findings: Finding, then: Exception | float | None = None) -> Check:
    def look(_patient: Patient) -> Iterator[Finding]:
        yield from findings
        if isinstance(then, Exception):
            raise then
        if then is not None:
            time.sleep(then)

    return Check(name=name, about="", look=look)


def test_findings_come_in_the_order_of_the_checks_with_their_names(patient: MakePatient) -> None:
    slow = _check("slow", ok("first"), then=0.2)
    found = examine(patient(), [slow, _check("quick", note("second"), note("third"))])
    assert [(one.check, one.what) for one in found] == [
        ("slow", "first"),
        ("quick", "second"),
        ("quick", "third"),
    ]


def test_a_check_that_fails_is_a_finding_and_keeps_what_it_had_said(patient: MakePatient) -> None:
    ill = _check("ill", ok("so far"), then=ZeroDivisionError("of our own making"))
    found = examine(patient(), [ill, _check("well", ok("fine"))])
    assert [(one.check, one.level) for one in found] == [
        ("ill", Level.OK),
        ("ill", Level.WARNING),
        ("well", Level.OK),
    ]
    assert found[1].evidence == "ZeroDivisionError: of our own making"


def test_a_check_that_hangs_is_given_up_and_named(patient: MakePatient) -> None:
    began = time.monotonic()
    found = examine(patient(), [_check("stuck", then=60), _check("well", ok("fine"))])
    assert time.monotonic() - began < 6
    assert [(one.check, one.level) for one in found] == [("stuck", Level.WARNING), ("well", Level.OK)]
    assert "gave no answer" in found[0].what


def _broken_driver() -> Machine:
    raise OSError("the driver is gone")


def test_a_machine_that_cannot_be_read_is_one_finding(patient: MakePatient) -> None:
    blind = replace(patient(), machine_answer=Awaited(_broken_driver, seconds=2))
    found = [one for one in examine(blind) if one.check in {"hardware", "host", "torch", "ascend"}]
    assert [one.check for one in found] == ["hardware"]
    assert "the driver is gone" in found[0].what


NAMES = (*VISIBLE, *BY_PATTERN, *BY_NAME, *(one.name for one in BITING), ALLOCATOR, *OLD_ALLOCATORS)
OTHERS = ("OMP_NUM_THREADS", "SLURM_JOB_ID", "SLURM_JOB_END_TIME", "HF_HOME", "TMPDIR", "HF_HUB_OFFLINE")
VALUES = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=30)
WITHOUT_MEASURING = [check for check in CHECKS if check.name not in {"disk speed", "build locks"}]


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(environ=st.dictionaries(st.sampled_from(NAMES + OTHERS), VALUES))
def test_no_environment_makes_a_check_fail(patient: MakePatient, environ: dict[str, str]) -> None:
    made = replace(_PATIENT.setdefault("it", patient()))
    ill = replace(made, system=replace(made.system, environ=dict(made.environ) | environ))
    for check in WITHOUT_MEASURING:
        for finding in check.look(ill):
            assert finding.what


_PATIENT: dict[str, Patient] = {}


def _lines(findings: list[Finding], width: int = 80) -> list[str]:
    import click

    return [click.unstyle(line) for line in report(findings, width=width)]


def test_what_matters_most_comes_last_and_commands_are_never_broken() -> None:
    command = "rm " + "/a/very/long/path" * 8
    findings = [
        replace(error("cannot", evidence="seen", advice="do", command=command), check="torch"),
        replace(ok("fine"), check="python"),
        replace(warning("slow", advice="do something about it"), check="limits"),
        replace(warning("slower", advice="do more"), check="limits"),
    ]
    lines = _lines(findings)
    assert lines == [
        "well",
        "  python  fine",
        "",
        "warnings",
        "  limits  slow",
        "            do    do something about it",
        "          slower",
        "            do    do more",
        "",
        "errors",
        "  torch   cannot",
        "            seen  seen",
        "            do    do",
        f"                  $ {command}",
        "",
        "training cannot work here: 1 error, 2 warnings",
    ]


def test_control_characters_of_a_finding_do_not_reach_the_terminal() -> None:
    evil = replace(
        note("a \x1b]52;c;eA\x07 b", evidence="\x9b2J", advice="c\x1b[2J", command="\r\x1b"), check="hub"
    )
    assert not [
        line for line in _lines([evil]) if any(ord(char) < 32 or 127 <= ord(char) < 160 for char in line)
    ]


def test_wide_characters_count_for_two() -> None:
    finding = replace(note("路径 " * 40), check="disk")
    from ftwiz.tui.text import width_of

    assert all(width_of(line) <= 60 for line in _lines([finding], width=60))


def test_nothing_found_is_a_healthy_machine() -> None:
    import click

    assert click.unstyle(summary([])) == "training can work here"
