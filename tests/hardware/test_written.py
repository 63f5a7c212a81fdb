"""Machines that are only written down, and machines that go through a JSON file."""

import dataclasses
import json
import os
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftwiz.engine.errors import BadInput
from ftwiz.engine.hardware import detect
from ftwiz.engine.hardware.catalogue import accelerators, find
from ftwiz.engine.hardware.machine_file import machine_from_json, machine_to_json
from ftwiz.engine.hardware.written import parse_machine
from ftwiz.engine.specs.machine import Device, DeviceReading, Machine

GIB = 2**30
MIB = 2**20
FUZZ = int(os.environ.get("FTWIZ_FUZZ", "150"))


@pytest.mark.parametrize(
    ("text", "count", "name", "total"),
    [
        ("8xA100-80GB", 8, "NVIDIA A100-SXM4-80GB", 81920 * MIB),
        ("8 x a100 80 gb", 8, "NVIDIA A100-SXM4-80GB", 81920 * MIB),
        ("4xA100-SXM4-40GB", 4, "NVIDIA A100-SXM4-40GB", 40960 * MIB),
        ("2x4090", 2, "GeForce RTX 4090", 24564 * MIB),
        ("2*RTX4090", 2, "GeForce RTX 4090", 24564 * MIB),
        ("NVIDIA GeForce RTX 4090", 1, "GeForce RTX 4090", 24564 * MIB),
        ("2x4090-48GB", 2, "GeForce RTX 4090", 48 * GIB),
        ("RTX 2080", 1, "GeForce RTX 2080", 8192 * MIB),
        ("3090ti-24GB", 1, "GeForce RTX 3090 Ti", 24 * 10**9),
        ("8xH100", 8, "NVIDIA H100 80GB HBM3", 81559 * MIB),
        ("8xNVIDIA H100 80GB HBM3", 8, "NVIDIA H100 80GB HBM3", 81559 * MIB),
        ("H100-PCIe", 1, "NVIDIA H100 PCIe", 80 * 10**9),
        ("GH200 480GB", 1, "NVIDIA GH200 480GB", 96 * 10**9),
        ("4xAscend910B3-64GB", 4, "Ascend 910B3", 65536 * MIB),
        ("8xMI300X", 8, "AMD Instinct MI300X", 196592 * MIB),
        ("8xGaudi2", 8, "Intel Gaudi 2", 98304 * MIB),
        ("M3Max-64GB", 1, "Apple M3 Max", 64 * GIB),
        ("M3", 1, "Apple M3", None),
    ],
)
def test_devices_are_known_by_the_names_people_use(
    text: str, count: int, name: str, total: int | None
) -> None:
    machine = parse_machine(text)
    assert [(device.index, device.name) for device in machine.devices] == [(i, name) for i in range(count)]
    assert {device.total_bytes for device in machine.devices} == {total}
    assert {device.source for device in machine.devices} == {"written"}
    assert (machine.num_nodes, machine.host.name) == (1, text)


def test_host_memory_cpus_and_nodes_are_read() -> None:
    machine = parse_machine("2 nodes x 4xAscend910B3-64GB + 512GB + 192 cpus")
    assert (machine.num_nodes, len(machine.devices), machine.device_kind) == (2, 4, "npu")
    assert (machine.host.total_bytes, machine.host.num_cpus) == (512 * GIB, 192)
    assert parse_machine("8xH100+1.5TB").host.total_bytes == 1536 * GIB


def test_a_machine_without_accelerators_is_cpus() -> None:
    assert parse_machine("cpu").host.num_cpus is None
    machine = parse_machine("16cpu+64GB")
    assert (machine.devices, machine.device_kind) == ((), "cpu")
    assert (machine.host.num_cpus, machine.host.total_bytes) == (16, 64 * GIB)


def test_cards_may_be_mixed_and_are_counted_on() -> None:
    devices = parse_machine("2xA10+2xT4").devices
    assert [(one.index, one.name) for one in devices] == [
        (0, "NVIDIA A10"),
        (1, "NVIDIA A10"),
        (2, "Tesla T4"),
        (3, "Tesla T4"),
    ]
    assert [one.supports_bf16 for one in devices] == [True, True, False, False]


def test_unified_memory_is_the_hosts_too() -> None:
    machine = parse_machine("M3Max-64GB")
    assert machine.devices[0].unified_memory
    assert machine.host.total_bytes == 64 * GIB


def test_what_was_assumed_is_said() -> None:
    note = parse_machine("8xA100").devices[0].note
    assert note is not None
    assert note.startswith(
        "taken as NVIDIA A100-SXM4-40GB, not NVIDIA A100-SXM4-80GB or NVIDIA A100 80GB PCIe"
    )
    assert parse_machine("2x4090-48GB").devices[0].note is None
    assert "data sheet" in str(parse_machine("L4").devices[0].note)


def test_facts_of_a_written_device_are_those_of_its_row() -> None:
    device = parse_machine("H100 SXM").devices[0]
    assert (device.architecture, device.supports_fp8) == ("sm_90", True)
    assert (device.bandwidth_bytes_per_second, device.dense_bf16_flops_per_second) == (3350e9, 989e12)
    assert (device.free_bytes, device.processes) == (None, ())


