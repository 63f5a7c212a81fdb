"""The whole room: every vendor is asked, and none can take the others along."""

import time
from pathlib import Path

import pytest

from ftwiz.engine import hardware
from ftwiz.engine.hardware import detect, sample
from ftwiz.engine.hardware.system import System, ToolError
from ftwiz.engine.hardware.vendor import Found
from ftwiz.engine.specs.machine import Device, DeviceReading, Link, Problem


class _Cards:
    """A vendor with two cards that answer."""

    VENDOR = "cards"

    def is_present(self, _system: System) -> bool:
        return True

    def inventory(self, _system: System) -> Found:
        return Found(devices=(self.card(0), self.card(1)))

    def usage(self, _system: System, devices: tuple[Device, ...]) -> tuple[DeviceReading, ...]:
        return tuple(DeviceReading(index=one.index, name=one.name, power_watts=100) for one in devices)

    def links(self, _system: System, devices: tuple[Device, ...]) -> tuple[Link, ...]:
        return (Link(first=0, second=1, kind="pix"),) if len(devices) > 1 else ()

    def card(self, index: int) -> Device:
        return Device(kind="cuda", vendor=self.VENDOR, index=index, name="Card", architecture="sm_90")


class _Others(_Cards):
    """Another vendor, whose cards answer too."""

    VENDOR = "others"


class _Broken(_Cards):
    """A vendor whose driver changed under us: every question raises."""

    VENDOR = "broken"

    def inventory(self, _system: System) -> Found:
        raise KeyError("memory\nsize")

    def usage(self, _system: System, _devices: tuple[Device, ...]) -> tuple[DeviceReading, ...]:
        raise RuntimeError("lost")


class _Hanging(_Cards):
    """A vendor whose tool hangs, whatever it is asked."""

    VENDOR = "hanging"

    def inventory(self, system: System) -> Found:
        problems = []
        for field in ("inventory", "usage"):
            try:
                system.run("hang-smi", field, seconds=1)
            except ToolError as error:
                problems.append(Problem(source="hang-smi", message=str(error)))
        return Found(problems=tuple(problems))


@pytest.fixture
def vendors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "VENDORS", (_Broken(), _Hanging(), _Cards(), _Others()))


def test_one_broken_and_one_hanging_vendor_are_told_and_the_others_are_read(
    vendors: None, tmp_path: Path
) -> None:
    tool = tmp_path / "hang-smi"
    tool.write_text("#!/bin/sh\nsleep 60\n", encoding="utf8")
    tool.chmod(0o755)
    start = time.monotonic()
    machine = detect({"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert time.monotonic() - start < 4, "a tool that hung once is not asked again"
    assert [(device.vendor, device.index) for device in machine.devices] == [
        ("cards", 0),
        ("cards", 1),
        ("others", 0),
        ("others", 1),
    ]
    assert [problem.message for problem in machine.problems] == [
        "broken: unexpected KeyError 'memory\\nsize'; left out",
        "hang-smi: no answer in time",
        "hang-smi: no answer in time",
    ]


def test_links_are_those_of_the_devices_that_are_trained_on(vendors: None) -> None:
    assert detect({"PATH": ""}).links == (Link(first=0, second=1, kind="pix"),)


def test_what_the_architecture_can_do_is_added(vendors: None) -> None:
    device = detect({"PATH": ""}).devices[0]
    assert (device.supports_bf16, device.supports_fp8, device.bandwidth_bytes_per_second) == (
        True,
        True,
        None,
    )


def test_a_driver_call_that_never_returns_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    class _Stuck(_Cards):
        VENDOR = "stuck"

        def is_present(self, _system: System) -> bool:
            time.sleep(30)
            return True

    monkeypatch.setattr(hardware, "VENDORS", (_Stuck(), _Cards()))
    monkeypatch.setattr(hardware, "VENDOR_SECONDS", 0.3)
    machine = detect({"PATH": ""})
    assert len(machine.devices) == 2
    assert machine.problems[0].message == "stuck: no answer in 0 s; left out"
    assert machine.problems[0].advice is not None


def test_every_device_has_a_reading_in_its_place_also_when_it_cannot_be_read(vendors: None) -> None:
    machine = detect({"PATH": ""})
    lost = Device(kind="xpu", vendor="broken", index=0, name="Gone", total_bytes=5, is_lost=True)
    old = Device(kind="cuda", index=0, name="Nobody's")
    readings = sample(
        type(machine)(host=machine.host, devices=(lost, *machine.devices[2:], old, *machine.devices[:2]))
    )
    assert [(reading.name, reading.power_watts) for reading in readings] == [
        ("Gone", None),
        ("Card", 100),
        ("Card", 100),
        ("Nobody's", None),
        ("Card", 100),
        ("Card", 100),
    ]
    assert readings[0] == DeviceReading(index=0, name="Gone", memory_total_bytes=5, is_lost=True)
