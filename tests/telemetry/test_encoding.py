import dataclasses
import json
import math
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftwiz.engine.specs.events import EVENT_TYPES, AlertEvent, DevicesEvent, EvalEvent, SampleEvent, StepEvent
from ftwiz.engine.specs.machine import DeviceReading, HostReading
from ftwiz.engine.telemetry import decode, encode

INTS = st.integers(min_value=-(2**63) + 1, max_value=2**63 - 1)


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Every value that a field of this type may hold."""
    if get_origin(hint) is UnionType:
        return st.one_of([st.none() if arm is type(None) else values_of(arm) for arm in get_args(hint)])
    if get_origin(hint) is Literal:
        return st.sampled_from(get_args(hint))
    if get_origin(hint) is tuple:
        return st.lists(values_of(get_args(hint)[0]), max_size=3).map(tuple)
    if dataclasses.is_dataclass(hint):
        return nouns(hint)
    plain = {float: st.floats(), int: INTS, str: st.text(), bool: st.booleans()}
    return (
        plain[hint] if hint in plain else st.dictionaries(st.text(), values_of(get_args(hint)[1]), max_size=4)
    )


def nouns(noun: type) -> st.SearchStrategy[Any]:
    hints = get_type_hints(noun)
    return st.builds(noun, **{field.name: values_of(hints[field.name]) for field in dataclasses.fields(noun)})


def same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    if dataclasses.is_dataclass(one):
        return type(one) is type(other) and all(
            same(getattr(one, field.name), getattr(other, field.name)) for field in dataclasses.fields(one)
        )
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@given(st.one_of([nouns(event_type) for event_type in EVENT_TYPES]))
def test_an_event_is_read_back_as_it_was_written(event: Any) -> None:
    line = encode(event)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert same(event, decode(line))


@given(st.binary(max_size=200) | st.text().map(str.encode))
def test_reading_never_raises_on_foreign_bytes(line: bytes) -> None:
    assert decode(line) is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda c: st.lists(c) | st.dictionaries(st.text(), c),
    )
)
def test_a_known_kind_with_fields_of_other_types_is_foreign_or_typed(value: Any) -> None:
    body = {"kind": "eval", "t": 1.0, "step": 3, "loss": value, "metrics": value}
    event = decode(json.dumps(body).encode())
    assert event is None or isinstance(event, EvalEvent)
    if isinstance(event, EvalEvent):
        assert event.loss is None or isinstance(event.loss, float)
        assert all(isinstance(number, float) for number in event.metrics.values())


def test_numbers_that_json_does_not_have_become_words() -> None:
    line = encode(StepEvent(t=1.0, step=1, max_steps=2, loss=math.nan, metrics={"x": -math.inf}))
    body = json.loads(line)
    assert body["loss"] == "nan"
    assert body["metrics"] == {"x": "-inf"}


def test_a_text_that_spells_a_number_stays_text() -> None:
    event = SampleEvent(t=1.0, step=1, index=0, prompt="nan", completion="inf", reference="-inf")
    assert decode(encode(event)) == event


def test_text_that_is_no_unicode_is_written_as_valid_utf8_and_read_back() -> None:
    event = AlertEvent(t=1.0, level="error", code="x", message="file \udcff")
    encode(event).decode("utf8")
    assert decode(encode(event)) == event


def test_unknown_fields_are_ignored_at_every_depth() -> None:
    reading = {"index": 0, "name": "A100", "fan_percent": 30}
    body = {"kind": "devices", "t": 1, "devices": [reading], "host": {"load": 3, "cpu_percent": 9}, "rack": 7}
    assert decode(json.dumps(body).encode()) == DevicesEvent(
        t=1.0, devices=(DeviceReading(index=0, name="A100"),), host=HostReading(cpu_percent=9.0)
    )


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"7",
        b"{}",
        b'{"kind":["step"]}',
        b'{"kind":"later","t":1}',
        b'{"kind":"step","t":1,"step":1}',
        b'{"kind":"step","t":1,"step":1,"max_steps":2,"loss":"low"}',
        b'{"kind":"step","t":1,"step":1.5,"max_steps":2}',
        b'{"kind":"step","t":1,"step":true,"max_steps":2}',
        b'{"kind":"step","t":1,"step":1,"max_steps":2,"loss":1' + b"0" * 400 + b"}",
        b'{"kind":"step","t":1,"step":1' + b"0" * 5000 + b',"max_steps":2}',
        b'{"kind":"end","t":1,"step":1,"max_steps":2,"status":"perhaps"}',
        b'{"kind":"step","t":1,"step":1,"max_st',
        b"[" * 200_000,
        b"\xff\xfe\x00",
    ],
    ids=range(16),
)
def test_lines_that_are_no_event_are_passed_over(line: bytes) -> None:
    assert decode(line) is None
