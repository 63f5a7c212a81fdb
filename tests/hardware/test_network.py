"""InfiniBand and RoCE ports, read from a tree like /sys/class/infiniband."""

from pathlib import Path

from ftwiz.engine.hardware.network import read_ports
from ftwiz.engine.hardware.system import System
from ftwiz.engine.specs.machine import NetworkPort


def port(root: Path, name: str, **files: str) -> None:
    folder = root / "sys/class/infiniband" / name.replace("/", "/ports/")
    folder.mkdir(parents=True)
    for file, text in files.items():
        (folder / file).write_text(text + "\n", encoding="utf8")


def test_ports_are_read_with_their_layer_state_and_speed(tmp_path: Path) -> None:
    port(tmp_path, "mlx5_10/1", state="1: DOWN", link_layer="InfiniBand", rate="10 Gb/sec (4X SDR)")
    port(tmp_path, "mlx5_2/1", state="4: ACTIVE", link_layer="InfiniBand", rate="400 Gb/sec (4X NDR)")
    port(tmp_path, "mlx5_bond_0/1", state="4: ACTIVE", link_layer="Ethernet", rate="2.5 Gb/sec (1X SDR)")
    assert read_ports(System({}, tmp_path)) == (
        NetworkPort(name="mlx5_2/1", link_layer="infiniband", is_active=True, bits_per_second=400e9),
        NetworkPort(name="mlx5_10/1", link_layer="infiniband", is_active=False, bits_per_second=10e9),
        NetworkPort(name="mlx5_bond_0/1", link_layer="ethernet", is_active=True, bits_per_second=2.5e9),
    )


def test_what_a_port_does_not_say_is_unknown(tmp_path: Path) -> None:
    port(tmp_path, "hfi1_0/1", link_layer="\x00\x01", rate="fast")
    assert read_ports(System({}, tmp_path)) == (NetworkPort(name="hfi1_0/1"),)


def test_a_box_without_adapters_has_no_ports(tmp_path: Path) -> None:
    assert read_ports(System({}, tmp_path)) == ()
