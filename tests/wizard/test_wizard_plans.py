"""What the wizard says of memory, ways and goals: values of fixed machines, not only pictures."""

import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from textual.pilot import Pilot

from ftwiz.engine.hardware.written import parse_machine
from ftwiz.engine.job import load_preset
from ftwiz.tui.wizard import WizardResult
from ftwiz.tui.wizard.app import WizardApp
from ftwiz.tui.wizard.check import Checker
from ftwiz.tui.wizard.costs import cost_words
from ftwiz.tui.wizard.draft import keep, kept
from ftwiz.tui.wizard.fix import cheapest_fix
from ftwiz.tui.wizard.memory import Bar, bars, cells
from ftwiz.tui.wizard.pick import fits, model_rows, preset_rows
from ftwiz.tui.wizard.state import Opening, settings_of, with_settings
from ftwiz.tui.wizard.strategies import ways

pytestmark = pytest.mark.timeout(60)

Settle = Callable[[Pilot[WizardResult]], Awaitable[None]]
TWO_CARDS = "2xRTX-4090+128GB"
MOST_CPU_SECONDS = 0.03
"""From a key to the updated estimate, for an answer that was not planned before: the issue's figure."""


def checker(machine: str, preset: str) -> Checker:
    return Checker(parse_machine(machine), load_preset(preset))


@pytest.fixture(autouse=True)
def _in_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTWIZ_HOME", str(folder / "home"))


def test_a_bar_holds_what_the_estimate_adds_up_to_and_what_others_hold() -> None:
    one = checker("1xA10G", "qlora-single")
    review = one.check(one.first_answers())
    assert review.plan is not None
    assert review.plan.estimate is not None
    (bar,) = bars(review.plan, one.machine)
    own = [num for name, num in bar.parts if name != "in use"]
    assert sum(own) == review.plan.estimate.process_bytes
    assert sum(num for _, num in cells(bar, 40)) <= 40


def test_what_is_small_is_seen_and_what_is_too_large_stays_in_the_bar() -> None:
    bar = Bar(name="cuda 0", parts=(("weights", 10**12), ("logits", 1), ("rest", 0)), total_bytes=10**9)
    assert cells(bar, 20) == [("weights", 19), ("logits", 1), ("rest", 0)]


@pytest.mark.parametrize(
    ("machine", "preset", "words"),
    [
        (TWO_CARDS, "full-zero3", "lora in place of full"),
        ("1xRTX-3060-12GB", "lora-single", "qlora in place of lora"),
    ],
)
def test_what_does_not_fit_gets_the_cheapest_change_and_fits_with_it(
    machine: str, preset: str, words: str
) -> None:
    one = checker(machine, preset)
    answers = one.first_answers()
    review = one.check(answers)
    assert (review.is_ready, str(review.plan_problem)[:12]) == (False, "does not fit")
    fix = cheapest_fix(one, answers, review)
    assert fix is not None
    assert fix.words == words
    after = one.check(fix.answers)
    assert after.plan is not None
    assert after.plan.verdict is not None
    assert (after.is_ready, after.plan.verdict.word) == (True, "fits")
    assert cheapest_fix(one, fix.answers, after) is None


def test_a_way_that_is_taken_is_pinned_and_one_that_cannot_be_has_its_reason() -> None:
    one = checker("1xA10G", "qlora-single")
    found = {way.name: way for way in ways(one, one.first_answers())}
    refused = found["ddp: the whole model on every device"]
    assert not refused.can_be_taken
    assert "ddp needs a device per rank" in refused.reason
    other = checker("8xA100-80GB", "lora-ddp")
    taken = next(way for way in ways(other, other.first_answers()) if way.name.startswith("zero 2: "))
    assert taken.review.job is not None
    assert taken.review.plan is not None
    assert (taken.review.job.plan.backend, taken.review.job.plan.zero_stage) == ("zero", 2)
    assert (taken.review.plan.strategy.backend, taken.review.plan.strategy.zero_stage) == ("zero", 2)
    freed = next(iter(ways(other, taken.answers)))
    assert freed.review.job is not None
    assert freed.review.job.plan.backend == "auto"


def test_rows_for_another_goal_are_said_to_be_so_at_the_goal(folder: Path) -> None:
    row = {"prompt": "a?", "chosen": "yes", "rejected": "no"}
    (folder / "pairs.jsonl").write_text(json.dumps(row), encoding="utf8")
    one = checker(TWO_CARDS, "lora-ddp")
    answers = replace(one.first_answers(), data="pairs.jsonl")
    review = one.check(answers)
    assert set(review.problems) == {"goal"}
    assert "choose preferences" in review.problems["goal"]
    fitting = one.check(replace(answers, goal="preferences"))
    assert fitting.job is not None
    assert (fitting.job.stage, fitting.is_ready) == ("dpo", True)


def test_a_goal_without_what_it_needs_says_what_is_missing() -> None:
    one = checker(TWO_CARDS, "lora-ddp")
    assert "needs rewards" in one.check(replace(one.first_answers(), goal="rewards")).problems["goal"]


