"""The system under test: the Procfile's processes, and their faults.

It imports nothing of the packages that it tests: it knows their commands, their settings, their keys and their tables.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pysqlite3
import redis

from tests.faults.environment import Violation, children_of, die_with_parent, environment, free_port, procfile

LEASE_SECONDS = 0.5
START_SECONDS = 20.0
NAMES = ("server", "api", "projector-1", "projector-2")
PROJECTORS = NAMES[2:]
KILLED = (-signal.SIGKILL, 137)  # by a signal, and at a failpoint

T = TypeVar("T")


class System:
    """Every process of one Penstock, its directory, and reads of its data."""

    def __init__(self, code: Path, server: str, folder: Path) -> None:
        self.code, self.folder = code, folder
        self.data = folder / "d"
        self.tables = self.data / "penstock.db"
        self.port = free_port()
        self.commands = procfile(code / "Procfile")
        self.environment = environment(code, server, folder) | {
            "DATA_DIR": str(self.data),
            "PORT": str(self.port),
            "LEASE_SECONDS": str(LEASE_SECONDS),
            "APPEND_TIMEOUT_SECONDS": "1",
            "SQLITE_CACHE_MIB": "16",
            "PROJECTOR_BATCH_RECORDS": "40",  # so that a backlog spans several batches and transactions
            "MIN_FREE_DISK_BYTES": "0",
            "HOT_SECONDS": "0",  # so that an archiver leaves nothing but the newest record
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.held: set[str] = set()  # processes that the supervisor does not start again for now
        self.commanding: dict[tuple[str, ...], int] = {}  # the process of each command's latest run: faults run side by side
        self.armed: dict[int, str] = {}
        self.reached: Counter[str] = Counter()
        self.ended_alone: list[str] = []
        self.client = redis.Redis(unix_socket_path=str(self.data / "server.sock"), protocol=2, socket_timeout=5)

    # -- processes ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start all processes; wait until the API listens and the tables exist."""
        for name in NAMES:
            self.launch(name)
        await until(self._is_up, START_SECONDS, "the system did not start", self)

    def _is_up(self) -> bool:
        with contextlib.suppress(OSError, pysqlite3.Error, redis.RedisError):
            with socket.create_connection(("127.0.0.1", self.port), 1), self.snapshot() as connection:
                connection.execute("SELECT 1 FROM checkpoints")
                return bool(self.client.ping())
        return False

    def launch(self, name: str, fault_at: str = "") -> None:
        """Start a process; with a failpoint it dies there."""
        command = self.commands[name.partition("-")[0]]
        with open(self.folder / f"{name}.log", "ab") as log:
            # Always from the main thread: PDEATHSIG is sent when the thread that forked ends.
            self.processes[name] = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment | ({"FAILPOINT": fault_at} if fault_at else {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        if fault_at:
            self.armed[self.processes[name].pid] = fault_at.partition(":")[0]

    async def supervise(self) -> None:
        """Start every process that ends again, until cancelled.

        A process that ended without being killed is remembered in `ended_alone`.
        """
        while True:
            for name, process in list(self.processes.items()):
                if name not in self.held and process.poll() is not None:
                    self._note_end(name, process)
                    self.launch(name)
            await asyncio.sleep(0.01)

    def _note_end(self, name: str, process: subprocess.Popen[bytes]) -> None:
        status = process.returncode
        if status == 137:
            self.reached[self.armed.get(process.pid, "")] += 1
        if status not in KILLED:
            self.ended_alone.append(f"{name} ended by itself with status {status}: {self.tail(name)}")

    def kill(self, name: str) -> None:
        """kill -9; the supervisor starts it again."""
        self.signal(self.processes[name].pid, signal.SIGKILL)

    async def stop(self, *names: str) -> None:
        """kill -9, and leave it dead until `launch` and `release`."""
        self.held |= set(names)
        for name in names:
            self.kill(name)
        for name in names:
            await until(has_ended(self.processes[name]), 5, f"{name} does not die", self)
            self._note_end(name, self.processes[name])

    def release(self, *names: str) -> None:
        """Let the supervisor look after them again."""
        self.held -= set(names)

    async def dies_at(self, name: str, fault_at: str, *, seconds: float = 3.0) -> bool:
        """Start a process again that dies at a failpoint; whether it died in time."""
        await self.stop(name)
        self.launch(name, fault_at)
        process = self.processes[name]
        self.release(name)
        deadline = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < deadline:
            await asyncio.sleep(0.005)
        if process.poll() is None:
            self.kill(name)
            return False
        return True

    def signal(self, pid: int, number: int) -> None:
        """Send a signal to a process that may have ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    async def paused(self, pid: int, seconds: float) -> None:
        """SIGSTOP a process for a while."""
        self.signal(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.signal(pid, signal.SIGCONT)

    @property
    def server_pid(self) -> int | None:
        """The process of Redis or Valkey, a child of `serve`."""
        children = children_of(self.processes["server"].pid)
        return children[0] if children else None

    async def command(self, *words: str, fault_at: str = "", kill_after: float | None = None) -> tuple[int, str]:
        """Run `python -m …` to its end, or kill it after some seconds.

        Returns its status and its output.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *words,
            cwd=self.folder,
            env=self.environment | ({"FAILPOINT": fault_at} if fault_at else {}),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent,
        )  # fmt: skip
        self.commanding[words[:2]] = process.pid
        speaking = asyncio.create_task(process.communicate())
        try:
            await asyncio.wait([speaking], timeout=60 if kill_after is None else kill_after)
        finally:
            if not speaking.done():
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        output, _ = await speaking
        status = process.returncode or 0
        if status == 137:
            self.reached[fault_at.partition(":")[0]] += 1
        return status, output.decode(errors="replace").strip()

    async def end(self) -> None:
        """Send SIGTERM to all, as honcho does; all must end by themselves."""
        self.held |= set(NAMES)
        for process in self.processes.values():
            self.signal(process.pid, signal.SIGTERM)
        for name, process in self.processes.items():
            await until(has_ended(process), 8, f"{name} does not end at SIGTERM", self)
            if process.returncode not in (0, -signal.SIGTERM):
                raise Violation(f"{name} ended at SIGTERM with status {process.returncode}: {self.tail(name)}")

    def destroy(self) -> None:
        """kill -9 of every process that is left."""
        self.client.close()
        for pid in self.strays():
            self.signal(pid, signal.SIGKILL)
        for process in self.processes.values():
            process.wait()
        while self.strays():
            time.sleep(0.01)

    def strays(self) -> list[int]:
        """The processes that work in the directory, and so all that were started."""
        strays = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (entry / "cwd").readlink().is_relative_to(self.folder):
                    strays.append(int(entry.name))
        return strays

    # -- reads -------------------------------------------------------------------------------------------------------

    async def ask(self, question: Callable[[redis.Redis], T]) -> T:
        """The server's answer, asked again while the server is away."""
        deadline = time.monotonic() + 15
        while True:
            try:
                return await asyncio.to_thread(question, self.client)
            except (redis.ConnectionError, redis.TimeoutError):
                if time.monotonic() > deadline:
                    raise Violation(f"the server does not come back: {self.tail('server')}") from None
                await asyncio.sleep(0.02)

    @contextmanager
    def snapshot(self) -> Iterator[Any]:
        """A read transaction on the tables."""
        connection = pysqlite3.connect(f"file:{self.tables}?mode=ro", uri=True, timeout=10, isolation_level=None)
        try:
            connection.execute("BEGIN")
            yield connection
        finally:
            connection.close()

    def tail(self, name: str, lines: int = 12) -> str:
        """The end of a process's output."""
        path = self.folder / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""


def has_ended(process: subprocess.Popen[bytes]) -> Callable[[], bool]:
    """The question whether a process has ended."""
    return lambda: process.poll() is not None


async def until(happened: Callable[[], bool], seconds: float, otherwise: str, system: System) -> None:
    """Wait for a condition. Raises Violation when it takes too long."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            output = "\n".join(f"--- {name}\n{system.tail(name)}" for name in NAMES)
            raise Violation(f"{otherwise} within {seconds} s\n{output}")
        await asyncio.sleep(0.02)
