"""Fixtures of the projector's tests."""

from collections.abc import AsyncIterator

import pytest

from projector.live import worker as worker_module
from projector.store.sqlite import SqliteStore
from streams import Connection, Consumer, Log
from tests.support.servers import Server
from tests.support.workers import consumer_of


@pytest.fixture
def frequent_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Periodic work of a worker runs twice a second."""
    monkeypatch.setattr(worker_module, "SWEEP_SECONDS", 0.5)
    monkeypatch.setattr(worker_module, "STUCK_SECONDS", 0.5)


@pytest.fixture
async def own_log(own_server: Server) -> AsyncIterator[Log]:
    async with Log(Connection(own_server.url)) as log:
        yield log


@pytest.fixture
def dead(log: Log, store: SqliteStore) -> Consumer:
    """A consumer that leases and reads, and then never answers again."""
    return consumer_of(log, store, "dead")
