"""A run on another host: its folder is copied over the user's own ``ssh``, piece by piece, and drawn here.

On the other side a POSIX shell is all that is needed. Only what is new of a file is sent; nothing is
written there. The copy is a run folder like any other, in a temporary folder that is removed at the end.
"""

import contextlib
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from ...engine.errors import BadInput, Refused
from ...engine.rundir import RunFolder

CONNECT_SECONDS = 30.0
TAIL_BYTES = 64 << 20
"""Of a longer file only so much of the end is fetched."""
_WANTED = (
    "run.json",
    "plan.json",
    "job.yaml",
    "events.jsonl",
    "devices-0.jsonl",
    "log/rank-0.log",
    "log/launcher.log",
)
_TARGET = re.compile(r"^(?P<host>[A-Za-z0-9_][\w.@%\[\]-]*):(?P<path>.+)$", re.DOTALL)
# Every second: small files whole when they changed, of growing ones what is new. Each piece is told as
# a line "name size" and its bytes.
_SCRIPT = r"""
cd -- "$1" 2>/dev/null || { echo "! no folder $1"; exit 3; }
[ -f run.json ] || { echo "! no run.json in $1"; exit 3; }
shift
for f in "$@"; do eval "n_$(echo "$f" | tr -c 'a-zA-Z0-9\n' _)=-1"; done
last=
while :; do
  for f in run.json plan.json job.yaml; do
    [ -f "$f" ] || continue
    now=$f:$(cksum < "$f")
    case "$last" in *"|$now|"*) ;; *)
      t=$(cat "$f"; printf x); t=${t%x}
      printf '= %s %s\n' "$f" "$(printf %s "$t" | wc -c)"; printf %s "$t"
      last="$last|$now|";;
    esac
  done
  for f in "$@"; do
    v=n_$(echo "$f" | tr -c 'a-zA-Z0-9\n' _)
    [ -f "$f" ] || continue
    size=$(($(wc -c < "$f"))); eval "at=\$$v"
    if [ "$at" -lt 0 ]; then at=0; [ "$size" -gt TAIL ] && at=$((size - TAIL)); fi
    [ "$size" -lt "$at" ] && at=0
    if [ "$size" -gt "$at" ]; then
      printf '+ %s %s\n' "$f" "$((size - at))"
      tail -c +$((at + 1)) "$f" | head -c $((size - at))
      at=$size
    fi
    eval "$v=$at"
  done
  printf '.\n'
  sleep 1 || exit
done
"""


def is_remote(wanted: str | None) -> bool:
    """Whether a name is ``host:folder``."""
    return wanted is not None and "/" not in wanted.partition(":")[0] and bool(_TARGET.match(wanted))


class Mirror:
    """A local copy of a run folder on another host, that grows as that one does.

    Args:
        wanted: ``user@host:folder``.
        command: The remote shell; ``ssh`` with the user's own configuration when absent.
    """

    def __init__(self, wanted: str, *, command: Sequence[str] = ("ssh", "-T")) -> None:
        found = _TARGET.match(wanted)
        if found is None or found["host"].startswith("-"):
            raise BadInput(f"{wanted!r} is not HOST:FOLDER")
        self.name = wanted
        folder = found["path"].rstrip("/") or "/"
        self._root = Path(tempfile.mkdtemp(prefix="ftwiz-"))
        self.run = RunFolder(self._root / (Path(folder).name or "run"))
        for path in (self.run.path, self.run.log_folder):
            path.mkdir(mode=0o700)
        growing = [name for name in _WANTED if not name.endswith((".json", ".yaml"))]
        script = _SCRIPT.replace("TAIL", str(TAIL_BYTES))
        remote = " ".join(_quoted(word) for word in ("sh", "-c", script, "ftwiz", folder, *growing))
        try:
            self._process = subprocess.Popen(
                [*command, found["host"], remote], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
            )
        except OSError as error:
            self.close()
            raise Refused(f"{command[0]} cannot be started: {error.strerror}") from error
        self._first = threading.Event()
        self.said: str | None = None
        self._thread = threading.Thread(target=self._copy, name="ftwiz-ssh", daemon=True)
        self._thread.start()

    @property
    def is_connected(self) -> bool:
        """Whether the other side still sends."""
        return self._process.poll() is None

    def wait(self, seconds: float = CONNECT_SECONDS) -> None:
        """Return when the first copy is whole.

        Raises:
            Refused: ssh ended, or nothing came for too long.
            BadInput: There is no run on the other side.
        """
        self._first.wait(seconds)
        if self.said is not None:
            raise BadInput(f"{self.name}: {self.said}")
        if not self.run.record_file.is_file():
            code = self._process.poll() if self._thread.is_alive() else self._process.wait()
            why = f"ssh ended with code {code}" if code is not None else f"nothing came in {seconds:.0f} s"
            raise Refused(f"{self.name}: {why}", hint="try the same host with ssh alone")

    def close(self) -> None:
        """End ssh and remove the copy."""
        process = getattr(self, "_process", None)
        if process is not None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2)
            self._thread.join(2)
        shutil.rmtree(self._root, ignore_errors=True)

    def _copy(self) -> None:
        assert self._process.stdout is not None
        stream = self._process.stdout
        try:
            while header := stream.readline(4096):
                mark, _, rest = header.rstrip(b"\n").decode("utf8", "replace").partition(" ")
                if mark == ".":
                    self._first.set()
                elif mark == "!":
                    self.said = rest
                elif mark in {"=", "+"}:
                    name, _, size = rest.rpartition(" ")
                    self._take(name, int(size), stream.read, whole=mark == "=")
        except (OSError, ValueError):
            pass  # the line is cut: what came stays on the screen
        finally:
            stream.close()
            self._first.set()

    def _take(self, name: str, size: int, read: Callable[[int], bytes], *, whole: bool) -> None:
        if name not in _WANTED:
            raise ValueError(name)
        path = self.run.path / name
        target = path.with_name(f".{path.name}.new") if whole else path
        with target.open("wb" if whole else "ab") as file:
            while size > 0 and (data := read(min(size, 1 << 20))):
                file.write(data)
                size -= len(data)
        if whole:
            target.replace(path)


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\"'\"'") + "'"
