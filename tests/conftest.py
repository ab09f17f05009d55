"""The fixtures of all tests: servers, a log, tables, a worker."""

import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from projector.live.worker import Worker
from projector.store.sqlite import SqliteStore
from streams import Connection, Log
from tests.support.sdks import Stack, standing
from tests.support.servers import BINARIES, Server

SERVER_FIXTURES = {"shared_server", "own_server", "stack"}
SLOW = {
    "faults",
    "sdks",
    "system",
    "test_embedded_server",
    "test_welcome",
    "test_hostile_access",
    "test_hostile_bodies",
    "test_hostile_tenants",
}
LONGEST = ("test_faults.py", "test_mutants.py")  # run first, so that no worker runs them alone at the end


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not SERVER_FIXTURES.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker("server")
        if item.path.parent.name in SLOW or item.path.stem in SLOW:
            item.add_marker("slow")
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Keep the garbage collector off the objects that earlier tests left.

    With hundreds of megabytes of them, a collection takes a third of a second from the test that measures a time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", params=sorted(BINARIES))
def shared_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(request.param, tmp_path_factory.mktemp(request.param)).start()
    yield server
    server.stop()


@pytest.fixture
def server(shared_server: Server) -> Server:
    """An empty server of each version.

    Tests that stop or configure a server take `own_server`.
    """
    shared_server.client.flushall()
    return shared_server


@pytest.fixture(params=sorted(BINARIES))
def own_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    server = Server(request.param, tmp_path / "server").start()
    yield server
    server.stop()


@pytest.fixture
async def log(server: Server) -> AsyncIterator[Log]:
    async with Log(Connection(server.url, budget_seconds=60)) as log:  # large appends take a while on a busy machine
        yield log


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with SqliteStore(str(tmp_path / "tables.db"), cache_mib=8) as store:
        yield store


@pytest.fixture
def worker(log: Log, store: SqliteStore) -> Worker:
    return Worker(log, store, lease_owner="test:1", lease_seconds=0.5)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """A whole Penstock as processes, for an SDK to send to."""
    with standing(tmp_path) as stack:
        yield stack
