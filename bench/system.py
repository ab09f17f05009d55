"""The processes of a Penstock in a temporary directory."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import msgspec
import redis

from streams.runtime import Settings

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 20.0
END_SECONDS = 15.0


class Failed(Exception):
    """A measured process did not start, ended early, or answered wrongly."""


class System:
    """An embedded server and the processes beside it; a context manager."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
        self.settings = Settings(data_dir=str(self.folder / "data"))
        self.server = self.start("streams", "serve")
        self.redis = redis.Redis(unix_socket_path=self.settings.socket_path, protocol=2)
        self.wait_for(self.server, self._answers)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for process in reversed(self._processes):
                self.stop(process)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, module: str, *arguments: str, piped: bool = False, **environment: str) -> subprocess.Popen[str]:
        """Start `python -m module arguments`; it prints to a file or to pipes."""
        names = {field.encode_name for field in msgspec.structs.fields(Settings)}
        inherited = {name: value for name, value in os.environ.items() if name not in names}
        with open(self.folder / f"{module}.log", "a") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=self.folder,  # no .env is found here
                env={**inherited, "PYTHONPATH": str(ROOT), "DATA_DIR": self.settings.data_dir, **environment},
                stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else errors,
                stderr=errors,
                text=True,
                start_new_session=True,  # Ctrl-C is passed on by this process, in order
            )
        self._processes.append(process)
        return process

    def stop(self, process: subprocess.Popen[str]) -> None:
        """End a process as honcho would."""
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
        if process in self._processes:
            self._processes.remove(process)

    def run(self, module: str, *arguments: str, **environment: str) -> str:
        """Run a process to its end; its output. Raises Failed."""
        process = self.start(module, *arguments, piped=True, **environment)
        assert process.stdout is not None
        printed = process.stdout.read()
        if process.wait() != 0:
            raise Failed(f"{module} {' '.join(arguments)[:200]}: status {process.returncode}\n{self.log_of(module)}")
        self.stop(process)
        return printed

    def ask(self, module: str, *arguments: str, **plan: Any) -> Any:
        """Run a process of this package with a plan; its answer. Both are JSON."""
        return json.loads(self.run(module, *arguments, json.dumps(plan)))

    def start_api(self, **environment: str) -> int:
        """Run the API; its port."""
        port = free_port()
        settings: dict[str, Any] = {"NEW_TENANTS_PER_SECOND": "100000"} | environment
        process = self.start("api", PORT=str(port), **settings)
        self.wait_for(process, lambda: _listens(port))
        return port

    def start_constant(self) -> int:
        """Run the reference of the API; its port."""
        port = free_port()
        process = self.start("bench.constant", PORT=str(port))
        self.wait_for(process, lambda: _listens(port))
        return port

    def start_projector(self, database: Path) -> subprocess.Popen[str]:
        """Run a projector over a database."""
        return self.start("projector", "run", DATABASE_URL=f"sqlite:///{database}")

    def wait_for(self, process: subprocess.Popen[str], holds: Callable[[], bool], *, seconds: float = START_SECONDS) -> None:
        """Wait for a condition. Raises Failed when the process ends or is late."""
        deadline = time.monotonic() + seconds
        while not holds():
            if process.poll() is not None or time.monotonic() > deadline:
                logs = "\n".join(self.log_of(path.stem) for path in self.folder.glob("*.log"))
                raise Failed(f"{process.args!r}: status {process.poll()}\n{logs}")
            time.sleep(0.02)

    def log_of(self, module: str) -> str:
        """The end of the output of a module's processes."""
        path = self.folder / f"{module}.log"
        return path.read_text()[-2000:] if path.exists() else ""

    def _answers(self) -> bool:
        try:
            return bool(self.redis.ping())
        except redis.exceptions.RedisError:
            return False


def free_port() -> int:
    """A free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def cpu_seconds(pid: int) -> float:
    """The processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def end_on_signals() -> None:
    """Let SIGTERM end this process like Ctrl-C: its children end first."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
