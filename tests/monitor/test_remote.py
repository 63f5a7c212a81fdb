"""A run on another host, over a real sshd on this one."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ftwiz.engine.errors import BadInput, Refused
from ftwiz.engine.rundir import RunFolder
from ftwiz.engine.telemetry import read_events
from ftwiz.tui.monitor.remote import Mirror, is_remote

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
needs_sshd = pytest.mark.skipif(
    not Path(SSHD).exists() or shutil.which("ssh") is None or os.geteuid() != 0,
    reason="needs ssh, sshd and root (sshd lets others only into their own account)",
)


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """A command that logs in to an sshd of our own as host ``box``."""
    folder = tmp_path_factory.mktemp("sshd")
    for key in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True, timeout=20
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "server").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
        f"StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin prohibit-password\n"
    )
    (folder / "client").write_text(
        f"Host box\n HostName 127.0.0.1\n Port {port}\n IdentityFile {folder}/user\n IdentitiesOnly yes\n"
        f" UserKnownHostsFile {folder}/known\n StrictHostKeyChecking no\n LogLevel ERROR\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen([SSHD, "-D", "-f", str(folder / "server")], stderr=subprocess.DEVNULL)
    try:
        _until(lambda: _listens(port))
        yield ["ssh", "-F", str(folder / "client"), "-T"]
    finally:
        server.terminate()
        server.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@needs_sshd
def test_a_remote_run_is_copied_and_followed(
    ssh: list[str], recorded: Callable[[str], RunFolder], tmp_path: Path
) -> None:
    there = recorded("running")
    strange = tmp_path / "it's a run"
    shutil.move(there.path, strange)
    mirror = Mirror(f"box:{strange}", command=ssh)
    try:
        mirror.wait()
        assert mirror.run.read_record() == RunFolder(strange).read_record()
        assert read_events(mirror.run.events_file) == read_events(strange / "events.jsonl")
        with (strange / "events.jsonl").open("ab") as file:
            file.write(b'{"kind":"log","t":1750000099.0,"message":"from far away"}\n')
        _until(lambda: b"from far away" in mirror.run.events_file.read_bytes())
        before = mirror.run.record_file.stat().st_ino
        record = (strange / "run.json").read_text()
        (strange / "run.json").write_text(record.replace('"running"', '"finished"'))
        _until(lambda: mirror.run.record_file.stat().st_ino != before)
        assert mirror.run.read_record().state == "finished"
    finally:
        mirror.close()
    assert not mirror.run.path.exists()
    assert not mirror.is_connected


@needs_sshd
def test_what_is_not_there_is_said(ssh: list[str], tmp_path: Path) -> None:
    for folder, words in ((tmp_path / "nowhere", "no folder"), (tmp_path, "no run.json")):
        mirror = Mirror(f"box:{folder}", command=ssh)
        with pytest.raises(BadInput, match=words):
            mirror.wait()
        mirror.close()


def test_a_line_that_is_cut_is_a_refusal() -> None:
    mirror = Mirror("box:/runs/x", command=["false"])
    with pytest.raises(Refused, match="ssh ended with code 1"):
        mirror.wait()
    mirror.close()


@pytest.mark.parametrize(
    ("name", "remote"),
    [("box:/runs/a", True), ("me@box:runs/a", True), ("demo", False), ("./a:b/c", False), (None, False)],
)
def test_what_is_a_name_on_another_host(name: str | None, *, remote: bool) -> None:
    assert is_remote(name) is remote


def test_a_host_cannot_be_an_option_of_ssh() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ftwiz", "watch", "-oProxyCommand=touch /nowhere:x", "--once"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert not is_remote("-oProxyCommand=x:y")
