"""The API for tests: in this process over ASGI, or as processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from api import create_app
from projector.live.worker import Worker
from projector.store.sqlite import SqliteStore
from streams import Log
from streams.runtime import load_settings
from tests.support.servers import Server

ROOT = Path(__file__).parents[2]
TENANT = "acme"


class App:
    """The application in this process; `project` does what a projector does."""

    def __init__(self, client: httpx.AsyncClient, log: Log, store: SqliteStore, worker: Worker) -> None:
        self.client, self.log, self.store, self._worker = client, log, store, worker

    async def post(self, content: Any, *, tenant: str = TENANT, headers: dict[str, str] | None = None) -> httpx.Response:
        """POST /api/events: bytes as they are, anything else as JSON."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return await self.client.post("/api/events", content=body, headers={"X-Tenant-ID": tenant, **(headers or {})})

    async def get(self, path: str, *, tenant: str = TENANT, **parameters: Any) -> httpx.Response:
        """GET a path as a tenant."""
        return await self.client.get(path, params=parameters or None, headers={"X-Tenant-ID": tenant})

    async def project(self) -> int:
        """Apply what is in the log; the number of records."""
        return await self._worker.run_to_end()

    async def lag(self) -> int:
        """The lag of all tenants, in records."""
        checkpoints = self.store.checkpoints()
        summaries = await self.log.summaries()
        return sum(
            summary.last - (checkpoints[summary.tenant].position if summary.tenant in checkpoints else 0) for summary in summaries
        )


@asynccontextmanager
async def opened(server: Server, folder: Path, **settings: Any) -> AsyncIterator[App]:
    """The application on a server, with tables in a folder."""
    many = {"NEW_TENANTS_PER_SECOND": "100000"}  # each test, and each example of a property, has tenants of its own
    own = {"REDIS_URL": server.url, "DATA_DIR": str(folder)}
    app = create_app(load_settings(many | own | {name: str(value) for name, value in settings.items()}))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        with SqliteStore(app.state.store.path, cache_mib=8) as store:
            worker = Worker(app.state.log, store, lease_owner="test:1", lease_seconds=0.5)
            yield App(client, app.state.log, store, worker)


class Api:
    """A running `python -m api`: its port and its output."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, output: Path) -> None:
        self.process, self.port, self._output = process, port, output
        self.url = f"http://127.0.0.1:{port}"

    @property
    def said(self) -> str:
        """Its output on stdout and stderr."""
        return self._output.read_text()

    @property
    def logged(self) -> list[dict[str, Any]]:
        """Its log lines, parsed; not the lines that offer a command to try."""
        return logged_in(self.said)

    def connect(self, seconds: float = 10.0) -> socket.socket:
        """A TCP connection to it."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=seconds)


@contextmanager
def running(server: Server, folder: Path, *, projector: bool = False, **settings: Any) -> Iterator[Api]:
    """The API and perhaps a projector, from the API's first answer on."""
    port = free_port()
    environ = {"REDIS_URL": server.url, "DATA_DIR": str(folder), "PORT": port} | settings
    with ExitStack() as stack:
        api = stack.enter_context(process_of(("-m", "api"), folder, "api.out", **environ))
        if projector:
            stack.enter_context(process_of(("-m", "projector", "run"), folder, "projector.out", **environ))
        wait_until(lambda: api.poll() is not None or _answers(port), "the API answers")
        assert api.poll() is None, (folder / "api.out").read_text()
        yield Api(api, port, folder / "api.out")


@contextmanager
def process_of(arguments: tuple[str, ...], folder: Path, output: str, **settings: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process of this Python, with these settings and no others.

    It runs in a folder, so that no `.env` of a developer is read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / output, "wb") as file:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, env=environment(**settings), stdout=file, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def logged_in(said: str) -> list[dict[str, Any]]:
    """The log lines of an output, parsed."""
    return [json.loads(line) for line in said.splitlines() if not line.startswith("Try it: ")]


def environment(**settings: Any) -> dict[str, str]:
    """The environment of a process: paths, and the settings."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {"PATH": path, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | {k: str(v) for k, v in settings.items()}


def free_port() -> int:
    """A free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """Wait for the first true value of a condition.

    `what` says in the failure what the test waited for.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain until {what}"
        time.sleep(0.02)
    return value


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=2).status_code == 200
    except httpx.TransportError:
        return False
