"""What a health rule says, and that it says nothing of healthy runs."""

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ftwiz.engine.health import Health
from ftwiz.engine.specs.events import CheckpointEvent, DevicesEvent, EvalEvent, Event, StateEvent, StepEvent
from ftwiz.engine.specs.machine import DeviceReading, HostReading

STEPS = 200


def step(number: int, **values: Any) -> StepEvent:
    usual = {"loss": 2.0, "grad_norm": 1.0, "learning_rate": 1e-4, "step_seconds": 1.0, "max_steps": STEPS}
    return StepEvent(t=float(number), step=number, **(usual | values))


def healthy(seed: int) -> Iterator[StepEvent]:
    """A noisy run with warm-up and a cosine: batches differ, the loss falls."""
    chance = random.Random(seed)  # noqa: S311 - noise, no secret
    for number in range(1, STEPS + 1):
        share = number / STEPS
        rate = min(number / 10, 1.0) * 1e-4 * (1 + math.cos(math.pi * share)) / 2
        loss = (0.6 + 2.5 * math.exp(-4 * share)) * math.exp(chance.gauss(0, 0.25))
        grad = 2 * math.exp(chance.gauss(-share, 0.5))
        seconds = math.exp(chance.gauss(0, 0.2))
        yield step(number, loss=loss, grad_norm=grad, learning_rate=rate, step_seconds=seconds)


def codes(events: list[Event]) -> list[tuple[str, float]]:
    health = Health()
    return [(alert.code, alert.t) for event in events for alert in health.feed(event)]


@pytest.mark.parametrize("seed", range(20))
def test_a_healthy_run_raises_no_alarm(seed: int) -> None:
    assert codes(list(healthy(seed))) == []


def ill(change: Callable[[int], dict[str, Any]], since: int = 100) -> list[Event]:
    before = [event for event in healthy(1) if event.step < since]
    return [*before, *(step(number, **change(number)) for number in range(since, since + 30))]


@pytest.mark.parametrize(
    ("code", "change", "within"),
    [
        ("nan_gradient", lambda _: {"grad_norm": math.nan}, 1),
        ("nan_gradient", lambda _: {"grad_norm": math.inf}, 3),
        ("gradient_explosion", lambda _: {"grad_norm": 1000.0}, 2),
        ("loss_spike", lambda _: {"loss": 9.0}, 2),
        ("zero_learning_rate", lambda _: {"learning_rate": 0.0}, 3),
        ("no_supervised_tokens", lambda _: {"loss": 0.0}, 3),
        ("flat_loss", lambda _: {"loss": 1.234}, 20),
        ("slow_steps", lambda _: {"step_seconds": 9.0}, 5),
    ],
)
def test_a_pathology_is_told_once_and_soon(
    code: str, change: Callable[[int], dict[str, Any]], within: int
) -> None:
    found = [(name, at) for name, at in codes(ill(change)) if name == code]
    assert len(found) == 1
    assert found[0][1] < 100 + within


def test_what_is_over_may_be_told_again() -> None:
    events: list[Event] = [step(number) for number in range(1, 20)]
    events += [step(number, grad_norm=math.nan) for number in (20, 21)]
    events += [step(number) for number in range(22, 30)]
    events += [step(30, grad_norm=math.nan)]
    assert [at for code, at in codes(events) if code == "nan_gradient"] == [20.0, 30.0]


def test_a_learning_rate_that_starts_anew_after_a_resume_is_told() -> None:
    before: list[Event] = [step(number, learning_rate=2e-6) for number in range(1, 40)]
    resumed = StateEvent(t=39.5, state="launching", attempt=2)
    assert "learning_rate_reset" in dict(codes([*before, resumed, step(40, learning_rate=1e-3)]))
    assert "learning_rate_reset" not in dict(codes([*before, resumed, step(40, learning_rate=1.9e-6)]))


def test_a_rising_held_out_loss_is_told() -> None:
    losses = (1.0, 0.9, 1.0, 1.1, 1.2)
    events: list[Event] = [
        EvalEvent(t=float(number), step=number, loss=loss) for number, loss in enumerate(losses)
    ]
    assert codes(events) == [("overfitting", 4.0)]


