"""Network, disks and hub: this machine's own interfaces and file systems."""

import os
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftwiz.engine.doctor import (
    Level,
    disk_checks,
    hub,
    network_checks,
)
from ftwiz.engine.doctor.disk_speed import measure
from ftwiz.engine.doctor.finding import Finding
from ftwiz.engine.hardware.system import System
from ftwiz.engine.specs.machine import Device

from .conftest import MakePatient

GPU = Device(
    kind="cuda",
    index=0,
    name="NVIDIA H100",
    vendor="nvidia",
    total_bytes=80 << 30,
    free_bytes=79 << 30,
)


def _levels(findings: list[Finding]) -> list[Level]:
    return [finding.level for finding in findings]


# network


def test_the_interfaces_are_those_that_are_up() -> None:
    names = network_checks.interfaces()
    assert set(names) <= set(psutil.net_if_addrs())
    assert "lo" in names


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("eth", ["eth0", "eth1"]),
        ("eth,ib", ["eth0", "eth1", "ib0"]),
        ("=eth0", ["eth0"]),
        ("=eth", []),
        ("^eth", ["docker0", "ib0", "lo"]),
        ("^=eth0,lo", ["docker0", "eth1", "ib0"]),
        ("enp", []),
    ],
)
def test_patterns_are_read_as_nccl_and_hccl_do(value: str, expected: list[str]) -> None:
    assert network_checks.matching(value, ["docker0", "eth0", "eth1", "ib0", "lo"]) == expected


NAME = st.sampled_from(["eth0", "eth1", "ib0", "lo", "docker0"])


@given(st.lists(NAME, min_size=1), st.lists(NAME, unique=True), st.booleans())
def test_a_pattern_and_its_opposite_share_nothing_and_miss_nothing(
    words: list[str], names: list[str], is_exact: bool
) -> None:
    pattern = ("=" if is_exact else "") + ",".join(words)
    chosen, others = network_checks.matching(pattern, names), network_checks.matching(f"^{pattern}", names)
    assert sorted(chosen + others) == sorted(names)


@pytest.mark.parametrize("variable", [*network_checks.BY_PATTERN, *network_checks.BY_NAME])
def test_an_interface_that_is_not_there_stops_ranks_on_several_devices(
    variable: str, patient: MakePatient
) -> None:
    environ = {variable: "nope0"}
    pair = patient(devices=(GPU, replace(GPU, index=1)), environ=environ)
    (told,) = [one for one in network_checks.look(pair) if variable in one.what]
    (alone,) = [one for one in network_checks.look(patient(environ=environ)) if variable in one.what]
    assert (told.level, alone.level) == (Level.ERROR, Level.WARNING)
    assert told.command == f"unset {variable}"


def test_an_interface_that_is_there_is_fine(patient: MakePatient) -> None:
    name = network_checks.interfaces()[0]
    environ = {"NCCL_SOCKET_IFNAME": f"={name}", "GLOO_SOCKET_IFNAME": name}
    assert Level.WARNING not in _levels(list(network_checks.look(patient(environ=environ))))


# disks


def test_the_disk_is_measured_in_time_and_nothing_is_left(tmp_path: Path) -> None:
    began = time.monotonic()
    speed = measure(tmp_path)
    assert time.monotonic() - began < 3
    assert speed.write_bytes_per_second > 0
    assert speed.read_bytes_per_second > 0
    assert list(tmp_path.iterdir()) == []


def test_no_more_is_written_than_allowed(tmp_path: Path) -> None:
    before = psutil.Process().io_counters().write_chars
    measure(tmp_path, seconds=30, most_bytes=8 << 20)
    assert 8 << 20 <= psutil.Process().io_counters().write_chars - before < 16 << 20


def test_memory_is_refused_as_a_place_to_offload_to(patient: MakePatient) -> None:
    real = replace(patient(), system=System({}, Path("/")), runs=Path("/dev/shm/runs"))  # noqa: S108 - looked at
    (finding,) = disk_checks.look_at_speed(real)
    assert finding.level is Level.NOTE
    assert "it is memory itself" in finding.what


def test_a_network_disk_is_told_by_its_mount(patient: MakePatient, tmp_path: Path) -> None:
    root = tmp_path / "root"
    inner = "/" + os.path.relpath(tmp_path, "/")
    mounts = f"30 1 0:40 / / rw - ext4 /dev/vda rw\n31 30 0:41 / {inner} rw - nfs4 server:/home rw\n"
    made = patient(files={"/proc/self/mountinfo": mounts}, runs=tmp_path / "runs")
    (root / inner.lstrip("/")).mkdir(parents=True)
    (finding,) = disk_checks.look_at_speed(made)
    assert "it is reached over a network" in finding.what


def test_a_file_in_the_way_of_the_runs_is_an_error(patient: MakePatient, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    findings = list(disk_checks.look(patient(runs=tmp_path / "file" / "runs")))
    (told,) = [one for one in findings if one.level is Level.ERROR]
    assert told.what.endswith("cannot be written: it is a file")


# hub


def test_the_cache_is_where_hugging_face_keeps_it(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert hub.cache_folder(home) == tmp_path / ".cache" / "huggingface" / "hub"
    assert hub.cache_folder({**home, "HF_HOME": "/models"}) == Path("/models/hub")
    assert hub.cache_folder({**home, "HF_HUB_CACHE": "~/hub"}) == tmp_path / "hub"
    assert hub.cache_folder({"XDG_CACHE_HOME": "/c"}) == Path("/c/huggingface/hub")


def test_models_offline_state_and_token_are_told(patient: MakePatient, tmp_path: Path) -> None:
    cache = tmp_path / "hf" / "hub"
    (cache / "models--a--b").mkdir(parents=True)
    (tmp_path / "hf" / "token").write_text("never shown", encoding="utf8")
    environ = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_CACHE": "/x"}
    offline, legacy = hub.look(patient(environ=environ))
    assert offline.what == f"offline: 1 model in {cache}, a token in {tmp_path / 'hf' / 'token'}"
    assert "never shown" not in str(offline)
    assert legacy.level is Level.WARNING