def test_badges_say_which_methods_fit() -> None:
    one = checker("1xRTX-3060-12GB", "qlora-single")
    answers = replace(one.first_answers(), model="Qwen/Qwen2.5-7B-Instruct")
    assert dict(fits(one, answers)) == {"full": "no", "qlora": "fits", "lora": "fits"}
    first = next(model_rows(one, answers, "qwen2.5 7b"))
    assert "Qwen/Qwen2.5-7B" in [row.value for row in first]
    *_, last = preset_rows(one.machine, "zero3")
    assert {row.value for row in last} == {"full-zero3", "full-zero3-offload"}
    assert next(row.content.plain for row in last if row.value == "full-zero3").endswith("-does not fit")


def test_help_names_what_an_answer_costs_here() -> None:
    one = checker(TWO_CARDS, "lora-ddp")
    answers = replace(one.first_answers(), settings="train.max_length=256")
    review = one.check(answers)
    costs = cost_words(one, answers, review, "method")
    assert [line.split(":")[0] for line in costs] == ["lora", "qlora", "full"]
    assert costs[2].endswith("GiB on a device, does not fit")
    settings = cost_words(one, answers, review, "settings")
    assert settings[0].startswith("train.max_length: Longest sequence in tokens")
    assert "without it: " in settings[1]


def test_a_misspelt_setting_is_said_at_the_settings_and_the_rest_is_still_checked() -> None:
    one = checker(TWO_CARDS, "lora-ddp")
    review = one.check(replace(one.first_answers(), settings="train.max_lenth=2 method.r=8"))
    assert set(review.problems) == {"settings"}
    assert "did you mean 'max_length'" in review.problems["settings"]


def test_settings_keep_their_order_and_their_quotes() -> None:
    text = with_settings("a.b='x y' c=1", {"c": "2", "d": "3", "e": None})
    assert settings_of(text) == {"a.b": "x y", "c": "2", "d": "3"}


def test_a_new_estimate_takes_at_most_thirty_milliseconds_of_a_core() -> None:
    one = checker("8xA100-80GB", "full-zero3")
    one.check(one.first_answers())
    spent = []
    for length in (512, 768, 1024, 1536, 2048):
        answers = replace(one.first_answers(), settings=f"train.max_length={length}")
        begun = time.process_time()
        assert one.check(answers).plan is not None
        spent.append(time.process_time() - begun)
    assert sorted(spent)[2] <= MOST_CPU_SECONDS


def test_a_draft_comes_back_and_a_broken_one_is_no_draft(folder: Path) -> None:
    one = checker(TWO_CARDS, "demo")
    path = folder / "notes" / "draft.json"
    assert kept(path) is None
    answers = replace(one.first_answers(), name="mine")
    keep(answers, path)
    assert kept(path) == answers
    for text in (
        "{",
        "[]",
        '{"model": 1}',
        '{"model": "m", "data": "d", "goal": "x", "method": "y", "name": "z"}',
    ):
        path.write_text(text, encoding="utf8")
        assert kept(path) is None


async def test_one_key_applies_the_change_that_fits(settle: Settle) -> None:
    app = WizardApp(parse_machine(TWO_CARDS), load_preset("full-zero3"), Opening(at_review=True))
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert not app.review.is_ready
        await pilot.press("f7")
        await settle(pilot)
        assert (app.review.is_ready, app.draft.answers.method) == (True, "lora")


async def test_a_way_is_picked_from_the_list_and_review_shows_its_files(settle: Settle, folder: Path) -> None:
    app = WizardApp(parse_machine("8xA100-80GB"), load_preset("full-zero3"), Opening(is_elsewhere=True))
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        for key in ("f4", "down", "enter"):
            await pilot.press(key)
            await settle(pilot)
        assert "plan.backend=" in app.draft.answers.settings
        await pilot.press("f8")
        await settle(pilot)
        shown = app.screen.pages  # type: ignore[attr-defined]  # of ReviewScreen
        assert {"overview", "job.yaml", "train.yaml", "launch.sh", "plan.json"} <= set(shown)
        assert "ftwiz run full-zero3.yaml" in shown["overview"].plain
        await pilot.press("enter")
        await settle(pilot)
        await pilot.press("enter")
        await settle(pilot)
    assert app.return_value is not None
    assert not app.return_value.launch
    assert (folder / "full-zero3.yaml").is_file()


async def test_answers_of_a_lost_connection_are_offered_again(settle: Settle, folder: Path) -> None:
    draft = folder / "draft.json"
    opening = Opening(draft=draft)
    first = WizardApp(parse_machine(TWO_CARDS), load_preset("lora-ddp"), opening)
    async with first.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("c", *["down"] * 3, "right")
        await settle(pilot)
    again = WizardApp(parse_machine(TWO_CARDS), load_preset("lora-ddp"), opening)
    async with again.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert again.draft.answers.method == "lora"
        await pilot.press("d")
        await settle(pilot)
        assert again.draft.answers.method == "qlora"