def test_every_row_can_be_written_by_its_own_name_and_finds_itself() -> None:
    for row in accelerators():
        assert find(row.name, row.vendor) == row
        assert parse_machine(f"2x{row.name}").devices[1].name == row.name


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("8xH1000", "has an unknown accelerator 'H1000'", "did you mean H100 or "),
        ("8xAscend911B3", "has an unknown accelerator 'Ascend911B3'", "did you mean 910B"),
        ("nothing", "has an unknown accelerator 'nothing'", "write 8xA100-80GB"),
        ("nvidia", "has an unknown accelerator 'nvidia'", "write 8xA100-80GB"),
        ("8x", "has an unknown accelerator '8x'", "write"),
        ("", "has an empty part", "write"),
        ("8xH100+", "has an empty part", "write"),
        ("0xH100", "has 0 devices", "write"),
        ("4000xH100", "has 4000 devices", "write"),
        ("1000xH100+1000xA10", "has 1000 devices; 1 to 24", "write"),
        ("0 nodes x 8xH100", "has 0 nodes", "write"),
        ("0cpu", "has 0 CPUs", "write"),
        ("64GB", "names neither accelerators nor CPUs", "write"),
        ("4cpu+8cpu", "gives the host's CPUs twice", "write"),
        ("4cpu+8GB+9GB", "gives the host's memory twice", "write"),
        ("A100-0GB", "gives 'A100-0GB' no memory", "write"),
        ("no/such.json", "No such file", "write"),
    ],
)
def test_what_is_not_understood_is_named_with_what_helps(text: str, said: str, hint: str) -> None:
    with pytest.raises(BadInput) as bad:
        parse_machine(text)
    assert said in bad.value.message
    assert (bad.value.hint or "").startswith(hint)


@settings(max_examples=FUZZ, deadline=None)
@given(
    st.lists(st.sampled_from(["8x", "2 nodes x ", "A100", "-80GB", "+", "512GB", "cpu", "16", "x", " ", "é"]))
)
def test_any_description_is_a_machine_or_bad_input(parts: list[str]) -> None:
    try:
        machine = parse_machine("".join(parts))
    except BadInput:
        return
    assert machine.num_nodes >= 1
    assert machine.devices or machine.device_kind == "cpu"


def anything(hint: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for a field of a noun: whole nouns, and no number below 0."""
    if dataclasses.is_dataclass(hint):
        hints = get_type_hints(hint)
        return st.builds(
            hint, **{field.name: anything(hints[field.name]) for field in dataclasses.fields(hint)}
        )
    if get_origin(hint) is tuple:
        return st.lists(anything(get_args(hint)[0]), max_size=2).map(tuple)
    if get_origin(hint) is UnionType:
        return st.one_of(*map(anything, get_args(hint)))
    numbers = {int: st.integers(0, 2**60), float: st.floats(0, 1e300)}
    return numbers[hint] if hint in numbers else st.from_type(hint)


@settings(max_examples=FUZZ, deadline=None)
@given(anything(Machine).filter(lambda machine: machine.num_nodes >= 1))
def test_a_machine_comes_back_from_its_file_as_it_was(machine: Machine) -> None:
    assert machine_from_json(machine_to_json(machine), where="machine.json") == machine


def test_this_machine_goes_through_a_file_to_another(tmp_path: Path) -> None:
    machine = detect({"PATH": ""})
    path = tmp_path / "machine.json"
    path.write_text(machine_to_json(machine, [DeviceReading(index=0, name="x")]), encoding="utf8")
    assert parse_machine(str(path)) == machine


def test_fields_of_a_newer_version_are_passed_over_and_what_is_no_number_is_unknown() -> None:
    device = Device(kind="cuda", index=0, name="x", bandwidth_bytes_per_second=float("nan"))
    body = json.loads(machine_to_json(Machine(host=parse_machine("cpu").host, devices=(device,))))
    assert body["machine"]["devices"][0]["bandwidth_bytes_per_second"] is None
    body["machine"]["devices"][0]["colour"] = "green"
    body["more"] = 1
    assert machine_from_json(json.dumps(body), where="x").devices[0].name == "x"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"machine": None}, "no machine in it"),
        ({"version": 2, "machine": {}}, "version 2 is not known"),
        ({"machine": {"host": {"name": "x"}}}, "machine.host.num_cpus: "),
        ({"machine": {"host": {"name": "x", "num_cpus": "8"}}}, "machine.host.num_cpus: "),
        ({"machine": {"host": {"name": "x", "num_cpus": -8}}}, "machine.host.num_cpus is -8"),
        ({"machine": {"host": {"name": "x", "num_cpus": 8}, "num_nodes": 0}}, "machine.num_nodes is 0"),
        (
            {"machine": {"host": {"name": "x", "num_cpus": 8}, "devices": [{"kind": "cuda", "index": 0}]}},
            "machine.devices.0.name: ",
        ),
    ],
)
def test_a_wrong_file_is_named_with_its_field(change: dict[str, object], said: str, tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    path.write_text(json.dumps({"version": 1} | change), encoding="utf8")
    with pytest.raises(BadInput) as bad:
        parse_machine(str(path))
    assert bad.value.message.startswith(f"{path}: ")
    assert said in bad.value.message


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"version": NaN}', b"[]", b" " * (8 * MIB + 1)]
)
def test_what_is_no_machine_file_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(BadInput, match=r"^machine\.json: [^\n]+$"):
        machine_from_json(data, where="machine.json")


@pytest.mark.parametrize("written", ["8xAscend910B", "8x910B", "8xHuawei Ascend 910B"])
def test_a_series_is_taken_as_its_smallest_card(written: str) -> None:
    device = parse_machine(written).devices[0]
    assert device.name == "Ascend 910B4"
    assert "not Ascend 910B1" in (device.note or "")
    assert parse_machine(f"{written}-64GB").devices[0].name == "Ascend 910B1"
