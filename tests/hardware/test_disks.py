"""Where a run would write: mount, medium and free space, from recorded forms of /proc and /sys."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftwiz.engine.hardware.disks import Mount, medium_of, places, read_disks, read_mounts
from ftwiz.engine.hardware.system import System

MOUNTS = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw
28 27 8:1 / /scratch rw shared:2 - xfs /dev/sda1 rw
29 27 0:44 / /home rw - nfs4 server:/export/home rw,vers=4.2
30 27 0:45 / /dev/shm rw - tmpfs tmpfs rw
31 27 0:50 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw,lowerdir=/a
32 27 0:51 /@data /data rw - btrfs /dev/nvme0n1p2 rw
33 27 253:0 / /raid rw - xfs /dev/mapper/vg-raid rw
34 27 8:1 /with\040space /mnt/with\040space rw - xfs /dev/sda1 rw
35 27 252:1 / /virtual rw - ext4 /dev/vda1 rw
36 27 0:60 / /s3 rw - fuse.juicefs JuiceFS:big rw
37 27 8:17 / /old rw - ext4 /dev/sdb1 rw
broken line
38 27 0:61 / /dev/shm rw - tmpfs again rw
"""


def link(at: Path, to: Path) -> None:
    at.parent.mkdir(parents=True, exist_ok=True)
    at.symlink_to(to)


@pytest.fixture
def system(tmp_path: Path) -> System:
    """A box with an NVMe disk, an SSD, a rotating disk, a virtual one, and a device mapper over the SSD."""
    root = tmp_path
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text(MOUNTS.strip(), encoding="utf8")
    devices = root / "sys/devices/pci"
    for disk, part, rotates in (
        ("nvme0n1", "nvme0n1p2", "0"),
        ("sda", "sda1", "0"),
        ("sdb", "sdb1", "1"),
        ("vda", "vda1", "1"),
    ):
        (devices / disk / part).mkdir(parents=True)
        (devices / disk / "queue").mkdir()
        (devices / disk / "queue/rotational").write_text(rotates + "\n")
        (devices / disk / "slaves").mkdir()
    (devices / "dm-0/queue").mkdir(parents=True)
    (devices / "dm-0/queue/rotational").write_text("0\n")
    link(devices / "dm-0/slaves/sdb1", devices / "sdb/sdb1")
    for number, path in (
        ("259:2", "nvme0n1/nvme0n1p2"),
        ("8:1", "sda/sda1"),
        ("8:17", "sdb/sdb1"),
        ("252:1", "vda/vda1"),
        ("253:0", "dm-0"),
    ):
        link(root / "sys/dev/block" / number, devices / path)
    link(root / "sys/class/block/nvme0n1p2", devices / "nvme0n1/nvme0n1p2")
    return System({}, root)


@pytest.mark.parametrize(
    ("path", "point", "medium"),
    [
        ("/srv/run", "/", "nvme"),
        ("/scratch/runs", "/scratch", "ssd"),
        ("/home/.cache", "/home", "network"),
        ("/dev/shm", "/dev/shm", "memory"),  # noqa: S108 - a mount point in a recorded table
        ("/var/lib/docker/overlay2/x/merged/tmp", "/var/lib/docker/overlay2/x/merged", "overlay"),
        ("/data/set", "/data", "nvme"),
        ("/raid", "/raid", "hdd"),
        ("/mnt/with space/x", "/mnt/with space", "ssd"),
        ("/virtual", "/virtual", None),
        ("/s3", "/s3", "network"),
        ("/old", "/old", "hdd"),
        ("/homework", "/", "nvme"),
    ],
)
def test_a_path_lies_on_the_longest_mount_and_its_medium_is_known(
    system: System, path: str, point: str, medium: str | None
) -> None:
    (disk,) = read_disks(system, {"here": path})
    assert (disk.path, disk.medium, disk.holds) == (point, medium, ("here",))


def test_of_two_mounts_at_one_point_the_later_is_on_top(system: System) -> None:
    mounts = [mount for mount in read_mounts(system) if mount.point == "/dev/shm"]  # noqa: S108
    assert [mount.source for mount in mounts] == ["tmpfs", "again"]


def test_places_on_one_disk_are_told_together_and_its_space_is_what_statvfs_says(system: System) -> None:
    (disk,) = read_disks(system, {"runs": "/a", "models": "/b"})
    space = os.statvfs(system.root)
    assert disk.holds == ("runs", "models")
    assert disk.total_bytes == space.f_blocks * space.f_frsize
    assert disk.free_bytes is not None


def test_a_mount_that_is_gone_has_no_size(system: System) -> None:
    (disk,) = read_disks(system, {"here": "/scratch"})
    assert (disk.total_bytes, disk.free_bytes) == (None, None)


def test_places_follow_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    here = str(tmp_path)
    assert places({"HOME": "/data/me"}) == {
        "here": here,
        "runs": here,
        "models": "/data/me/.cache/huggingface",
        "temporary": "/tmp",  # noqa: S108 - the default of every system
    }
    moved = {
        "FTWIZ_HOME": "runs-here",
        "HF_HOME": "/models",
        "TMPDIR": "/scratch/tmp/",
        "XDG_CACHE_HOME": "/c",
    }
    assert places(moved) == {
        "here": here,
        "runs": f"{here}/runs-here",
        "models": "/models",
        "temporary": "/scratch/tmp",
    }
    assert places({"HF_HUB_CACHE": "/hub"})["models"] == "/hub"


def test_this_machines_disk_has_room() -> None:
    system = System()
    disks = read_disks(system, places(system.environ))
    assert sum(len(disk.holds) for disk in disks) == 4
    assert all(disk.total_bytes for disk in disks)


@settings(max_examples=int(os.environ.get("FTWIZ_FUZZ", "100")), deadline=None)
@given(st.binary(max_size=300), st.integers(0, len(MOUNTS)))
def test_whatever_the_table_of_mounts_says_disks_are_read(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int
) -> None:
    root = tmp_path_factory.mktemp("root")
    (root / "proc/self").mkdir(parents=True)
    text = MOUNTS.encode()
    (root / "proc/self/mountinfo").write_bytes(text[:at] + noise + text[at:])
    system = System({}, root)
    disks = read_disks(system, {"here": "/home", "runs": "/scratch/x"})
    assert len(disks) <= 2
    assert medium_of(system, Mount("/", "no:number", "ext4", "/dev/../..")) is None
