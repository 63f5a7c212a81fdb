"""Recordings of real machines, read where they lie, as people read them by eye."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine.hardware import nvidia
from ftwiz.engine.hardware.nvidia import facts, proc, smi
from ftwiz.engine.hardware.nvidia.topology import parse_matrix, parse_peers
from ftwiz.engine.hardware.system import System
from ftwiz.engine.hardware.values import size

MIB = 2**20
Replay = Callable[..., System]
Expected = dict[str, dict[str, Any]]
WORST = ("nvlink", "pix", "pxb", "phb", "node", "sys")


@pytest.fixture(scope="module")
def recordings(corpus: Path) -> Path:
    return corpus / "hardware"


@pytest.fixture(scope="module")
def expected(recordings: Path) -> Expected:
    rows: Expected = json.loads((recordings / "EXPECTED.json").read_text(encoding="utf8"))
    return {name: row for name, row in rows.items() if name.startswith("nvidia/")}


def of(expected: Expected, parser: str) -> list[tuple[str, dict[str, Any]]]:
    return [(name, row) for name, row in expected.items() if row["parser"] == parser]


def test_every_expected_file_has_a_reader_here(expected: Expected) -> None:
    assert {row["parser"] for row in expected.values()} == {"nvidia_xml", "nvidia_csv", "matrix"}
    assert len(expected) >= 48


def test_every_recorded_xml_is_read_as_by_eye(expected: Expected, recordings: Path) -> None:
    rows = of(expected, "nvidia_xml")
    assert len(rows) == 14
    for name, row in rows:
        report = smi.parse((recordings / name).read_text(encoding="utf8", errors="replace"))
        assert not report.is_cut, name
        assert (report.driver_version, report.cuda_version) == (row["driver"], row["cuda"]), name
        cards = [card for card in report.cards if card.slot is None]
        assert len(cards) == len(row["gpus"]), name
        for card, gpu in zip(cards, row["gpus"], strict=True):
            device = card.entry.device
            read = {
                "name": device.name,
                "total": _mib(device.total_bytes),
                "reserved": _mib(device.reserved_bytes),
                "used": _mib(card.reading.memory_used_bytes),
                "mig": device.partitioned,
                "procs": len(device.processes),
                "mig_devices": [
                    _mib(other.entry.device.total_bytes)
                    for other in report.cards
                    if other.slot is not None and other.reading.index == card.reading.index
                ],
            }
            assert read == {key: gpu[key] for key in read}, name


def test_what_the_xmls_say_beyond_memory_is_read(recordings: Path) -> None:
    """Every recorded card tells its temperature and, but for one that was trimmed, how it is connected."""
    for path in sorted((recordings / "nvidia").glob("smi-q-x_*.xml")):
        for card in smi.parse(path.read_text(encoding="utf8", errors="replace")).cards:
            device = card.entry.device
            assert card.reading.temperature_celsius, path.name
            assert device.uuid is None or device.uuid.startswith("GPU-"), path.name
            assert (device.bus_id or "").startswith("00000000:"), path.name
            if "1070ti" not in path.name:
                assert device.pcie_generation in {3, 4}, path.name
                assert device.pcie_width in {8, 16}, path.name
                assert card.reading.clock_mhz is not None, path.name


def test_every_recorded_table_is_read_as_by_eye(expected: Expected, recordings: Path) -> None:
    rows = of(expected, "nvidia_csv")
    assert len(rows) == 18
    for name, row in rows:
        text = (recordings / name).read_text(encoding="utf8", errors="replace")
        table = smi.parse_table(text)
        assert len(table) == len(row["gpus"]), name
        for card, gpu in zip(table, row["gpus"], strict=True):
            assert {key: card.get(key) for key in gpu} == gpu, name
        for card in table:
            capability = smi.capabilities([card])
            assert list(capability.values()) == [tuple(map(int, (card["compute_cap"] or "").split(".")))]
            assert size(card["memory.total"], "m"), name


def test_every_recorded_matrix_is_read_as_by_eye(expected: Expected, recordings: Path) -> None:
    rows = of(expected, "matrix")
    assert len(rows) == 16
    for name, row in rows:
        told = parse_matrix((recordings / name).read_text(encoding="utf8", errors="replace"))
        assert len(told.cards) == row["n"], name
        assert len(told.links) == row["n"] * (row["n"] - 1) // 2, name
        worst = max(told.links.values(), key=lambda link: WORST.index(link[0]), default=None)
        word = None if worst is None else f"NV{worst[1]}" if worst[0] == "nvlink" else worst[0].upper()
        assert word == row["worst"], name


def test_cards_without_peer_access_are_recognised(recordings: Path) -> None:
    text = (recordings / "nvidia/topo-p2p-rw_2x5090_gns.txt").read_text(encoding="utf8")
    assert parse_peers(text) == {(0, 1): False}


def test_the_slices_of_a_recorded_card_are_named(recordings: Path) -> None:
    folder = recordings / "nvidia/captures/h100-mig_590.48.01"
    named = smi.parse_list((folder / "capabilities__list-l.txt").read_text(encoding="utf8"))
    assert [profile for profile, _ in named.values()] == ["3g.40gb", "2g.20gb", "1g.10gb", "1g.10gb"]


@pytest.mark.parametrize(
    ("name", "code"),
    [("driver-library-mismatch", facts.MISMATCH), ("container-unknown-error", facts.UNKNOWN)],
)
def test_recorded_failures_are_told_apart(recordings: Path, replay: Replay, name: str, code: int) -> None:
    said = (recordings / f"errors/nvidia-smi_{name}.txt").read_text(encoding="utf8")
    system = replay({"-q -x": said}, code=1)
    version = (recordings / "errors/proc-driver-nvidia-version_580.173.txt").read_text(encoding="utf8")
    folder = system.root / "proc/driver/nvidia"
    folder.mkdir(parents=True)
    (folder / "version").write_text(version, encoding="utf8")
    (problem,) = nvidia.inventory(system).problems
    assert f"(code {code})" in problem.message
    assert ("580.173.02" in problem.message) == (code == facts.MISMATCH)
    assert problem.advice


def test_a_recorded_card_of_the_kernel_is_read(recordings: Path) -> None:
    text = (recordings / "nvidia/proc-driver-nvidia-gpus_a6000_information.txt").read_text(encoding="utf8")
    device = proc.parse_information(text, bus_id="")
    assert (device.name, device.bus_id) == ("NVIDIA RTX A6000", "00000000:B1:00.0")
    assert (device.uuid or "").startswith("GPU-9de4332b")


@pytest.mark.parametrize("name", ["smi-q-x_a100-sxm4-80gb_mig_v12.xml", "smi-q-x_rtx2080x2_v13.xml"])
def test_a_recording_goes_through_the_whole_room(recordings: Path, replay: Replay, name: str) -> None:
    system = replay({"-q -x": (recordings / "nvidia" / name).read_bytes()})
    found = nvidia.inventory(system)
    assert not found.problems
    assert [device.index for device in found.devices] == list(range(len(found.devices)))
    readings = nvidia.usage(system, found.devices)
    assert all(reading.memory_used_bytes is not None for reading in readings)


def _mib(value: int | None) -> int | None:
    return None if value is None else value // MIB