def sample(t: float, *, used: int = 50, **values: Any) -> DevicesEvent:
    card = DeviceReading(index=1, name="card", temperature_celsius=95.0, **values)
    host = HostReading(memory_used_bytes=used, memory_total_bytes=100)
    return DevicesEvent(t=t, host=host, devices=(card,))


def test_heat_is_told_after_ten_samples_and_a_power_limit_is_not() -> None:
    hot: list[Event] = [sample(float(number), throttle_reasons=("heat",)) for number in range(12)]
    assert codes(hot) == [("throttled", 9.0)]
    assert codes([sample(float(number), throttle_reasons=("power",)) for number in range(30)]) == []


def test_a_lost_card_and_a_full_host_are_told() -> None:
    events: list[Event] = [sample(0.0), sample(1.0, is_lost=True)]
    events += [sample(float(number), used=97, is_lost=True) for number in range(2, 9)]
    assert codes(events) == [("device_lost", 1.0), ("host_memory", 6.0)]


def _samples(**values: Any) -> list[Event]:
    return [sample(float(number), **values) for number in range(11)]


def _saved(free: int) -> list[Event]:
    host = HostReading(run_disk_free_bytes=free)
    saved = CheckpointEvent(t=0.0, step=4, path="checkpoints/checkpoint-4", size_bytes=1000, seconds=1.0)
    return [saved, DevicesEvent(t=1.0, host=host)]


def _resumed() -> list[Event]:
    before: list[Event] = [step(number, learning_rate=2e-6) for number in range(1, 40)]
    return [*before, StateEvent(t=39.5, state="launching", attempt=2), step(40, learning_rate=1e-3)]


def _evals() -> list[Event]:
    return [EvalEvent(t=float(n), step=n, loss=loss) for n, loss in enumerate((1.0, 0.9, 1.0, 1.1, 1.2))]


def _fp16() -> list[Event]:
    return ill(lambda _: {"grad_norm": math.inf})


PATHOLOGIES: dict[str, tuple[str, list[Event]]] = {
    "a gradient that is no number": ("nan_gradient", ill(lambda _: {"grad_norm": math.nan})),
    "a gradient without end": ("nan_gradient", _fp16()),
    "a gradient that explodes": ("gradient_explosion", ill(lambda _: {"grad_norm": 500.0})),
    "a gradient that grows tenfold each step": (
        "gradient_explosion",
        ill(lambda n: {"grad_norm": 10.0 ** (n - 98)}),
    ),
    "a loss that jumps": ("loss_spike", ill(lambda _: {"loss": 9.0})),
    "a loss that climbs": ("loss_spike", ill(lambda n: {"loss": 1.0 + 1.5 * (n - 99)})),
    "a learning rate of zero": ("zero_learning_rate", ill(lambda _: {"learning_rate": 0.0})),
    "a learning rate that starts anew": ("learning_rate_reset", _resumed()),
    "nothing to learn from": ("no_supervised_tokens", ill(lambda _: {"loss": 0.0})),
    "a loss that never moves": ("flat_loss", [step(number, loss=2.5) for number in range(1, 10)]),
    "steps that slow down": ("slow_steps", ill(lambda _: {"step_seconds": 9.0})),
    "a held-out loss that rises": ("overfitting", _evals()),
    "a hot device": ("throttled", _samples(throttle_reasons=("heat",))),
    "a device that its hardware holds back": ("throttled", _samples(throttle_reasons=("hardware",))),
    "a device that no longer answers": ("device_lost", _samples(is_lost=True)),
    "a host that is full": ("host_memory", _samples(used=97)),
    "a disk without room for two checkpoints": ("disk_space", _saved(1500)),
}


@pytest.mark.parametrize("name", PATHOLOGIES)
def test_each_pathology_is_raised_within_five_logged_steps(name: str) -> None:
    code, events = PATHOLOGIES[name]
    found = [at for raised, at in codes(events) if raised == code]
    assert found
    steps = [event.t for event in events if isinstance(event, StepEvent) and 100 <= event.t <= found[0]]
    assert len(steps) <= 5


def test_room_for_two_checkpoints_is_no_alarm() -> None:
    assert codes(_saved(2500)) == []
