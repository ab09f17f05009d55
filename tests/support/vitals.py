"""The memory and files of a process under abuse, and other clients."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx

from tests.support.clock import stopwatch
from tests.support.events import body
from tests.support.http import ROOT, Api, environment, running, wait_until
from tests.support.servers import Server

MIB = 1024 * 1024
GROWTH_LIMIT_MIB = 50
OTHERS_SECONDS = 1.0
OTHER_ADDRESS = "127.0.0.2"
READERS = 40  # threads that may read tables at once, each with its connection


@contextmanager
def healthy(folder: Path, **settings: Any) -> Iterator[Api]:
    """An API with its projector that must end as healthy as it began.

    At the end the lag is 0 and the quarantine empty. The server is in the folder `server`, the data in `api`.
    """
    server = Server("valkey", folder / "server").start()
    try:
        with running(server, folder / "api", projector=True, **settings) as api:
            _warm(api)
            with unharmed(api):
                yield api
            assert "Traceback" not in (folder / "api" / "projector.out").read_text()
            wait_until(lambda: all(not tenant["lag_records"] for tenant in status_of(folder / "api", server)), "lag is 0")
            assert [tenant for tenant in status_of(folder / "api", server) if tenant["quarantined"] or tenant["stuck"]] == []
    finally:
        server.stop()


def status_of(folder: Path, server: Server) -> list[dict[str, Any]]:
    """What `python -m projector status` says of each tenant."""
    command = subprocess.run(
        [sys.executable, "-m", "projector", "status", "--json"],
        cwd=ROOT, env=environment(REDIS_URL=server.url, DATA_DIR=folder), capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    tenants: list[dict[str, Any]] = json.loads(command.stdout)
    return tenants


def _warm(api: Api) -> None:
    """Make a process open what it opens at its first requests."""
    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(lambda _: httpx.get(f"{api.url}/readyz"), range(READERS * 5)))


@contextmanager
def unharmed(api: Api) -> Iterator[None]:
    """The process ends this alive, with the memory and files of before."""
    memory, files = memory_mib(api), open_files(api)
    yield
    assert api.process.poll() is None, api.said
    assert "Traceback" not in api.said and "Exception in ASGI" not in api.said, api.said[-5_000:]
    wait_until(lambda: open_files(api) <= files, f"it has {files} files open, as before; it has {open_files(api)}")
    wait_until(lambda: memory_mib(api) < memory + GROWTH_LIMIT_MIB, f"it has about {memory} MiB, as before")


@contextmanager
def others_served(api: Api, **headers: str) -> Iterator[None]:
    """Meanwhile each event of another client is accepted in a second."""
    stop, slowest, answers = Event(), [0.0], []
    numbers = count()

    def post() -> None:
        transport = httpx.HTTPTransport(local_address=OTHER_ADDRESS)
        with httpx.Client(
            transport=transport, base_url=api.url, headers=headers or {"X-Tenant-ID": "others"}, timeout=60
        ) as client:
            while not stop.wait(0.02):
                with stopwatch() as watch:
                    answers.append(
                        client.post("/api/events", content=body(event_id=f"{time.time()}-{next(numbers)}")).status_code
                    )
                    slowest[0] = max(slowest[0], watch.seconds)

    thread = Thread(target=post)
    thread.start()
    try:
        yield
        wait_until(lambda: answers or not thread.is_alive(), "another client is served")
    finally:
        stop.set()
        thread.join()
    assert set(answers) == {202}
    assert slowest[0] < OTHERS_SECONDS


@contextmanager
def at_most(api: Api, growth_mib: float) -> Iterator[None]:
    """The process never takes more memory than now and this growth."""
    Path(f"/proc/{api.process.pid}/clear_refs").write_text("5")  # resets the peak
    memory = memory_mib(api)
    yield
    assert memory_mib(api, "VmHWM") - memory < growth_mib


def memory_mib(api: Api, name: str = "VmRSS") -> float:
    """The process's memory now, or at its peak."""
    lines = Path(f"/proc/{api.process.pid}/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith(f"{name}:")]
    return int(line.split()[1]) / 1024


def open_files(api: Api) -> int:
    """The number of files, sockets included, that the process has open."""
    return len(os.listdir(f"/proc/{api.process.pid}/fd"))
