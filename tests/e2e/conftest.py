"""A real terminal (tmux) and a real sshd on the loopback, each test with its own, torn down with it."""

import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

Require = Callable[[bool, str], None]
POLL_SECONDS = 0.1


def _program(name: str) -> str | None:
    return shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition comes true within the time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(POLL_SECONDS)
    return condition()


class Terminal:
    """A program in a tmux pane: what its user sees, and the keys that are pressed."""

    def __init__(self, tmux: str, socket_path: Path, command: list[str], *, columns: int, rows: int) -> None:
        self._socket = socket_path
        self._tmux = [tmux, "-S", str(socket_path), "-f", os.devnull]
        settings = {"remain-on-exit": "on", "status": "off", "default-terminal": "tmux-256color"}
        start = ["start-server", ";"]
        for name, value in settings.items():
            start += ["set-option", "-g", name, value, ";"]
        self._command(*start, "new-session", "-d", "-x", str(columns), "-y", str(rows), *command)

    def _command(self, *arguments: str) -> str:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ["HOME"],
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
        }
        done = subprocess.run(
            [*self._tmux, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def screen(self) -> str:
        """What is on the screen now."""
        return self._command("capture-pane", "-p")

    def wait_for(self, pattern: str, *, seconds: float = 30) -> str:
        """Wait until the screen shows the regular expression, and return the screen."""
        found = wait_until(lambda: re.search(pattern, self.screen()) is not None, seconds)
        assert found, f"{pattern!r} did not appear in {seconds:.0f} s; the screen:\n{self.screen()}"
        return self.screen()

    def type(self, text: str) -> None:
        """Type a text as it is."""
        self._command("send-keys", "-l", "--", text)

    def press(self, *keys: str) -> None:
        """Press keys by tmux's names: ``Enter``, ``Tab``, ``C-c``, ``q``."""
        self._command("send-keys", "--", *keys)

    def run(self, line: str) -> None:
        """Type a line and Enter."""
        self.type(line)
        self.press("Enter")

    def kill_program(self) -> None:
        """End the pane's program as a dead network or a closed laptop does: without a word."""
        pid = int(self._command("display-message", "-p", "#{pane_pid}"))
        os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """End the terminal with everything in it."""
        subprocess.run([*self._tmux, "kill-server"], capture_output=True, check=False, timeout=20)
        self._socket.unlink(missing_ok=True)


@pytest.fixture
def open_terminal(tmp_path: Path, require: Require) -> Iterator[Callable[..., Terminal]]:
    """``open_terminal(["ssh", ...], columns=120, rows=40)``: any number of them, all closed at the end."""
    tmux = _program("tmux")
    require(tmux is not None, "tmux is not installed")
    assert tmux
    opened: list[Terminal] = []

    def open_one(command: list[str], *, columns: int = 120, rows: int = 40) -> Terminal:
        # A socket's path may have 107 bytes; pytest's folders are longer than that at times.
        path = Path(f"/tmp/ftwiz-{os.getpid()}-{len(opened)}-{tmp_path.name[-8:]}.tmux")  # noqa: S108
        terminal = Terminal(tmux, path, command, columns=columns, rows=rows)
        opened.append(terminal)
        return terminal

    yield open_one
    for terminal in opened:
        terminal.close()


class SshServer:
    """A user's sshd on a free port, with keys of its own; logins find ``ftwiz`` on their PATH."""

    def __init__(self, sshd: str, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self.port = _free_port()
        for name in ("host_key", "user_key"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(command, check=True, timeout=20)
        shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
        (folder / "sshd_config").write_text(self._config(environment), encoding="utf8")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with (folder / "sshd.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sshd, "-D", "-e", "-f", str(folder / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        listening = wait_until(lambda: _answers(self.port) or self._process.poll() is not None, 15)
        assert listening, (folder / "sshd.log").read_text()
        assert self._process.poll() is None, (folder / "sshd.log").read_text()

    def _config(self, environment: dict[str, str]) -> str:
        variables = " ".join(f'"{name}={value}"' for name, value in environment.items())
        return "\n".join(
            (
                f"Port {self.port}",
                "ListenAddress 127.0.0.1",
                f"HostKey {self._folder / 'host_key'}",
                f"AuthorizedKeysFile {self._folder / 'authorized_keys'}",
                "PidFile none",
                "UsePAM no",
                "StrictModes no",
                "PasswordAuthentication no",
                "PermitRootLogin prohibit-password",
                "PrintMotd no",
                f"SetEnv {variables}",
                "",
            )
        )

    def login(self, shell: str = "PS1='box$ ' exec bash --noprofile --norc -i") -> list[str]:
        """Return the command that logs in and gives a shell with a terminal."""
        ssh = _program("ssh") or "ssh"
        options = (
            "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "GlobalKnownHostsFile=/dev/null",
            "IdentitiesOnly=yes", "LogLevel=ERROR", "ControlMaster=no",
        )  # fmt: skip
        command = [ssh, "-tt", "-F", os.devnull, "-i", str(self._folder / "user_key"), "-p", str(self.port)]
        command += [part for option in options for part in ("-o", option)]
        return [*command, f"{getpass.getuser()}@127.0.0.1", shell]

    def close(self) -> None:
        """End the server and the logins that are left."""
        for child in psutil.Process(self._process.pid).children(recursive=True):
            if child.name().startswith("sshd"):
                child.terminate()
        self._process.terminate()
        self._process.wait(10)


@pytest.fixture
def ssh_server(tmp_path: Path, home: Path, require: Require) -> Iterator[SshServer]:
    """A running sshd whose logins have an empty FTWIZ_HOME and this environment's ``ftwiz``."""
    sshd = _program("sshd")
    require(sshd is not None, "sshd is not installed")
    require(_program("ssh") is not None, "ssh is not installed")
    assert sshd
    folder = tmp_path / "sshd"
    folder.mkdir(mode=0o700)
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "FTWIZ_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(home / "huggingface"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "OMP_NUM_THREADS": "1",
        "LANG": "C.UTF-8",
    }
    server = SshServer(sshd, folder, environment)
    yield server
    server.close()


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool], float], bool]:
    """``eventually(condition, seconds)``: whether the condition comes true within the time."""
    return wait_until


@pytest.fixture
def ftwiz_processes(home: Path) -> Callable[[], list[str]]:
    """The command lines of every living process of this test's ftwiz: front, supervisor, launcher, ranks."""

    def find() -> list[str]:
        found = []
        for process in psutil.process_iter():
            try:
                command = " ".join(process.cmdline())
                ours = process.environ().get("FTWIZ_HOME") == str(home) and "ftwiz" in command
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(command)
            except psutil.Error:
                continue  # it ended while we looked, or belongs to another user
        return found

    return find


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
